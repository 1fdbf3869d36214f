//! What moves and averages values; `x` is `(B, H, W, C)`, and the sizes fit.

use candle_core::{Result, Tensor};

use super::Call;
use crate::layers::Boundary;

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

/// Bilinear, half-pixel centres.
pub(in crate::layers) fn upsample(x: &Tensor, r: usize, boundary: Boundary) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let call = Call::new("upsample", [b, h, w, c], &[b, h * r, w * r, c]);
    Call { other: r, boundary, back: Some(gathered), ..call }.on(&[x])
}

fn gathered(
    call: &Call,
    _: &[&Tensor],
    _: &Tensor,
    gradient: &Tensor,
) -> Result<[Option<Tensor>; 2]> {
    let back = Call::new("upsample_back", call.of, &call.of);
    let back = Call { other: call.other, boundary: call.boundary, ..back };
    Ok([Some(back.on(&[gradient])?), None])
}
