//! Bilinear up-sampling with half-pixel centres, and what is done at once with what it makes.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::linear::{VALUE, upsample_bilinear};
use super::written::{Blank, put, written};
use super::{Boundary, crew, gpu, values};

/// `base + upsample_bilinear(coarse)` in one pass: `coarse (B, H / r, W / r, C)`, `base (B, H, W, C)`.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn onto(base: &Tensor, coarse: &Tensor, r: usize, boundary: Boundary) -> Result<Tensor> {
    if [base, coarse].iter().any(|x| apart(x)) {
        return base + upsample_bilinear(coarse, r, boundary)?;
    }
    coarse.contiguous()?.apply_op2_no_bwd(&base.contiguous()?, &Onto { r, boundary })
}

/// `upsample_bilinear(gate) * field + residual` in one pass, the gate one weight per lead:
/// `gate (B, H / r, W / r, lead)`, `field` and `residual (B, H, W, lead * C)`.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn gated(
    gate: &Tensor,
    field: &Tensor,
    residual: &Tensor,
    r: usize,
    boundary: Boundary,
) -> Result<Tensor> {
    if [gate, field, residual].iter().any(|x| apart(x)) {
        let gate = upsample_bilinear(gate, r, boundary)?;
        return per_lead(&gate, field)? + residual;
    }
    let (field, residual) = (field.contiguous()?, residual.contiguous()?);
    gate.contiguous()?.apply_op3_no_bwd(&field, &residual, &Gated { r, boundary })
}

/// Multiplies fields `(B, H, W, lead * C)` by one weight per lead, `(B, H, W, lead)`.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn per_lead(weight: &Tensor, fields: &Tensor) -> Result<Tensor> {
    let (b, h, w, leads) = weight.dims4()?;
    let depth = fields.dim(3)?;
    if depth == leads {
        return weight * fields;
    }
    let split = fields.reshape((b, h, w, leads, depth / leads))?;
    split.broadcast_mul(&weight.unsqueeze(4)?)?.reshape((b, h, w, depth))
}

/// Whether a tensor is trained, or on a GPU: then what is one pass here is several operations.
fn apart(x: &Tensor) -> bool {
    x.track_op() || gpu::wanted(x)
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

/// A pixel between two others.
pub(super) struct Mixed<'a> {
    left: &'a [f32],
    right: &'a [f32],
    share: f32,
}

impl Mixed<'_> {
    /// Its values.
    #[inline(always)]
    pub(super) fn values(&self) -> impl Iterator<Item = f32> {
        self.left.iter().zip(self.right).map(|(u, v)| u + (v - u) * self.share)
    }
}

/// Calls `make(pixel, its up-sampled values, its place in y)` for each pixel of planes `r` times as
/// high and wide as `x (B, h, w, c)`, numbered through the batch.
pub(super) fn fine(
    x: &[f32],
    [b, h, w, c]: [usize; 4],
    r: usize,
    boundary: Boundary,
    y: &mut [Blank],
    make: impl Fn(usize, Mixed<'_>, &mut [Blank]) + Sync,
) {
    let (rows, columns) = (&taps(h, r, boundary), &taps(w, r, boundary));
    let pixels = (b * rows.len() * columns.len()).max(1);
    let depth = y.len() / pixels;
    let (line, cost) = (columns.len() * depth, y.len() * VALUE);
    crew::rows(y, line, cost, |first, y| {
        let mut mixed = vec![0.0; w * c];
        for (row, y) in (first..).zip(y.chunks_exact_mut(line.max(1))) {
            let image = &x[row / rows.len() * h * w * c..][..h * w * c];
            let (a, b, t) = rows[row % rows.len()];
            let (above, below) = (&image[a * w * c..][..w * c], &image[b * w * c..][..w * c]);
            for ((l, u), v) in mixed.iter_mut().zip(above).zip(below) {
                *l = u + (v - u) * t;
            }
            let pixels = columns.iter().zip(y.chunks_exact_mut(depth));
            for (pixel, (&(a, b, share), y)) in (row * columns.len()..).zip(pixels) {
                let (left, right) = (&mixed[a * c..][..c], &mixed[b * c..][..c]);
                make(pixel, Mixed { left, right, share }, y);
            }
        }
    });
}

/// The dimensions of what is up-sampled, which has to be `of` when it is.
fn dims(coarse: &Layout, of: &Layout, r: usize) -> Result<[usize; 4]> {
    match (coarse.dims(), of.dims()) {
        (&[b, h, w, c], &[n, rows, columns, depth])
            if b == n && h * r == rows && w * r == columns && c > 0 && depth % c == 0 =>
        {
            Ok([b, h, w, c])
        }
        (from, to) => bail!("{from:?} up-sampled by {r} is not of {to:?}"),
    }
}

struct Onto {
    r: usize,
    boundary: Boundary,
}

impl CustomOp2 for Onto {
    fn name(&self) -> &'static str {
        "upsample-onto"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let size = dims(l1, l2, self.r)?;
        let (x, base) = (values(s1, l1)?, values(s2, l2)?);
        if base.len() != x.len() * self.r * self.r {
            bail!("{:?} and {:?} differ in depth", l1.dims(), l2.dims());
        }
        let sum = |pixel: usize, mixed: Mixed<'_>, y: &mut [Blank]| {
            let base = &base[pixel * y.len()..][..y.len()];
            put(y, base.iter().zip(mixed.values()).map(|(base, v)| base + v));
        };
        // SAFETY: every pixel is made.
        #[allow(unsafe_code)]
        let y = unsafe { written(base.len(), |y| fine(x, size, self.r, self.boundary, y, sum)) };
        Ok((CpuStorage::F32(y), l2.shape().clone()))
    }
}

struct Gated {
    r: usize,
    boundary: Boundary,
}

impl CustomOp3 for Gated {
    fn name(&self) -> &'static str {
        "upsample-gate"
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
        let size = dims(l1, l2, self.r)?;
        let (gate, field, residual) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        if l2.dims() != l3.dims() {
            bail!("a field {:?} and a residual {:?}", l2.dims(), l3.dims());
        }
        let leads = size[3];
        let blend = |pixel: usize, mixed: Mixed<'_>, y: &mut [Blank]| {
            let depth = y.len();
            let own = pixel * depth..(pixel + 1) * depth;
            let both = field[own.clone()].iter().zip(&residual[own]);
            if depth == leads {
                put(y, mixed.values().zip(both).map(|(g, (f, r))| g * f + r));
            } else {
                let channels = depth / leads;
                let gates = mixed.values().flat_map(|g| std::iter::repeat_n(g, channels));
                put(y, gates.zip(both).map(|(g, (f, r))| g * f + r));
            }
        };
        // SAFETY: every pixel is made.
        #[allow(unsafe_code)]
        let y =
            unsafe { written(field.len(), |y| fine(gate, size, self.r, self.boundary, y, blend)) };
        Ok((CpuStorage::F32(y), l2.shape().clone()))
    }
}
