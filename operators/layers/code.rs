//! The nearest entry of a codebook, without a matrix of distances.

use candle_core::{Result, Tensor};

/// For each row of `z (N, d)` the index of the nearest row of `codebook (K, d)`, u32 `(N)`: the
/// largest `z . c - |c|^2 / 2`; ties go to the lower index. No gradient.
///
/// # Errors
/// When the depths differ.
pub fn nearest_code(z: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    let (n, d) = z.dims2()?;
    let (k, depth) = codebook.dims2()?;
    if d != depth || k == 0 {
        candle_core::bail!("vectors of {d} against {k} codes of {depth}");
    }
    let rows: Vec<f32> = z.contiguous()?.flatten_all()?.to_vec1()?;
    let entries: Vec<f32> = codebook.contiguous()?.flatten_all()?.to_vec1()?;
    // Transposed, so that one vector meets all codes in straight loops.
    let transposed: Vec<f32> =
        (0..d).flat_map(|i| (0..k).map(move |j| (i, j))).map(|(i, j)| entries[j * d + i]).collect();
    let half = |entry: &[f32]| -0.5 * entry.iter().map(|v| v * v).sum::<f32>();
    let start: Vec<f32> = entries.chunks_exact(d).map(half).collect();
    let mut scores = vec![0.0; k];
    let mut nearest = Vec::with_capacity(n);
    for row in rows.chunks_exact(d) {
        scores.copy_from_slice(&start);
        for (&v, codes) in row.iter().zip(transposed.chunks_exact(k)) {
            scores.iter_mut().zip(codes).for_each(|(score, c)| *score += v * c);
        }
        let mut best = 0;
        for (j, &score) in scores.iter().enumerate() {
            if score > scores[best] {
                best = j;
            }
        }
        nearest.push(best as u32);
    }
    Tensor::from_vec(nearest, n, z.device())
}
