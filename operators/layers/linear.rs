//! Layers that move and average values, each with its exact adjoint as gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::upsampling::{fine, taps};
use super::written::{Blank, put, written};
use super::{Boundary, crew, gpu, values};

/// Folds each `r` x `r` patch into channels: `(B, H, W, C) -> (B, H/r, W/r, C*r*r)`, channel order
/// as PyTorch's `pixel_unshuffle`: channel, then row offset, then column offset.
///
/// # Errors
/// When a side is not a multiple of `r`.
pub fn pixel_unshuffle(x: &Tensor, r: usize) -> Result<Tensor> {
    let layer = Linear { kind: Kind::Unshuffle, r, boundary: Boundary::Open };
    layer.on(x, |x| gpu::fold(x, r))
}

/// The inverse of [`pixel_unshuffle`].
///
/// # Errors
/// When the channels are not a multiple of `r * r`.
pub fn pixel_shuffle(x: &Tensor, r: usize) -> Result<Tensor> {
    let layer = Linear { kind: Kind::Shuffle, r, boundary: Boundary::Open };
    layer.on(x, |x| gpu::unfold(x, r))
}

/// The mean of each `r` x `r` patch: `(B, H, W, C) -> (B, H/r, W/r, C)`.
///
/// # Errors
/// When a side is not a multiple of `r`.
pub fn avg_pool(x: &Tensor, r: usize) -> Result<Tensor> {
    let layer = Linear { kind: Kind::Pool, r, boundary: Boundary::Open };
    layer.on(x, |x| gpu::pool(x, r))
}

/// Bilinear up-sampling by `r` with half-pixel centres: `(B, H, W, C) -> (B, H*r, W*r, C)`.
///
/// # Errors
/// When the tensor is not four-dimensional f32.
pub fn upsample_bilinear(x: &Tensor, r: usize, boundary: Boundary) -> Result<Tensor> {
    let layer = Linear { kind: Kind::Upsample, r, boundary };
    layer.on(x, |x| gpu::upsample(x, r, boundary))
}

/// What a value costs that is moved or mixed, in multiply-adds of a convolution.
pub(super) const VALUE: usize = 30;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Unshuffle,
    Shuffle,
    Pool,
    Spread,
    Upsample,
    Gather,
}

#[derive(Clone, Copy)]
struct Linear {
    kind: Kind,
    r: usize,
    boundary: Boundary,
}

impl Linear {
    fn on(self, x: &Tensor, gpu: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let x = x.contiguous()?;
        if gpu::wanted(&x) {
            self.dims(x.dims())?;
            return gpu(&x);
        }
        x.apply_op1(self)
    }

    /// The dimensions of the result.
    fn dims(&self, from: &[usize]) -> Result<[usize; 4]> {
        let &[b, h, w, c] = from else { bail!("four dimensions are needed, not {from:?}") };
        let r = self.r;
        if r == 0 {
            bail!("a plane cannot be folded by 0");
        }
        let shrinks = matches!(self.kind, Kind::Unshuffle | Kind::Pool | Kind::Gather);
        if shrinks && (h % r != 0 || w % r != 0) || self.kind == Kind::Shuffle && c % (r * r) != 0 {
            bail!("{from:?} cannot be folded by {r}");
        }
        Ok(match self.kind {
            Kind::Unshuffle => [b, h / r, w / r, c * r * r],
            Kind::Shuffle => [b, h * r, w * r, c / (r * r)],
            Kind::Pool | Kind::Gather => [b, h / r, w / r, c],
            Kind::Spread | Kind::Upsample => [b, h * r, w * r, c],
        })
    }

    fn adjoint(self) -> Self {
        let kind = match self.kind {
            Kind::Unshuffle => Kind::Shuffle,
            Kind::Shuffle => Kind::Unshuffle,
            Kind::Pool => Kind::Spread,
            Kind::Spread => Kind::Pool,
            Kind::Upsample => Kind::Gather,
            Kind::Gather => Kind::Upsample,
        };
        Self { kind, ..self }
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear-nhwc"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims = self.dims(layout.dims())?;
        let &[b, h, w, c] = layout.dims() else { unreachable!("they have a result") };
        let (x, r) = (values(storage, layout)?, self.r);
        let size = dims[1] * dims[2] * dims[3];
        let count = b * size;
        let images = || x.chunks_exact((h * w * c).max(1));
        // A row of patches is all that one row of their folded plane is of.
        let (patches, cost) = (r * w * c, count * VALUE);
        let moved = |y: &mut [Blank]| match self.kind {
            Kind::Unshuffle => crew::rows(y, patches, cost, |row, y| {
                fold(&x[row * patches..][..y.len()], y, w / r, c, r);
            }),
            Kind::Shuffle => crew::rows(y, w * c, cost, |row, y| {
                unfold(&x[row * w * c..][..y.len()], y, w, c / (r * r), r);
            }),
            _ => fine(x, [b, h, w, c], r, self.boundary, y, |_, mixed, y| put(y, mixed.values())),
        };
        // SAFETY: folding moves every value, and up-sampling makes every one.
        #[allow(unsafe_code)]
        let y = match self.kind {
            Kind::Unshuffle | Kind::Shuffle | Kind::Upsample => unsafe { written(count, moved) },
            _ => {
                let mut y = vec![0.0; count];
                if self.kind == Kind::Pool {
                    crew::rows(&mut y, w / r * c, r * r * cost, |row, y| {
                        pool(&x[row * patches..][..y.len() * r * r], y, w, c, r);
                    });
                    return Ok((CpuStorage::F32(y), Shape::from(&dims)));
                }
                // Gradients alone.
                for (x, y) in images().zip(y.chunks_exact_mut(size.max(1))) {
                    match self.kind {
                        Kind::Spread => spread(x, y, w, c, r),
                        _ => gather(x, y, [h / r, w / r, c], r, self.boundary),
                    }
                }
                y
            }
        };
        Ok((CpuStorage::F32(y), Shape::from(&dims)))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&self.adjoint())?))
    }
}

/// Calls `visit` for each pixel of a fine plane, with its offset there and that of its first value
/// in the folded plane of `w` columns, where its channels lie `r * r` apart.
fn each_pixel(len: usize, w: usize, c: usize, r: usize, mut visit: impl FnMut(usize, usize)) {
    let cell = c * r * r;
    for (row, start) in (0..len).step_by((w * r * c).max(1)).enumerate() {
        for column in 0..w {
            for dx in 0..r {
                let folded = (row / r * w + column) * cell + row % r * r + dx;
                visit(start + (column * r + dx) * c, folded);
            }
        }
    }
}

fn fold(fine: &[f32], folded: &mut [Blank], w: usize, c: usize, r: usize) {
    if r == 2 {
        return halve(fine, folded, w, c);
    }
    each_pixel(fine.len(), w, c, r, |from, to| {
        let cell = folded[to..].iter_mut().step_by(r * r);
        cell.zip(&fine[from..from + c]).for_each(|(to, from)| *to = Blank::new(*from));
    });
}

/// [`fold`] by two, at several times the speed.
fn halve(fine: &[f32], folded: &mut [Blank], w: usize, c: usize) {
    let line = (2 * w * c).max(1);
    for (lines, cells) in fine.chunks_exact(2 * line).zip(folded.chunks_exact_mut(2 * line)) {
        let pairs = lines[..line].chunks_exact(2 * c).zip(lines[line..].chunks_exact(2 * c));
        for ((upper, lower), cell) in pairs.zip(cells.chunks_exact_mut(4 * c)) {
            let ((u, v), (x, y)) = (upper.split_at(c), lower.split_at(c));
            for (k, to) in cell.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *to = [u[k], v[k], x[k], y[k]].map(Blank::new);
            }
        }
    }
}

fn unfold(folded: &[f32], fine: &mut [Blank], w: usize, c: usize, r: usize) {
    if r == 2 {
        return double(folded, fine, w, c);
    }
    each_pixel(fine.len(), w, c, r, |to, from| {
        let cell = folded[from..].iter().step_by(r * r);
        put(&mut fine[to..to + c], cell.copied());
    });
}

/// [`unfold`] by two, at several times the speed.
fn double(folded: &[f32], fine: &mut [Blank], w: usize, c: usize) {
    let line = (2 * w * c).max(1);
    for (cells, lines) in folded.chunks_exact(2 * line).zip(fine.chunks_exact_mut(2 * line)) {
        let (upper, lower) = lines.split_at_mut(line);
        let pairs = upper.chunks_exact_mut(2 * c).zip(lower.chunks_exact_mut(2 * c));
        for ((upper, lower), cell) in pairs.zip(cells.chunks_exact(4 * c)) {
            let ((u, v), (x, y)) = (upper.split_at_mut(c), lower.split_at_mut(c));
            for (k, from) in cell.as_chunks::<4>().0.iter().enumerate() {
                [u[k], v[k], x[k], y[k]] = from.map(Blank::new);
            }
        }
    }
}

fn pool(x: &[f32], y: &mut [f32], w: usize, c: usize, r: usize) {
    let share = 1.0 / (r * r) as f32;
    for (row, line) in x.chunks_exact(w * c).enumerate() {
        let to = &mut y[row / r * (w / r) * c..][..w / r * c];
        for (column, pixel) in line.chunks_exact(c).enumerate() {
            let to = &mut to[column / r * c..][..c];
            to.iter_mut().zip(pixel).for_each(|(t, v)| *t += v);
        }
    }
    y.iter_mut().for_each(|value| *value *= share);
}

fn spread(x: &[f32], y: &mut [f32], w: usize, c: usize, r: usize) {
    let share = 1.0 / (r * r) as f32;
    for (row, line) in y.chunks_exact_mut(w * r * c).enumerate() {
        let from = &x[row / r * w * c..][..w * c];
        for (column, pixel) in line.chunks_exact_mut(c).enumerate() {
            let from = &from[column / r * c..][..c];
            pixel.iter_mut().zip(from).for_each(|(t, v)| *t = v * share);
        }
    }
}

/// The adjoint of up-sampling: `x` is fine, `y` coarse `[h, w, c]`.
fn gather(x: &[f32], y: &mut [f32], [h, w, c]: [usize; 3], r: usize, boundary: Boundary) {
    let columns = taps(w, r, boundary);
    let mut line = vec![0.0; w * c];
    for (&(a, b, t), x) in taps(h, r, boundary).iter().zip(x.chunks_exact(w * r * c)) {
        line.fill(0.0);
        for (&(a, b, t), x) in columns.iter().zip(x.chunks_exact(c)) {
            line[a * c..][..c].iter_mut().zip(x).for_each(|(l, g)| *l += g * (1.0 - t));
            line[b * c..][..c].iter_mut().zip(x).for_each(|(l, g)| *l += g * t);
        }
        y[a * w * c..][..w * c].iter_mut().zip(&line).for_each(|(y, g)| *y += g * (1.0 - t));
        y[b * w * c..][..w * c].iter_mut().zip(&line).for_each(|(y, g)| *y += g * t);
    }
}
