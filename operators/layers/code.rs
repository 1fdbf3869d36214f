//! The nearest entry of a codebook, without a matrix of distances.

use candle_core::{Result, Tensor};

use super::gpu;
use super::kernel::{self, Shape};
use super::written::written;

/// For each row of `z (N, d)` the index of the nearest row of `codebook (K, d)`, u32 `(N)`: the
/// largest `z . c - |c|^2 / 2`; ties go to the lower index. No gradient.
///
/// # Errors
/// When the depths differ.
pub fn nearest_code(z: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    let (n, d) = z.dims2()?;
    let (k, depth) = codebook.dims2()?;
    if d != depth || k == 0 || d == 0 {
        candle_core::bail!("vectors of {d} against {k} codes of {depth}");
    }
    if gpu::wanted(z) {
        return gpu::nearest_code(z, codebook);
    }
    let rows: Vec<f32> = z.contiguous()?.flatten_all()?.to_vec1()?;
    let entries: Vec<f32> = codebook.contiguous()?.flatten_all()?.to_vec1()?;
    // The scores are a 1 x 1 convolution of the vectors, with one channel for each code.
    let shape = Shape { rows: 1, columns: TOGETHER, cin: d, cout: k, k: 1 };
    let packed = kernel::pack(&shape, |code, i, _| entries[code * d + i]);
    let norm = |code: usize| entries[code * d..][..d].iter().map(|v| v * v).sum::<f32>();
    let start: Vec<f32> = (0..k).map(|code| -0.5 * norm(code)).collect();
    let mut nearest = Vec::with_capacity(n);
    for first in (0..n).step_by(TOGETHER) {
        let columns = TOGETHER.min(n - first);
        let shape = Shape { columns, ..shape };
        let rows = &rows[first * d..][..columns * d];
        // SAFETY: every vector is compared with every code.
        #[allow(unsafe_code)]
        let scores = unsafe {
            written(columns * k, |scores| {
                kernel::convolve(rows, &shape, &packed, &start, false, scores);
            })
        };
        nearest.extend(scores.chunks_exact(k).map(largest));
    }
    Tensor::from_vec(nearest, n, z.device())
}

/// Vectors that are compared together.
const TOGETHER: usize = 48;

/// The index of the largest score, the lowest of equal ones.
fn largest(scores: &[f32]) -> u32 {
    const LANES: usize = 8;
    let (chunks, rest) = scores.as_chunks::<LANES>();
    // Each lane keeps its own best, so that the lanes are compared once, at the end.
    let (mut best, mut turn) = ([f32::NEG_INFINITY; LANES], [0; LANES]);
    for (at, chunk) in (0_u32..).zip(chunks) {
        for j in 0..LANES {
            let better = chunk[j] > best[j];
            best[j] = if better { chunk[j] } else { best[j] };
            turn[j] = if better { at } else { turn[j] };
        }
    }
    let lanes = (0..).zip(best).map(|(j, score)| (score, turn[j as usize] * LANES as u32 + j));
    let tail = (chunks.as_flattened().len() as u32..).zip(rest).map(|(at, &score)| (score, at));
    let start = (f32::NEG_INFINITY, 0);
    let (_, at) = lanes.chain(tail).fold(start, |(most, at), (score, other)| {
        let better = score > most || (score == most && other < at);
        if better { (score, other) } else { (most, at) }
    });
    at
}
