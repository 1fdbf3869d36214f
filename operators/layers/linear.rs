//! Layers that move and average values, each with its exact adjoint as gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

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
const VALUE: usize = 30;

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
        let mut y = vec![0.0; b * size];
        let images = || x.chunks_exact((h * w * c).max(1));
        // A row of patches is all that one row of their folded plane is of.
        let (patches, cost) = (r * w * c, y.len() * VALUE);
        match self.kind {
            Kind::Unshuffle => crew::rows(&mut y, patches, cost, |row, y| {
                fold(&x[row * patches..][..y.len()], y, w / r, c, r);
            }),
            Kind::Shuffle => crew::rows(&mut y, w * c, cost, |row, y| {
                unfold(&x[row * w * c..][..y.len()], y, w, c / (r * r), r);
            }),
            Kind::Pool => crew::rows(&mut y, w / r * c, r * r * cost, |row, y| {
                pool(&x[row * patches..][..y.len() * r * r], y, w, c, r);
            }),
            Kind::Upsample => {
                let taps = [taps(h, r, self.boundary), taps(w, r, self.boundary)];
                for (x, y) in images().zip(y.chunks_exact_mut(size.max(1))) {
                    crew::rows(y, w * r * c, size * VALUE, |row, y| {
                        upsample(x, y, [w, c], [&taps[0][row..], &taps[1]]);
                    });
                }
            }
            // Gradients alone.
            Kind::Spread => {
                images()
                    .zip(y.chunks_exact_mut(size.max(1)))
                    .for_each(|(x, y)| spread(x, y, w, c, r));
            }
            Kind::Gather => {
                let size = [h / r, w / r, c];
                let pairs = images().zip(y.chunks_exact_mut(size.iter().product::<usize>().max(1)));
                pairs.for_each(|(x, y)| gather(x, y, size, r, self.boundary));
            }
        }
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

fn fold(fine: &[f32], folded: &mut [f32], w: usize, c: usize, r: usize) {
    each_pixel(fine.len(), w, c, r, |from, to| {
        let cell = folded[to..].iter_mut().step_by(r * r);
        cell.zip(&fine[from..from + c]).for_each(|(to, from)| *to = *from);
    });
}

fn unfold(folded: &[f32], fine: &mut [f32], w: usize, c: usize, r: usize) {
    each_pixel(fine.len(), w, c, r, |to, from| {
        let cell = folded[from..].iter().step_by(r * r);
        fine[to..to + c].iter_mut().zip(cell).for_each(|(to, from)| *to = *from);
    });
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

/// The two coarse indices around a fine one and the share of the second.
type Tap = (usize, usize, f32);

/// The taps of each fine index.
pub(super) fn taps(len: usize, r: usize, boundary: Boundary) -> Vec<Tap> {
    let tap = |fine: usize| {
        let at = (fine as f32 + 0.5) / r as f32 - 0.5;
        let low = at.floor();
        let index = |i: isize| boundary.index(i, len);
        (index(low as isize), index(low as isize + 1), at - low)
    };
    (0..len * r).map(tap).collect()
}

/// Some rows of an up-sampled plane, whose taps are given for them and for all columns.
fn upsample(x: &[f32], y: &mut [f32], [w, c]: [usize; 2], [rows, columns]: [&[Tap]; 2]) {
    let mut line = vec![0.0; w * c];
    for (&(a, b, t), y) in rows.iter().zip(y.chunks_exact_mut(columns.len() * c)) {
        let (above, below) = (&x[a * w * c..][..w * c], &x[b * w * c..][..w * c]);
        for ((l, u), v) in line.iter_mut().zip(above).zip(below) {
            *l = u + (v - u) * t;
        }
        for (&(a, b, t), y) in columns.iter().zip(y.chunks_exact_mut(c)) {
            let (left, right) = (&line[a * c..][..c], &line[b * c..][..c]);
            for ((y, u), v) in y.iter_mut().zip(left).zip(right) {
                *y = u + (v - u) * t;
            }
        }
    }
}

/// The adjoint of [`upsample`]: `x` is fine, `y` coarse `[h, w, c]`.
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
