//! Convolution as one product of matrices: of what each pixel sees with the weights.

use candle_core::{DType, Result, Tensor};

use super::Call;
use crate::layers::Boundary;

/// As [`Conv`](crate::layers::Conv) says: `x (B, H, W, in)`, `weight (out, in, k, k)`, `k` 1 or 3,
/// and its [`matrix`].
pub(in crate::layers) fn conv(
    x: &Tensor,
    [weight, matrix, bias]: [&Tensor; 3],
    boundary: Boundary,
    relu: bool,
) -> Result<Tensor> {
    let (b, rows, columns, cin) = x.dims4()?;
    let (cout, _, k, _) = weight.dims4()?;
    let of = [b, rows, columns, cin];
    let seen = match k {
        1 => x.clone(),
        // cuDNN needs no copy of what each pixel sees. Its gradients do not pass here: candle
        // computes that of the weights by its slowest kernel.
        _ if cfg!(feature = "cudnn") && !weight.track_op() => {
            let weight = weight.to_dtype(matrix.dtype())?;
            return biased(&by_library(x, &weight, boundary)?, bias, relu);
        }
        _ => {
            let call = Call::new("patches", of, &[b, rows, columns, 9, cin]);
            Call { boundary, back: Some(patches_back), ..call }.on(&[x])?
        }
    };
    let y = product(&seen.reshape((b * rows * columns, k * k * cin))?, matrix)?;
    biased(&y.reshape((b, rows, columns, cout))?, bias, relu)
}

/// The weights as [`conv`] multiplies by them: `(k * k * in, out)`.
pub(in crate::layers) fn matrix(weight: &Tensor, precision: DType) -> Result<Tensor> {
    let (cout, cin, k, _) = weight.dims4()?;
    weight.permute((2, 3, 1, 0))?.reshape((k * k * cin, cout))?.to_dtype(precision)
}

/// In the precision of the matrix; the result is f32 again.
fn product(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let precision = matrix.dtype();
    if precision == DType::F32 {
        return x.matmul(matrix);
    }
    let x = x.to_dtype(precision)?;
    if x.device().is_cpu() {
        // Not every kind has a product there: exact products, summed in f32, as on a GPU.
        let y = x.to_dtype(DType::F32)?.matmul(&matrix.to_dtype(DType::F32)?)?;
        return y.to_dtype(precision)?.to_dtype(DType::F32);
    }
    x.matmul(matrix)?.to_dtype(DType::F32)
}

fn patches_back(
    call: &Call,
    _: &[&Tensor],
    _: &Tensor,
    gradient: &Tensor,
) -> Result<[Option<Tensor>; 2]> {
    let back = Call::new("patches_back", call.of, &call.of);
    Ok([Some(Call { boundary: call.boundary, ..back }.on(&[gradient])?), None])
}

/// The bias added to `y (B, H, W, out)`, and `max(0, y)` where `relu` says so.
fn biased(y: &Tensor, bias: &Tensor, relu: bool) -> Result<Tensor> {
    let (b, rows, columns, channels) = y.dims4()?;
    let of = [b, rows, columns, channels];
    let call = Call { other: usize::from(relu), ..Call::new("biased", of, &of) };
    Call { back: Some(biased_back), ..call }.on(&[y, bias])
}

fn biased_back(
    call: &Call,
    _: &[&Tensor],
    result: &Tensor,
    gradient: &Tensor,
) -> Result<[Option<Tensor>; 2]> {
    let gradient = match call.other {
        0 => gradient.clone(),
        _ => Call::new("biased_back", call.of, &call.of).on(&[result, gradient])?,
    };
    let of_bias = gradient.flatten_to(2)?.sum(0)?;
    Ok([Some(gradient), Some(of_bias)])
}

/// Without the bias, by candle's own convolution on a padded, channel-first copy.
pub(super) fn by_library(x: &Tensor, weight: &Tensor, boundary: Boundary) -> Result<Tensor> {
    let (b, rows, columns, cin) = x.dims4()?;
    let call = Call::new("rim", [b, rows, columns, cin], &[b, cin, rows + 2, columns + 2]);
    let x = Call { boundary, ..call }.on(&[x])?.to_dtype(weight.dtype())?;
    let y = x.conv2d(&weight.contiguous()?, 0, 1, 1, 1)?;
    y.to_dtype(DType::F32)?.permute((0, 2, 3, 1))?.contiguous()
}
