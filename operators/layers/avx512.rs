//! The register tiles in AVX-512: one or two vectors of sixteen channels for each pixel.
//!
//! Each sum runs in the same order as in AVX2, so both give the same bits.

use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

/// Adds to `tile` the products of `M` patches with `B` packed blocks of sixteen channels, one after
/// another: for each of `k` kernel rows, `run` values that begin at `x[at[i] + ky * stride]`, times
/// `w[ky * run ..]` of each; then `max(0, y)` if `relu`. A value that is loaded is multiplied by all
/// blocks: one core multiplies as fast as it loads.
///
/// # Panics
/// When a patch or the weights leave their slice.
#[target_feature(enable = "avx512f")]
pub(super) fn product<const M: usize, const B: usize>(
    x: &[f32],
    at: [usize; M],
    [k, stride, run]: [usize; 3],
    w: &[f32],
    relu: bool,
    tile: &mut [[[f32; 16]; B]; M],
) {
    let (w, _) = w.as_chunks::<16>();
    let mut sums = [[_mm512_setzero_ps(); B]; M];
    for i in 0..M {
        for b in 0..B {
            // SAFETY: sixteen values are there.
            sums[i][b] = unsafe { _mm512_loadu_ps(tile[i][b].as_ptr()) };
        }
    }
    for ky in 0..k {
        // A loop, not a closure: that would be called, compiled without the features.
        let mut xs: [&[f32]; M] = [&[]; M];
        for (patch, at) in xs.iter_mut().zip(at) {
            *patch = &x[at + ky * stride..][..run];
        }
        let mut ws: [&[[f32; 16]]; B] = [&[]; B];
        for (b, block) in ws.iter_mut().enumerate() {
            *block = &w[(b * k + ky) * run..][..run];
        }
        for t in 0..run {
            let mut rows = [_mm512_setzero_ps(); B];
            for b in 0..B {
                // SAFETY: sixteen values are there.
                rows[b] = unsafe { _mm512_loadu_ps(ws[b][t].as_ptr()) };
            }
            for i in 0..M {
                let value = _mm512_set1_ps(xs[i][t]);
                for b in 0..B {
                    sums[i][b] = _mm512_fmadd_ps(value, rows[b], sums[i][b]);
                }
            }
        }
    }
    for i in 0..M {
        for b in 0..B {
            // In this order what is not a number stays so, and shows.
            let rectified = _mm512_max_ps(_mm512_setzero_ps(), sums[i][b]);
            let sum = if relu { rectified } else { sums[i][b] };
            // SAFETY: sixteen values fit.
            unsafe { _mm512_storeu_ps(tile[i][b].as_mut_ptr(), sum) };
        }
    }
}

/// Adds to `tile` the products of `M` neighbouring inputs with sixteen gradients over a band of
/// rows of `columns` pixels: their inputs lie `cin` values apart in a row of `stride` values,
/// their gradients side by side.
///
/// # Panics
/// When the pixels leave their slices.
#[target_feature(enable = "avx512f")]
pub(super) fn correlate<const M: usize>(
    x: &[f32],
    [columns, stride, cin]: [usize; 3],
    g: &[f32],
    tile: &mut [[f32; 16]; M],
) {
    let (g, _) = g.as_chunks::<16>();
    let mut sums = [_mm512_setzero_ps(); M];
    for i in 0..M {
        // SAFETY: sixteen values are there.
        sums[i] = unsafe { _mm512_loadu_ps(tile[i].as_ptr()) };
    }
    for (row, g) in g.chunks_exact(columns).enumerate() {
        let x = &x[row * stride..][..(columns - 1) * cin + M];
        for (p, g) in g.iter().enumerate() {
            let Some(v) = x[p * cin..].first_chunk::<M>() else { unreachable!("cut above") };
            // SAFETY: sixteen values are there.
            let g = unsafe { _mm512_loadu_ps(g.as_ptr()) };
            for i in 0..M {
                sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(v[i]), g, sums[i]);
            }
        }
    }
    for i in 0..M {
        // SAFETY: sixteen values fit.
        unsafe { _mm512_storeu_ps(tile[i].as_mut_ptr(), sums[i]) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{avx2, simd};
    use super::*;

    #[test]
    fn both_widths_give_the_same_bits() {
        if !simd::wide() {
            return;
        }
        let wave = |count: usize| (0..count).map(|at| (1.7 * at as f32).sin()).collect::<Vec<_>>();
        let (x, w, [k, stride, run]) = (wave(200), wave(3 * 21 * 16), [3, 60, 21]);
        for relu in [false, true] {
            let mut wide = [[[0.3; 16]]; 12];
            let at = std::array::from_fn(|i| 3 * i);
            // SAFETY: the processor has the features, as just asked: AVX-512 comes with AVX2.
            #[allow(unsafe_code)]
            unsafe {
                product(&x, at, [k, stride, run], &w, relu, &mut wide);
            }
            for (half, sums) in wide.chunks_exact(6).enumerate() {
                let mut tile = [[[0.3; 8]; 2]; 6];
                let at = std::array::from_fn(|i| at[6 * half + i]);
                // SAFETY: as above.
                #[allow(unsafe_code)]
                unsafe {
                    avx2::product(&x, at, [k, stride, run], &w, relu, &mut tile);
                }
                let sums = sums.as_flattened().as_flattened();
                assert_eq!(sums, tile.as_flattened().as_flattened());
            }
        }
    }

    #[test]
    fn two_blocks_give_the_bits_of_each() {
        if !simd::wide() {
            return;
        }
        let wave = |count: usize| (0..count).map(|at| (1.7 * at as f32).sin()).collect::<Vec<_>>();
        let (x, w, [k, stride, run]) = (wave(200), wave(2 * 3 * 21 * 16), [3, 60, 21]);
        let at = std::array::from_fn(|i| 3 * i);
        let mut both = [[[0.3; 16]; 2]; 12];
        // SAFETY: the processor has the features, as just asked.
        #[allow(unsafe_code)]
        unsafe {
            product(&x, at, [k, stride, run], &w, true, &mut both);
        }
        for (block, w) in w.chunks_exact(3 * 21 * 16).enumerate() {
            let mut one = [[[0.3; 16]]; 12];
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                product(&x, at, [k, stride, run], w, true, &mut one);
            }
            assert_eq!(both.map(|sums| sums[block]), one.map(|sums| sums[0]));
        }
    }

    #[test]
    fn both_widths_correlate_to_the_same_bits() {
        if !simd::wide() {
            return;
        }
        let wave = |count: usize| (0..count).map(|at| (1.7 * at as f32).sin()).collect::<Vec<_>>();
        let (x, g, geometry) = (wave(120), wave(2 * 9 * 16), [9, 50, 4]);
        let mut wide = [[0.3; 16]; 12];
        // SAFETY: the processor has the features, as just asked: AVX-512 comes with AVX2.
        #[allow(unsafe_code)]
        unsafe {
            correlate(&x, geometry, &g, &mut wide);
        }
        for (half, sums) in wide.chunks_exact(6).enumerate() {
            let mut tile = [[[0.3; 8]; 2]; 6];
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                avx2::correlate(&x[6 * half..], geometry, &g, &mut tile);
            }
            assert_eq!(sums.as_flattened(), tile.as_flattened().as_flattened());
        }
    }
}
