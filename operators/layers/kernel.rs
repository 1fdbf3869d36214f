//! Implicit matrix products over channel-last planes, in register tiles of 6 pixels by 16 channels.
//!
//! In NHWC the patch of a pixel for one kernel row is one contiguous run of `k * cin` values, so a
//! convolution is `k` straight loops and needs neither im2col nor address tables. Every output is
//! one sum in one order (bias, kernel row, then the run), whatever tile it falls into.

/// Pixels of a tile.
const MR: usize = 6;
/// Channels of a block of weights; short blocks are filled up with zeros.
pub(super) const NR: usize = 16;

/// Which instructions the tiles use.
#[derive(Clone, Copy, PartialEq)]
enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

fn isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return Isa::Avx2;
    }
    Isa::Portable
}

/// `a * b + c`, in one rounding where the processor always has the instruction: elsewhere
/// `mul_add` would be a library call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

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
    fn stride(&self) -> usize {
        (self.columns + self.k - 1) * self.cin
    }

    /// Values of a patch in one row of the input plane.
    fn run(&self) -> usize {
        self.k * self.cin
    }

    /// Where the patch of output pixel `p` begins.
    #[inline(always)]
    fn patch(&self, p: usize) -> usize {
        p / self.columns * self.stride() + p % self.columns * self.cin
    }

    /// Rows that are worked on together: their input should stay in the second-level cache.
    fn band(&self) -> usize {
        (50_000 / self.stride().max(1)).clamp(1, self.rows.max(1))
    }
}

/// Packs weights into blocks of channels, each `[ky][kx][cin][16]`, zero past `cout`;
/// `weight(o, i, ky, kx)` reads one.
pub(super) fn pack(shape: &Shape, weight: impl Fn(usize, usize, usize, usize) -> f32) -> Vec<f32> {
    let (k, cin, cout) = (shape.k, shape.cin, shape.cout);
    let depth = k * k * cin;
    let mut packed = vec![0.0; cout.div_ceil(NR) * depth * NR];
    // In the order of the weights as they are stored: reading far apart costs more.
    for o in 0..cout {
        let block = &mut packed[o / NR * depth * NR..][..depth * NR];
        for i in 0..cin {
            for ky in 0..k {
                for kx in 0..k {
                    block[((ky * k + kx) * cin + i) * NR + o % NR] = weight(o, i, ky, kx);
                }
            }
        }
    }
    packed
}

/// One pixel by sixteen channels: the slow way, for planes smaller than a tile and elsewhere.
fn product_one(x: &[f32], at: usize, shape: &Shape, w: &[f32], acc: &mut [f32; NR], fused: bool) {
    let run = shape.run();
    for ky in 0..shape.k {
        let patch = &x[at + ky * shape.stride()..][..run];
        for (v, row) in patch.iter().zip(w[ky * run * NR..].chunks_exact(NR)) {
            for (a, b) in acc.iter_mut().zip(row) {
                *a = if fused { v.mul_add(*b, *a) } else { multiply_add(*v, *b, *a) };
            }
        }
    }
}

/// `y = x * w + bias`, then `max(0, y)` if `relu`; an empty bias is zero.
pub(super) fn convolve(
    x: &[f32],
    shape: &Shape,
    packed: &[f32],
    bias: &[f32],
    relu: bool,
    y: &mut [f32],
) {
    let isa = isa();
    let depth = shape.k * shape.run();
    let mut row = 0;
    while row < shape.rows {
        let last = (row + shape.band()).min(shape.rows);
        let pixels = row * shape.columns..last * shape.columns;
        for (block, w) in packed.chunks_exact(depth * NR).enumerate() {
            let c = block * NR;
            let start = std::array::from_fn(|j| bias.get(c + j).copied().unwrap_or(0.0));
            let n = NR.min(shape.cout - c);
            let mut put = |p: usize, acc: &[f32; NR]| {
                let to = &mut y[p * shape.cout + c..][..n];
                if relu {
                    to.iter_mut().zip(acc).for_each(|(y, &a)| *y = if a > 0.0 { a } else { 0.0 });
                } else {
                    to.copy_from_slice(&acc[..n]);
                }
            };
            #[cfg(target_arch = "x86_64")]
            if isa == Isa::Avx2 && pixels.len() >= MR {
                for p in pixels.clone().step_by(MR) {
                    // The last tile overlaps the one before it and makes the same values again.
                    let first = p.min(pixels.end - MR);
                    let at = std::array::from_fn(|i| shape.patch(first + i));
                    let mut tile = [start; MR];
                    // SAFETY: the processor has the features.
                    unsafe {
                        super::avx2::product(
                            x,
                            at,
                            shape.stride(),
                            shape.run(),
                            shape.k,
                            w,
                            &mut tile,
                        );
                    }
                    tile.iter().enumerate().for_each(|(i, acc)| put(first + i, acc));
                }
                continue;
            }
            for p in pixels.clone() {
                let mut acc = start;
                product_one(x, shape.patch(p), shape, w, &mut acc, isa != Isa::Portable);
                put(p, &acc);
            }
        }
        row = last;
    }
}

/// Adds the weight gradient of one image to `dw`, `[ky][kx][cin][width]`: `x` is the padded plane,
/// `g` the gradient `(rows, columns, width)` with channels filled up to `width`, a multiple of 16.
pub(super) fn correlate(x: &[f32], g: &[f32], shape: &Shape, width: usize, dw: &mut [f32]) {
    let isa = isa();
    let (run, stride) = (shape.run(), shape.stride());
    let band = shape.band().min(8);
    for first in (0..shape.rows).step_by(band) {
        let rows = first..(first + band).min(shape.rows);
        for c in (0..width).step_by(NR) {
            for ky in 0..shape.k {
                let mut i = 0;
                while i < run {
                    let m = if run - i >= MR { MR } else { 1 };
                    let mut tile = [[0.0; NR]; MR];
                    for (t, tile) in tile[..m].iter_mut().enumerate() {
                        tile.copy_from_slice(&dw[(ky * run + i + t) * width + c..][..NR]);
                    }
                    for row in rows.clone() {
                        let x = &x[(row + ky) * stride + i..];
                        let g = &g[row * shape.columns * width + c..];
                        match isa {
                            #[cfg(target_arch = "x86_64")]
                            // SAFETY: the processor has the features.
                            Isa::Avx2 if m == MR => unsafe {
                                super::avx2::correlate(
                                    x,
                                    shape.cin,
                                    g,
                                    width,
                                    shape.columns,
                                    &mut tile,
                                );
                            },
                            _ => correlate_some(x, g, shape, width, &mut tile[..m]),
                        }
                    }
                    for (t, tile) in tile[..m].iter().enumerate() {
                        dw[(ky * run + i + t) * width + c..][..NR].copy_from_slice(tile);
                    }
                    i += m;
                }
            }
        }
    }
}

/// One row of pixels of a weight gradient's tile, the slow way.
fn correlate_some(x: &[f32], g: &[f32], shape: &Shape, width: usize, tile: &mut [[f32; NR]]) {
    for p in 0..shape.columns {
        let (v, d) = (&x[p * shape.cin..], &g[p * width..][..NR]);
        for (v, sums) in v.iter().zip(tile.iter_mut()) {
            sums.iter_mut().zip(d).for_each(|(sum, d)| *sum = multiply_add(*v, *d, *sum));
        }
    }
}
