//! The register tiles in AVX2 and FMA, `W` vectors of eight channels wide.
//!
//! Written with intrinsics because the compiler lays the sums of the portable tiles out in memory
//! (it unrolls their loops after it has given up on registers), at a tenth of the speed. Sums run
//! in the same order as there.

use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

/// Eight channels.
type Lane = [f32; 8];

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(from: &Lane) -> __m256 {
    // SAFETY: eight values are there.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(vector: __m256, to: &mut Lane) {
    // SAFETY: eight values fit.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), vector) }
}

/// Adds to `tile` the products of `M` patches with one packed block of weights: for each of `k`
/// kernel rows, `run` values that begin at `x[at[i] + ky * stride]`, times `w[ky * run ..]`; then
/// `max(0, y)` if `relu`.
///
/// # Panics
/// When a patch or the weights leave their slice.
#[target_feature(enable = "avx2,fma")]
pub(super) fn product<const M: usize, const W: usize>(
    x: &[f32],
    at: [usize; M],
    [k, stride, run]: [usize; 3],
    w: &[f32],
    relu: bool,
    tile: &mut [[Lane; W]; M],
) {
    let (w, _) = w.as_chunks::<8>().0.as_chunks::<W>();
    let mut sums = [[_mm256_setzero_ps(); W]; M];
    for i in 0..M {
        for j in 0..W {
            sums[i][j] = load(&tile[i][j]);
        }
    }
    for ky in 0..k {
        // A loop, not a closure: that would be called, compiled without the features.
        let mut xs: [&[f32]; M] = [&[]; M];
        for (patch, at) in xs.iter_mut().zip(at) {
            *patch = &x[at + ky * stride..][..run];
        }
        let w = &w[ky * run..][..run];
        for t in 0..run {
            let mut row = [_mm256_setzero_ps(); W];
            for j in 0..W {
                row[j] = load(&w[t][j]);
            }
            for i in 0..M {
                let v = _mm256_set1_ps(xs[i][t]);
                for j in 0..W {
                    sums[i][j] = _mm256_fmadd_ps(v, row[j], sums[i][j]);
                }
            }
        }
    }
    for i in 0..M {
        for j in 0..W {
            // In this order what is not a number stays so, and shows.
            let rectified = _mm256_max_ps(_mm256_setzero_ps(), sums[i][j]);
            store(if relu { rectified } else { sums[i][j] }, &mut tile[i][j]);
        }
    }
}

/// Adds to `tile` the products of `M` neighbouring inputs with `8 W` gradients over a band of
/// rows of `columns` pixels: their inputs lie `cin` values apart in a row of `stride` values,
/// their gradients side by side.
///
/// # Panics
/// When the pixels leave their slices.
#[target_feature(enable = "avx2,fma")]
pub(super) fn correlate<const M: usize, const W: usize>(
    x: &[f32],
    [columns, stride, cin]: [usize; 3],
    g: &[f32],
    tile: &mut [[Lane; W]; M],
) {
    let (g, _) = g.as_chunks::<8>().0.as_chunks::<W>();
    let mut sums = [[_mm256_setzero_ps(); W]; M];
    for i in 0..M {
        for j in 0..W {
            sums[i][j] = load(&tile[i][j]);
        }
    }
    for (row, g) in g.chunks_exact(columns).enumerate() {
        let x = &x[row * stride..][..(columns - 1) * cin + M];
        for (p, g) in g.iter().enumerate() {
            let Some(v) = x[p * cin..].first_chunk::<M>() else { unreachable!("cut above") };
            let mut gs = [_mm256_setzero_ps(); W];
            for j in 0..W {
                gs[j] = load(&g[j]);
            }
            for i in 0..M {
                let v = _mm256_set1_ps(v[i]);
                for j in 0..W {
                    sums[i][j] = _mm256_fmadd_ps(v, gs[j], sums[i][j]);
                }
            }
        }
    }
    for i in 0..M {
        for j in 0..W {
            store(sums[i][j], &mut tile[i][j]);
        }
    }
}
