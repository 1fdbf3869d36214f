//! The nearest code by the matrix of all scores, some rows at a time.

use candle_core::{Result, Tensor};

/// The most scores that are in memory.
const SCORES: usize = 1 << 26;

/// As [`nearest_code`](crate::layers::nearest_code) says, but for ties, which the device decides.
pub(in crate::layers) fn nearest_code(z: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    let (n, k) = (z.dim(0)?, codebook.dim(0)?);
    let half = (codebook.sqr()?.sum(1)? * 0.5)?;
    let codes = codebook.t()?;
    let together = (SCORES / k).max(1);
    let some = |first: usize| {
        let rows = z.narrow(0, first, together.min(n - first))?.contiguous()?;
        rows.matmul(&codes)?.broadcast_sub(&half)?.argmax(1)
    };
    let all: Vec<Tensor> = (0..n).step_by(together).map(some).collect::<Result<_>>()?;
    Tensor::cat(&all, 0)
}
