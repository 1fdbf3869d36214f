//! Convolution as one product of matrices: of what each pixel sees with the weights.

use candle_core::{Result, Tensor, bail};

use super::look_up;
use crate::layers::Boundary;

/// As [`Conv`](crate::layers::Conv) says: `x (B, H, W, in)`, `weight (out, in, k, k)`, `k` 1 or 3.
pub(in crate::layers) fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    boundary: Boundary,
    relu: bool,
) -> Result<Tensor> {
    let (b, rows, columns, cin) = x.dims4()?;
    let (cout, expected, k, _) = weight.dims4()?;
    if cin != expected {
        bail!("a convolution of {expected} channels cannot take {:?}", x.dims());
    }
    let seen = match k {
        1 => x.clone(),
        // cuDNN needs no copy of what each pixel sees. Its gradients do not pass here: candle
        // computes that of the weights by its slowest kernel.
        _ if cfg!(feature = "cudnn") && !weight.track_op() => {
            let y = by_library(x, weight, boundary)?.broadcast_add(bias)?;
            return if relu { positive(&y) } else { Ok(y) };
        }
        _ => {
            let across = look_up(x, around(rows, boundary), 1, &[b, 3 * rows, columns, cin])?;
            let shape = [b, rows, 3, columns, 3, cin];
            look_up(&across, around(columns, boundary), 2, &shape)?.permute([0, 1, 3, 2, 4, 5])?
        }
    };
    let depth = k * k * cin;
    let weight = weight.permute((2, 3, 1, 0))?.reshape((depth, cout))?;
    let y = seen.reshape((b * rows * columns, depth))?.matmul(&weight)?;
    let y = y.broadcast_add(bias)?.reshape((b, rows, columns, cout))?;
    if relu { positive(&y) } else { Ok(y) }
}

/// Each index of a side with the ones before and behind it.
fn around(len: usize, boundary: Boundary) -> Vec<u32> {
    let index = |at: isize| boundary.index(at, len) as u32;
    (0..len as isize).flat_map(|at| [index(at - 1), index(at), index(at + 1)]).collect()
}

/// `max(0, y)` that lets through what is not a number, with no gradient where it is 0.
fn positive(y: &Tensor) -> Result<Tensor> {
    let none = y.zeros_like()?;
    y.le(&none)?.where_cond(&none, y)
}

/// Without the bias, by candle's own convolution on a padded, channel-first copy.
pub(super) fn by_library(x: &Tensor, weight: &Tensor, boundary: Boundary) -> Result<Tensor> {
    let (b, rows, columns, cin) = x.dims4()?;
    let rim = |len: usize| {
        (-1..=len as isize).map(|at| boundary.index(at, len) as u32).collect::<Vec<_>>()
    };
    let x = look_up(x, rim(rows), 1, &[b, rows + 2, columns, cin])?;
    let x = look_up(&x, rim(columns), 2, &[b, rows + 2, columns + 2, cin])?;
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    x.conv2d(&weight.contiguous()?, 0, 1, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
}
