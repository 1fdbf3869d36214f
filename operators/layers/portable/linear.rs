//! What moves and averages values; `x` is `(B, H, W, C)`, and the sizes fit.

use candle_core::{Result, Tensor};

use super::{look_up, numbers};
use crate::layers::Boundary;
use crate::layers::linear::taps;

/// Each `r` x `r` patch into channels.
pub(in crate::layers) fn fold(x: &Tensor, r: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let cells = x.reshape(&[b, h / r, r, w / r, r, c])?.permute([0, 1, 3, 5, 2, 4])?;
    cells.reshape((b, h / r, w / r, c * r * r))
}

/// The inverse of [`fold`].
pub(in crate::layers) fn unfold(x: &Tensor, r: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let c = c / (r * r);
    let pixels = x.reshape(&[b, h, w, c, r, r])?.permute([0, 1, 4, 2, 5, 3])?;
    pixels.reshape((b, h * r, w * r, c))
}

/// The mean of each `r` x `r` patch.
pub(in crate::layers) fn pool(x: &Tensor, r: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let sums = x.reshape(&[b, h / r, r, w / r, r, c])?.sum((2, 4))?;
    sums * (1.0 / (r * r) as f64)
}

/// Bilinear, half-pixel centres: along the rows, then along the columns.
pub(in crate::layers) fn upsample(x: &Tensor, r: usize, boundary: Boundary) -> Result<Tensor> {
    stretched(&stretched(x, 1, r, boundary)?, 2, r, boundary)
}

fn stretched(x: &Tensor, dim: usize, r: usize, boundary: Boundary) -> Result<Tensor> {
    let taps = taps(x.dim(dim)?, r, boundary);
    let mut dims = x.dims().to_vec();
    dims[dim] = taps.len();
    let low = look_up(x, taps.iter().map(|tap| tap.0 as u32).collect(), dim, &dims)?;
    let high = look_up(x, taps.iter().map(|tap| tap.1 as u32).collect(), dim, &dims)?;
    let share = numbers(taps.iter().map(|tap| tap.2).collect(), x.device())?;
    let mut along = vec![1; dims.len()];
    along[dim] = taps.len();
    &low + (high - &low)?.broadcast_mul(&share.reshape(along)?)?
}
