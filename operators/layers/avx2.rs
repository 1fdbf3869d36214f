//! The two register tiles in AVX2 and FMA: twelve named accumulators.
//!
//! Written with intrinsics because the compiler keeps the arrays of the portable tiles in memory
//! (it unrolls their loops after it has given up on registers), at a third of the speed. Sums
//! run in the same order as the portable tiles under FMA.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_storeu_ps,
};

/// Six pixels by sixteen channels.
pub(super) type Tile = [[f32; 16]; 6];

/// One step: each of six values times sixteen.
macro_rules! step {
    ($c:ident, $low:expr, $high:expr, $($i:literal => $v:expr),+) => {
        let (low, high) = ($low, $high);
        $(
            let v = _mm256_broadcast_ss(&$v);
            $c[2 * $i] = _mm256_fmadd_ps(v, low, $c[2 * $i]);
            $c[2 * $i + 1] = _mm256_fmadd_ps(v, high, $c[2 * $i + 1]);
        )+
    };
}

#[target_feature(enable = "avx2,fma")]
fn load(tile: &Tile) -> [__m256; 12] {
    // SAFETY: a row has sixteen values.
    let half = |i: usize| unsafe { _mm256_loadu_ps(tile[i / 2].as_ptr().add(i % 2 * 8)) };
    [
        half(0),
        half(1),
        half(2),
        half(3),
        half(4),
        half(5),
        half(6),
        half(7),
        half(8),
        half(9),
        half(10),
        half(11),
    ]
}

#[target_feature(enable = "avx2,fma")]
fn store(c: [__m256; 12], tile: &mut Tile) {
    for (i, half) in c.into_iter().enumerate() {
        // SAFETY: a row has sixteen values.
        unsafe { _mm256_storeu_ps(tile[i / 2].as_mut_ptr().add(i % 2 * 8), half) };
    }
}

/// Adds to `tile` the products of six patches with one packed block: for each of `k` kernel
/// rows, `run` values that begin at `x[at[i] + ky * stride]`, times `w[ky * run ..][16]`.
///
/// # Panics
/// When a patch or the weights leave their slice.
#[target_feature(enable = "avx2,fma")]
pub(super) fn product(
    x: &[f32],
    at: [usize; 6],
    stride: usize,
    run: usize,
    k: usize,
    w: &[f32],
    tile: &mut Tile,
) {
    let mut c = load(tile);
    for ky in 0..k {
        let [x0, x1, x2, x3, x4, x5] = at.map(|at| &x[at + ky * stride..][..run]);
        let w = &w[ky * run * 16..][..run * 16];
        for t in 0..run {
            // SAFETY: each patch was cut to `run` values, the weights to sixteen times as many.
            unsafe {
                let row = w.as_ptr().add(t * 16);
                step!(c, _mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8)),
                    0 => *x0.get_unchecked(t), 1 => *x1.get_unchecked(t),
                    2 => *x2.get_unchecked(t), 3 => *x3.get_unchecked(t),
                    4 => *x4.get_unchecked(t), 5 => *x5.get_unchecked(t));
            }
        }
    }
    store(c, tile);
}

/// Adds to `tile` the products of six neighbouring inputs with sixteen gradients, over `count`
/// pixels that lie `cin` and `width` values apart.
///
/// # Panics
/// When the pixels leave their slices.
#[target_feature(enable = "avx2,fma")]
pub(super) fn correlate(
    x: &[f32],
    cin: usize,
    g: &[f32],
    width: usize,
    count: usize,
    tile: &mut Tile,
) {
    let mut c = load(tile);
    let (x, g) = (&x[..(count - 1) * cin + 6], &g[..(count - 1) * width + 16]);
    for p in 0..count {
        // SAFETY: both slices were just cut to end with the last pixel's values.
        unsafe {
            let v = x.get_unchecked(p * cin..p * cin + 6);
            let row = g.as_ptr().add(p * width);
            step!(c, _mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8)),
                0 => *v.get_unchecked(0), 1 => *v.get_unchecked(1),
                2 => *v.get_unchecked(2), 3 => *v.get_unchecked(3),
                4 => *v.get_unchecked(4), 5 => *v.get_unchecked(5));
        }
    }
    store(c, tile);
}
