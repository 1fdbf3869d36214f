//! Semi-Lagrangian backward warp: each pixel takes the image's value where it came from.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

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

/// One axis of a sample: the two indices around it, the share of the second, and whether the
/// coordinate moves with the displacement (it does not where it is clamped).
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    share: f32,
    free: bool,
}

#[inline(always)]
fn tap(at: usize, step: f32, len: usize, boundary: Boundary) -> Tap {
    let step = if step.is_finite() { step } else { 0.0 };
    let last = (len - 1) as f32;
    let to = at as f32 + step;
    match boundary {
        Boundary::Open => {
            let inside = to.clamp(0.0, last);
            // On the last pixel the share is 0, so that no displacement gives exactly the image.
            let low = inside as usize;
            let high = (low + 1).min(len - 1);
            Tap { low, high, share: inside - low as f32, free: inside == to && len > 1 }
        }
        Boundary::Periodic => {
            let whole = to.floor();
            let low = (whole.rem_euclid(len as f32) as usize).min(len - 1);
            let high = if low + 1 == len { 0 } else { low + 1 };
            Tap { low, high, share: to - whole, free: true }
        }
    }
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
                    && rows * columns > 0 =>
            {
                Ok(Self { batch, rows, columns, channels, leads: two / 2 })
            }
            _ => bail!("an image {image:?} cannot be carried along {flow:?}"),
        }
    }

    /// Calls `visit(position of the lead among all samples, image's first value, y, x)`.
    #[inline(always)]
    fn each(
        &self,
        flow: &[f32],
        boundary: Boundary,
        mut visit: impl FnMut(usize, usize, Tap, Tap),
    ) {
        let pixels = self.rows * self.columns;
        for (pixel, steps) in flow.chunks_exact(2 * self.leads).enumerate() {
            let image = pixel / pixels * pixels * self.channels;
            let (y, x) = (pixel % pixels / self.columns, pixel % self.columns);
            for (lead, step) in steps.chunks_exact(2).enumerate() {
                let ty = tap(y, step[1], self.rows, boundary);
                let tx = tap(x, step[0], self.columns, boundary);
                visit(pixel * self.leads + lead, image, ty, tx);
            }
        }
    }

    /// Offsets of the four pixels around a sample.
    #[inline(always)]
    fn corners(&self, image: usize, y: Tap, x: Tap) -> [usize; 4] {
        let at = |row: usize, column: usize| image + (row * self.columns + column) * self.channels;
        [at(y.low, x.low), at(y.low, x.high), at(y.high, x.low), at(y.high, x.high)]
    }
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
        let (image, flow, c) = (values(s1, l1)?, values(s2, l2)?, sizes.channels);
        let mut out = vec![0.0; sizes.batch * sizes.rows * sizes.columns * sizes.leads * c];
        sizes.each(flow, self.boundary, |sample, from, y, x| {
            let corners = sizes.corners(from, y, x);
            for (k, out) in out[sample * c..][..c].iter_mut().enumerate() {
                let [a, b, d, e] = corners.map(|at| image[at + k]);
                let (upper, lower) = (a + (b - a) * x.share, d + (e - d) * x.share);
                *out = upper + (lower - upper) * y.share;
            }
        });
        let Sizes { batch, rows, columns, leads, .. } = sizes;
        Ok((CpuStorage::F32(out), Shape::from((batch, rows, columns, leads * c))))
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
        let sizes = Sizes::new(l1.dims(), l2.dims())?;
        let (image, flow, gradient) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let c = sizes.channels;
        if self.of_flow {
            let mut out = vec![0.0; flow.len()];
            sizes.each(flow, self.boundary, |sample, from, y, x| {
                let corners = sizes.corners(from, y, x);
                let (mut dx, mut dy) = (0.0, 0.0);
                for (k, g) in gradient[sample * c..][..c].iter().enumerate() {
                    let [a, b, d, e] = corners.map(|at| image[at + k]);
                    dx += g * ((b - a) * (1.0 - y.share) + (e - d) * y.share);
                    dy += g * ((d - a) * (1.0 - x.share) + (e - b) * x.share);
                }
                out[2 * sample] = if x.free { dx } else { 0.0 };
                out[2 * sample + 1] = if y.free { dy } else { 0.0 };
            });
            Ok((CpuStorage::F32(out), l2.shape().clone()))
        } else {
            let mut out = vec![0.0; image.len()];
            sizes.each(flow, self.boundary, |sample, from, y, x| {
                let shares = [
                    (1.0 - y.share) * (1.0 - x.share),
                    (1.0 - y.share) * x.share,
                    y.share * (1.0 - x.share),
                    y.share * x.share,
                ];
                for (at, share) in sizes.corners(from, y, x).into_iter().zip(shares) {
                    for (k, g) in gradient[sample * c..][..c].iter().enumerate() {
                        out[at + k] += g * share;
                    }
                }
            });
            Ok((CpuStorage::F32(out), l1.shape().clone()))
        }
    }
}
