//! The register tiles in AVX2 and FMA, `W` vectors of eight channels wide, and the bilinear mix.
//!
//! Written with intrinsics because the compiler lays the sums of the portable tiles out in memory
//! (it unrolls their loops after it has given up on registers), at a tenth of the speed. Sums run
//! in the same order as there.

use std::arch::x86_64::{
    __m256, _mm_loadu_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_mul_ps, _mm256_mullo_epi32, _mm256_set_m128,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use super::bilinear::{Axis, LANES};

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

/// The bilinear mixes of quads `[a, b, c, d]`, which lie `columns` in a row, at some places.
///
/// # Panics
/// When there is no such quad.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn mix(quads: &[[f32; 4]], columns: i32, x: &Axis, y: &Axis) -> [f32; LANES] {
    let mut mixed = [0.0; LANES];
    for (eight, to) in mixed.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let lows = [&x.low, &y.low].map(|low| &low.as_chunks::<8>().0[eight]);
        // SAFETY: eight integers are there, and fit.
        let at: [i32; 8] = unsafe {
            let [x, y] = lows.map(|low| _mm256_loadu_si256(low.as_ptr().cast()));
            let at = _mm256_add_epi32(_mm256_mullo_epi32(y, _mm256_set1_epi32(columns)), x);
            std::mem::transmute(at)
        };
        // Quads 0 to 3 in the lower halves, 4 to 7 in the upper ones.
        let mut pairs = [_mm256_setzero_ps(); 4];
        for j in 0..4 {
            let (lower, upper) = (&quads[at[j] as usize], &quads[at[j + 4] as usize]);
            // SAFETY: each holds four values.
            let halves = unsafe { (_mm_loadu_ps(lower.as_ptr()), _mm_loadu_ps(upper.as_ptr())) };
            pairs[j] = _mm256_set_m128(halves.1, halves.0);
        }
        let ab = [_mm256_unpacklo_ps(pairs[0], pairs[1]), _mm256_unpacklo_ps(pairs[2], pairs[3])];
        let cd = [_mm256_unpackhi_ps(pairs[0], pairs[1]), _mm256_unpackhi_ps(pairs[2], pairs[3])];
        let a = _mm256_shuffle_ps::<0x44>(ab[0], ab[1]);
        let b = _mm256_shuffle_ps::<0xee>(ab[0], ab[1]);
        let c = _mm256_shuffle_ps::<0x44>(cd[0], cd[1]);
        let d = _mm256_shuffle_ps::<0xee>(cd[0], cd[1]);
        let right = load(&x.share.as_chunks::<8>().0[eight]);
        let down = load(&y.share.as_chunks::<8>().0[eight]);
        let upper = _mm256_add_ps(a, _mm256_mul_ps(_mm256_sub_ps(b, a), right));
        let lower = _mm256_add_ps(c, _mm256_mul_ps(_mm256_sub_ps(d, c), right));
        store(_mm256_add_ps(upper, _mm256_mul_ps(_mm256_sub_ps(lower, upper), down)), to);
    }
    mixed
}
