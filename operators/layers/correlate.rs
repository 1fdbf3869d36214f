//! The gradient of a convolution's weights: tiles of 6 inputs by 16 outputs that run over pixels.

use std::ops::Range;

use super::kernel::{Shape, blocks, width};
use super::simd::{Kernel, multiply_add, run, wide};

/// Neighbouring inputs of a tile.
const MR: usize = 6;
/// Neighbouring inputs of a tile where a vector holds all its outputs.
const WIDE: usize = 12;
/// Pixels that are worked on together, so that what a tile reads of them stays near.
const BAND: usize = 128;

/// Adds the weight gradient of one image to `dw`, in the layout of the packed weights: `x` is the
/// padded plane, `g` the gradient `(rows, columns, cout)`; `spare` is working space.
pub(super) fn correlate(x: &[f32], g: &[f32], shape: &Shape, spare: &mut Vec<f32>, dw: &mut [f32]) {
    // Each block of channels in one piece: rows of a wide gradient compete for few cache sets.
    let Shape { rows, columns, cout, .. } = *shape;
    spare.clear();
    spare.resize(width(cout) * rows * columns, 0.0);
    for (c, n) in blocks(cout) {
        let block = &mut spare[c * rows * columns..][..n * rows * columns];
        let filled = n.min(cout - c);
        for (to, from) in block.chunks_exact_mut(n).zip(g.chunks_exact(cout)) {
            to[..filled].copy_from_slice(&from[c..c + filled]);
        }
    }
    run(Correlation { x, g: spare, shape, dw });
}

struct Correlation<'a> {
    x: &'a [f32],
    /// Block by block, `[pixel][n]`.
    g: &'a [f32],
    shape: &'a Shape,
    dw: &'a mut [f32],
}

impl Kernel for Correlation<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let Shape { rows, columns, cout, .. } = *self.shape;
        let band = (BAND / columns).max(1);
        for row in (0..rows).step_by(band) {
            let rows = row..rows.min(row + band);
            for (c, n) in blocks(cout) {
                if n == 16 {
                    self.block::<2, FMA>(c, rows.clone());
                } else {
                    self.block::<1, FMA>(c, rows.clone());
                }
            }
        }
    }
}

impl Correlation<'_> {
    /// One block of `8 W` output channels.
    #[inline(always)]
    fn block<const W: usize, const FMA: bool>(&mut self, c: usize, rows: Range<usize>) {
        for ky in 0..self.shape.k {
            let run = self.shape.run();
            let mut from = 0;
            if FMA && W == 2 && wide() {
                while run - from >= WIDE {
                    self.tile::<WIDE, W, FMA>(c, ky, from, rows.clone());
                    from += WIDE;
                }
            }
            for i in (from..run).step_by(MR) {
                match run - i {
                    1 => self.tile::<1, W, FMA>(c, ky, i, rows.clone()),
                    2 => self.tile::<2, W, FMA>(c, ky, i, rows.clone()),
                    3 => self.tile::<3, W, FMA>(c, ky, i, rows.clone()),
                    4 => self.tile::<4, W, FMA>(c, ky, i, rows.clone()),
                    5 => self.tile::<5, W, FMA>(c, ky, i, rows.clone()),
                    _ => self.tile::<MR, W, FMA>(c, ky, i, rows.clone()),
                }
            }
        }
    }

    /// Values `i..i + M` of kernel row `ky` against one block.
    #[inline(always)]
    fn tile<const M: usize, const W: usize, const FMA: bool>(
        &mut self,
        c: usize,
        ky: usize,
        i: usize,
        rows: Range<usize>,
    ) {
        let Shape { rows: height, columns, cin, k, .. } = *self.shape;
        let (run, stride) = (self.shape.run(), self.shape.stride());
        let g = &self.g[c * height * columns + rows.start * columns * 8 * W..];
        let g = &g[..rows.len() * columns * 8 * W];
        let x = &self.x[(rows.start + ky) * stride + i..];
        let mut tile = [[[0.0; 8]; W]; M];
        sum::<M, W, FMA>(x, [columns, stride, cin], g, &mut tile);
        let to = &mut self.dw[c * k * run + (ky * run + i) * 8 * W..][..M * 8 * W];
        to.iter_mut().zip(tile.as_flattened().as_flattened()).for_each(|(to, sum)| *to += sum);
    }
}

/// Adds the products of `M` neighbouring inputs with the gradients of a band of pixels.
#[inline(always)]
fn sum<const M: usize, const W: usize, const FMA: bool>(
    x: &[f32],
    [columns, stride, cin]: [usize; 3],
    g: &[f32],
    tile: &mut [[[f32; 8]; W]; M],
) {
    #[cfg(target_arch = "x86_64")]
    if FMA && M == WIDE && W == 2 {
        // SAFETY: only `wide` processors are given such tiles, and two vectors of eight are one.
        #[allow(unsafe_code)]
        return unsafe {
            let tile = &mut *std::ptr::from_mut(tile).cast::<[[f32; 16]; M]>();
            super::avx512::correlate(x, [columns, stride, cin], g, tile)
        };
    }
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: `FMA` says that the processor has the features.
        #[allow(unsafe_code)]
        return unsafe { super::avx2::correlate(x, [columns, stride, cin], g, tile) };
    }
    for (pixel, g) in g.chunks_exact(8 * W).enumerate() {
        let inputs = &x[pixel / columns * stride + pixel % columns * cin..][..M];
        for (&v, sums) in inputs.iter().zip(&mut *tile) {
            for (sum, &g) in sums.as_flattened_mut().iter_mut().zip(g) {
                *sum = multiply_add::<FMA>(v, g, *sum);
            }
        }
    }
}
