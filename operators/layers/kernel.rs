//! Implicit matrix products over channel-last planes, in register tiles of 6 pixels by 16 channels.
//!
//! In NHWC the patch of a pixel for one kernel row is one contiguous run of `k * cin` values, so a
//! convolution is `k` straight loops and needs neither im2col nor address tables. Every output is
//! one sum in one order (bias, kernel row, then the run), whatever tile it falls into. Twelve
//! vectors of sums, two of weights and one of input fill the registers.

use super::simd::{Kernel, multiply_add, run, wide};
use super::written::{Blank, put};

/// Pixels of a tile.
const MR: usize = 6;
/// Pixels of a tile where a vector holds all its channels.
const WIDE: usize = 12;
/// Pixels of a tile of half the width.
const TALL: usize = 8;
/// Channels of a full block of weights.
const NR: usize = 16;
/// Channels of a block of weights that has at most as many left.
const HALF: usize = 8;

/// The geometry of a convolution without padding: a plane of `(rows + k - 1) * (columns + k - 1)`
/// pixels in, `rows * columns` pixels out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) cin: usize,
    pub(super) cout: usize,
    pub(super) k: usize,
}

impl Shape {
    /// Values from one row of the input plane to the next.
    pub(super) fn stride(&self) -> usize {
        (self.columns + self.k - 1) * self.cin
    }

    /// Rows that are worked on together: their input stays in the second-level cache.
    pub(super) fn band(&self) -> usize {
        (50_000 / self.stride().max(1)).max(1)
    }

    /// Values of a patch in one row of the input plane.
    pub(super) fn run(&self) -> usize {
        self.k * self.cin
    }
}

/// The blocks of output channels: the first channel of each and its width, padding included.
pub(super) fn blocks(cout: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..cout).step_by(NR).map(move |c| (c, if cout - c > HALF { NR } else { HALF }))
}

/// The channels of all blocks, padding included.
pub(super) fn width(cout: usize) -> usize {
    cout.next_multiple_of(HALF)
}

/// Packs weights into blocks of channels, each `[ky][kx][cin][n]`, zero where `n` goes past `cout`;
/// `weight(o, i, tap)` reads one, `tap = ky * k + kx`.
pub(super) fn pack(shape: &Shape, weight: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    let (taps, cin, cout) = (shape.k * shape.k, shape.cin, shape.cout);
    let mut packed = vec![0.0; width(cout) * taps * cin];
    for (c, n) in blocks(cout) {
        let block = &mut packed[c * taps * cin..][..n * taps * cin];
        let filled = n.min(cout - c);
        for i in 0..cin {
            for tap in 0..taps {
                let row = &mut block[(tap * cin + i) * n..][..filled];
                row.iter_mut().zip(c..).for_each(|(to, o)| *to = weight(o, i, tap));
            }
        }
    }
    packed
}

/// Writes `y = x * w + bias`, then `max(0, y)` if `relu`, all of it; an empty bias is zero.
pub(super) fn convolve(
    x: &[f32],
    shape: &Shape,
    packed: &[f32],
    bias: &[f32],
    relu: bool,
    y: &mut [Blank],
) {
    run(Convolution { x, shape, packed, bias, relu, y });
}

struct Convolution<'a> {
    x: &'a [f32],
    shape: &'a Shape,
    packed: &'a [f32],
    bias: &'a [f32],
    relu: bool,
    y: &'a mut [Blank],
}

impl Kernel for Convolution<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let Shape { rows, columns, cout, .. } = *self.shape;
        let depth = self.shape.k * self.shape.run();
        let band = self.shape.band();
        for row in (0..rows).step_by(band) {
            let pixels = row * columns..rows.min(row + band) * columns;
            let mut all = blocks(cout).peekable();
            while let Some((c, mut n)) = all.next() {
                let many = FMA && wide() && n == NR && rows * columns >= WIDE;
                if many && all.next_if(|next| next.1 == NR).is_some() {
                    n += NR;
                }
                let w = &self.packed[c * depth..][..n * depth];
                match (n / HALF, rows * columns) {
                    (4, _) => self.panel::<WIDE, 4, FMA>(pixels.clone(), c, w),
                    (2, _) if many => self.panel::<WIDE, 2, FMA>(pixels.clone(), c, w),
                    (2, MR..) => self.panel::<MR, 2, FMA>(pixels.clone(), c, w),
                    (2, _) => self.panel::<1, 2, FMA>(pixels.clone(), c, w),
                    (_, TALL..) => self.panel::<TALL, 1, FMA>(pixels.clone(), c, w),
                    _ => self.panel::<1, 1, FMA>(pixels.clone(), c, w),
                }
            }
        }
    }
}

impl Convolution<'_> {
    /// One block of `8 W` channels of the pixels, or two of sixteen.
    #[inline(always)]
    fn panel<const M: usize, const W: usize, const FMA: bool>(
        &mut self,
        pixels: std::ops::Range<usize>,
        c: usize,
        w: &[f32],
    ) {
        let Shape { rows, columns, cin, cout, k } = *self.shape;
        let n = (8 * W).min(cout - c);
        let channel = |j: usize| self.bias.get(c + j).copied().unwrap_or(0.0);
        let bias: [[f32; 8]; W] =
            std::array::from_fn(|j| std::array::from_fn(|lane| channel(8 * j + lane)));
        let cursor =
            |p: usize| (p % columns, p / columns * self.shape.stride() + p % columns * cin);
        let (mut column, mut patch) = cursor(pixels.start);
        for p in pixels.step_by(M) {
            // The last tile overlaps the one before it and makes the same values again.
            let first = p.min(rows * columns - M);
            if first < p {
                (column, patch) = cursor(first);
            }
            let mut at = [0; M];
            for at in &mut at {
                *at = patch;
                patch += cin;
                column += 1;
                if column == columns {
                    column = 0;
                    patch += (k - 1) * cin;
                }
            }
            let mut tile = [bias; M];
            product::<M, W, FMA>(self.x, at, self.shape, w, self.relu, &mut tile);
            for (i, row) in tile.iter().enumerate() {
                // Whole vectors: a copy of any other length is a call.
                let to = &mut self.y[(first + i) * cout + c..][..n];
                let (whole, rest) = to.as_chunks_mut::<8>();
                for (to, sums) in whole.iter_mut().zip(row) {
                    to.write_copy_of_slice(sums);
                }
                if let Some(sums) = row.get(whole.len()) {
                    put(rest, *sums);
                }
            }
        }
    }
}

/// Adds the products of `M` patches with a block of weights: patch `i` begins at `x[at[i]]`.
#[inline(always)]
fn product<const M: usize, const W: usize, const FMA: bool>(
    x: &[f32],
    at: [usize; M],
    shape: &Shape,
    w: &[f32],
    relu: bool,
    tile: &mut [[[f32; 8]; W]; M],
) {
    let (k, stride, run) = (shape.k, shape.stride(), shape.run());
    #[cfg(target_arch = "x86_64")]
    if FMA && M == WIDE && W >= 2 {
        // SAFETY: only `wide` processors are given such tiles, and two vectors of eight are one.
        #[allow(unsafe_code)]
        return unsafe {
            let tile = std::ptr::from_mut(tile);
            match W {
                4 => {
                    let tile = &mut *tile.cast::<[[[f32; 16]; 2]; M]>();
                    super::avx512::product(x, at, [k, stride, run], w, relu, tile)
                }
                _ => {
                    let tile = &mut *tile.cast::<[[[f32; 16]; 1]; M]>();
                    super::avx512::product(x, at, [k, stride, run], w, relu, tile)
                }
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: `FMA` says that the processor has the features.
        #[allow(unsafe_code)]
        return unsafe { super::avx2::product(x, at, [k, stride, run], w, relu, tile) };
    }
    for (at, sums) in at.into_iter().zip(tile) {
        let sums = sums.as_flattened_mut();
        for (ky, w) in w.chunks_exact(run * 8 * W).enumerate() {
            let patch = &x[at + ky * stride..][..run];
            for (&v, w) in patch.iter().zip(w.chunks_exact(8 * W)) {
                for (sum, &w) in sums.iter_mut().zip(w) {
                    *sum = multiply_add::<FMA>(v, w, *sum);
                }
            }
        }
        if relu {
            sums.iter_mut().for_each(|y| *y = if 0.0 > *y { 0.0 } else { *y });
        }
    }
}
