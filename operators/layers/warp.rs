//! Semi-Lagrangian backward warp: each pixel takes the image's value where it came from.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::simd::{Kernel, run};
use super::{Boundary, values};

/// `out(p) = image(p + flow(p))`, bilinear, for each of L displacements: image `(B, H, W, C)`, flow
/// `(B, H, W, 2 L)` in pixels as (dx, dy) pairs, out `(B, H, W, L * C)`. Open domains clamp the
/// coordinates, periodic ones wrap them; a displacement that is not finite counts as none.
/// Gradients reach both.
///
/// # Errors
/// When the shapes do not fit.
pub fn warp(image: &Tensor, flow: &Tensor, boundary: Boundary) -> Result<Tensor> {
    image.contiguous()?.apply_op2(&flow.contiguous()?, Warp { boundary })
}

#[derive(Clone, Copy)]
struct Warp {
    boundary: Boundary,
}

/// Samples whose coordinates are worked out together, in vectors.
const LANES: usize = 16;

/// Where one axis of the samples lies: the two indices around each, the share of the second, and
/// 1 where the coordinate moves with the displacement (0 where it is clamped).
struct Axis {
    low: [i32; LANES],
    high: [i32; LANES],
    share: [f32; LANES],
    free: [f32; LANES],
}

#[inline(always)]
fn axis(at: &[f32; LANES], step: &[f32; LANES], len: usize, boundary: Boundary) -> Axis {
    let (size, last) = (len as f32, len as i32 - 1);
    let mut axis =
        Axis { low: [0; LANES], high: [0; LANES], share: [0.0; LANES], free: [1.0; LANES] };
    for j in 0..LANES {
        let to = at[j] + if step[j].is_finite() { step[j] } else { 0.0 };
        match boundary {
            Boundary::Open => {
                let inside = to.max(0.0).min(last as f32);
                // On the last pixel the share is 0: no displacement gives exactly the image.
                let low = inside as i32;
                axis.low[j] = low;
                axis.high[j] = (low + 1).min(last);
                axis.share[j] = inside - low as f32;
                axis.free[j] = if inside == to && last > 0 { 1.0 } else { 0.0 };
            }
            Boundary::Periodic => {
                let whole = to.floor();
                let low = ((whole - size * (whole / size).floor()) as i32).max(0).min(last);
                axis.low[j] = low;
                axis.high[j] = if low == last { 0 } else { low + 1 };
                axis.share[j] = to - whole;
            }
        }
    }
    axis
}

/// Some samples side by side: the offsets of the four pixels around each, and both axes.
struct Taps {
    corners: [[u32; LANES]; 4],
    x: Axis,
    y: Axis,
}

struct Sizes {
    batch: usize,
    rows: usize,
    columns: usize,
    channels: usize,
    leads: usize,
}

impl Sizes {
    fn new(image: &[usize], flow: &[usize]) -> Result<Self> {
        match (image, flow) {
            (&[batch, rows, columns, channels], &[b, h, w, two])
                if batch == b
                    && rows == h
                    && columns == w
                    && two % 2 == 0
                    && rows * columns > 0
                    && rows * columns * channels <= i32::MAX as usize =>
            {
                Ok(Self { batch, rows, columns, channels, leads: two / 2 })
            }
            _ => bail!("an image {image:?} cannot be carried along {flow:?}"),
        }
    }

    /// Calls `visit(image, first sample, samples, taps)` for all samples in their order; a sample
    /// is one lead of one pixel, numbered through the batch.
    #[inline(always)]
    fn each(
        &self,
        flow: &[f32],
        boundary: Boundary,
        mut visit: impl FnMut(usize, usize, usize, &Taps),
    ) {
        let line = self.columns * self.leads;
        let columns: Vec<f32> = (0..line).map(|sample| (sample / self.leads) as f32).collect();
        for row in 0..self.batch * self.rows {
            let (image, y) = (row / self.rows, [(row % self.rows) as f32; LANES]);
            for first in (0..line).step_by(LANES) {
                let count = LANES.min(line - first);
                let (mut x, mut dx, mut dy) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
                x[..count].copy_from_slice(&columns[first..first + count]);
                let steps = flow[2 * (row * line + first)..][..2 * count].chunks_exact(2);
                for ((dx, dy), step) in dx.iter_mut().zip(&mut dy).zip(steps) {
                    (*dx, *dy) = (step[0], step[1]);
                }
                let x = axis(&x, &dx, self.columns, boundary);
                let y = axis(&y, &dy, self.rows, boundary);
                let mut corners = [[0; LANES]; 4];
                let at = |row: i32, column: i32| {
                    ((row * self.columns as i32 + column) * self.channels as i32) as u32
                };
                let pairs =
                    [(&y.low, &x.low), (&y.low, &x.high), (&y.high, &x.low), (&y.high, &x.high)];
                for (corner, (row, column)) in corners.iter_mut().zip(pairs) {
                    let pairs = row.iter().zip(column);
                    corner.iter_mut().zip(pairs).for_each(|(to, (y, x))| *to = at(*y, *x));
                }
                visit(image, row * line + first, count, &Taps { corners, x, y });
            }
        }
    }
}

/// Which result a pass makes.
#[derive(Clone, Copy)]
enum Pass<'a> {
    Image,
    /// The gradient of the flow, from that of the result.
    OfFlow(&'a [f32]),
    /// The gradient of the image, from that of the result.
    OfImage(&'a [f32]),
}

struct Carry<'a> {
    sizes: &'a Sizes,
    boundary: Boundary,
    image: &'a [f32],
    flow: &'a [f32],
    pass: Pass<'a>,
    out: &'a mut [f32],
}

impl Kernel for Carry<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { sizes, boundary, image, flow, pass, out } = self;
        let (c, size) = (sizes.channels, sizes.rows * sizes.columns * sizes.channels);
        match pass {
            Pass::Image => sizes.each(flow, boundary, |n, first, count, taps| {
                let image = &image[n * size..][..size];
                let out = &mut out[first * c..][..count * c];
                for k in 0..c {
                    let v = corners(image, taps, k);
                    let mut mixed = [0.0; LANES];
                    for j in 0..LANES {
                        let upper = v[0][j] + (v[1][j] - v[0][j]) * taps.x.share[j];
                        let lower = v[2][j] + (v[3][j] - v[2][j]) * taps.x.share[j];
                        mixed[j] = upper + (lower - upper) * taps.y.share[j];
                    }
                    if c == 1 {
                        out.copy_from_slice(&mixed[..count]);
                    } else {
                        out.iter_mut().skip(k).step_by(c).zip(mixed).for_each(|(y, v)| *y = v);
                    }
                }
            }),
            Pass::OfFlow(gradient) => sizes.each(flow, boundary, |n, first, count, taps| {
                let image = &image[n * size..][..size];
                let gradient = &gradient[first * c..][..count * c];
                let (mut dx, mut dy, mut g) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
                for k in 0..c {
                    let v = corners(image, taps, k);
                    let given = gradient.iter().skip(k).step_by(c);
                    g.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
                    for j in 0..LANES {
                        let (right, down) = (taps.x.share[j], taps.y.share[j]);
                        let (upper, lower) = (v[1][j] - v[0][j], v[3][j] - v[2][j]);
                        let (left, other) = (v[2][j] - v[0][j], v[3][j] - v[1][j]);
                        dx[j] += g[j] * (upper + (lower - upper) * down);
                        dy[j] += g[j] * (left + (other - left) * right);
                    }
                }
                let to = out[2 * first..][..2 * count].chunks_exact_mut(2);
                for (j, to) in to.enumerate() {
                    to[0] = dx[j] * taps.x.free[j];
                    to[1] = dy[j] * taps.y.free[j];
                }
            }),
            Pass::OfImage(gradient) => sizes.each(flow, boundary, |n, first, count, taps| {
                let out = &mut out[n * size..][..size];
                for (j, g) in gradient[first * c..][..count * c].chunks_exact(c).enumerate() {
                    let (right, down) = (taps.x.share[j], taps.y.share[j]);
                    let (left, up) = (1.0 - right, 1.0 - down);
                    let shares = [up * left, up * right, down * left, down * right];
                    for (corner, share) in taps.corners.iter().zip(shares) {
                        let to = &mut out[corner[j] as usize..][..c];
                        to.iter_mut().zip(g).for_each(|(to, g)| *to += g * share);
                    }
                }
            }),
        }
    }
}

/// The four values of channel `k` around each sample, and around those that only fill the lanes.
#[inline(always)]
fn corners(image: &[f32], taps: &Taps, k: usize) -> [[f32; LANES]; 4] {
    let mut values = [[0.0; LANES]; 4];
    for (values, at) in values.iter_mut().zip(&taps.corners) {
        for j in 0..LANES {
            values[j] = image[at[j] as usize + k];
        }
    }
    values
}

impl CustomOp2 for Warp {
    fn name(&self) -> &'static str {
        "warp-nhwc"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(l1.dims(), l2.dims())?;
        let Sizes { batch, rows, columns, leads, channels } = sizes;
        let mut out = vec![0.0; batch * rows * columns * leads * channels];
        let (image, flow, pass) = (values(s1, l1)?, values(s2, l2)?, Pass::Image);
        let (boundary, sizes) = (self.boundary, &sizes);
        run(Carry { sizes, boundary, image, flow, pass, out: &mut out });
        Ok((CpuStorage::F32(out), Shape::from((batch, rows, columns, leads * channels))))
    }

    fn bwd(
        &self,
        image: &Tensor,
        flow: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let op = |of_flow| WarpGradient { boundary: self.boundary, of_flow };
        let image_part = image
            .track_op()
            .then(|| image.apply_op3_no_bwd(flow, &gradient, &op(false)))
            .transpose()?;
        let flow_part = flow
            .track_op()
            .then(|| image.apply_op3_no_bwd(flow, &gradient, &op(true)))
            .transpose()?;
        Ok((image_part, flow_part))
    }
}

/// `(image, flow, gradient) -> gradient of the flow or of the image`.
struct WarpGradient {
    boundary: Boundary,
    of_flow: bool,
}

impl CustomOp3 for WarpGradient {
    fn name(&self) -> &'static str {
        "warp-nhwc-gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = &Sizes::new(l1.dims(), l2.dims())?;
        let (image, flow, gradient) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let (pass, layout) = match self.of_flow {
            true => (Pass::OfFlow(gradient), l2),
            false => (Pass::OfImage(gradient), l1),
        };
        let mut out = vec![0.0; layout.shape().elem_count()];
        run(Carry { sizes, boundary: self.boundary, image, flow, pass, out: &mut out });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
