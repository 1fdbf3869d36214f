//! The nearest code, a thread for each vector.

use candle_core::{Result, Tensor};

use super::Call;

/// As [`nearest_code`](crate::layers::nearest_code) says.
pub(in crate::layers) fn nearest_code(z: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    let (n, d) = z.dims2()?;
    let call = Call::new("nearest", [1, n, 1, d], &[n]);
    Call { other: codebook.dim(0)?, whole: true, ..call }.on(&[z, codebook])
}
