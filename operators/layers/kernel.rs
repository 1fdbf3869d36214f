//! Implicit matrix products over channel-last planes, in register tiles of 6 pixels by 16 channels.
//!
//! In NHWC the patch of a pixel for one kernel row is one contiguous run of `k * cin` values, so a
//! convolution is `k` straight loops and needs neither im2col nor address tables. The tiles are
//! plain arrays; compiled under `avx2,fma` they become the twelve accumulators that fit the
//! register file (a taller or wider tile spills).

/// Pixels of a tile.
const MR: usize = 6;
/// Channels of a full block of weights.
const NR: usize = 16;

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

/// The width of the block of output channels that starts at `c`.
fn block(c: usize, cout: usize) -> usize {
    if cout - c > 8 { NR } else { 8 }
}

/// The length of packed weights.
pub(super) fn packed_len(shape: &Shape) -> usize {
    let depth = shape.k * shape.k * shape.cin;
    let mut c = 0;
    let mut len = 0;
    while c < shape.cout {
        let n = block(c, shape.cout);
        len += depth * n;
        c += n;
    }
    len
}

/// Packs weights into blocks of channels, each `[ky][kx][cin][n]`, zero where `n` goes past `cout`;
/// `weight(o, i, ky, kx)` reads one.
pub(super) fn pack(shape: &Shape, weight: impl Fn(usize, usize, usize, usize) -> f32) -> Vec<f32> {
    let mut packed = Vec::with_capacity(packed_len(shape));
    let mut c = 0;
    while c < shape.cout {
        let n = block(c, shape.cout);
        for ky in 0..shape.k {
            for kx in 0..shape.k {
                for i in 0..shape.cin {
                    packed.extend(
                        (c..c + n).map(|o| if o < shape.cout { weight(o, i, ky, kx) } else { 0.0 }),
                    );
                }
            }
        }
        c += n;
    }
    packed
}

#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn tile<const M: usize, const N: usize, const FMA: bool>(
    x: &[f32],
    at: [usize; M],
    shape: &Shape,
    w: &[f32],
    start: [f32; N],
) -> [[f32; N]; M] {
    let (stride, run) = (shape.stride(), shape.k * shape.cin);
    let mut acc = [start; M];
    for ky in 0..shape.k {
        let xs: [&[f32]; M] = std::array::from_fn(|i| &x[at[i] + ky * stride..][..run]);
        let rows = w[ky * run * N..(ky + 1) * run * N].chunks_exact(N);
        for (k, wk) in rows.enumerate().take(run) {
            for i in 0..M {
                let v = xs[i][k];
                for j in 0..N {
                    acc[i][j] = multiply_add::<FMA>(v, wk[j], acc[i][j]);
                }
            }
        }
    }
    acc
}

/// Where the tiles of a pass put their results.
struct Out<'a> {
    y: &'a mut [f32],
    c: usize,
    relu: bool,
}

impl Out<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, p: usize, cout: usize, acc: &[f32; N]) {
        let n = N.min(cout - self.c);
        let to = &mut self.y[p * cout + self.c..][..n];
        if self.relu {
            for (y, &a) in to.iter_mut().zip(acc) {
                *y = if a > 0.0 { a } else { 0.0 };
            }
        } else {
            to.copy_from_slice(&acc[..n]);
        }
    }
}

#[inline(always)]
fn panel<const N: usize, const FMA: bool>(
    x: &[f32],
    shape: &Shape,
    w: &[f32],
    start: [f32; N],
    out: &mut Out,
    pixels: std::ops::Range<usize>,
) {
    let mut p = pixels.start;
    if pixels.len() >= MR {
        while p < pixels.end {
            // The last tile overlaps the one before it and computes the same values again.
            let first = p.min(pixels.end - MR);
            let at: [usize; MR] = std::array::from_fn(|i| shape.patch(first + i));
            let acc = tile::<MR, N, FMA>(x, at, shape, w, start);
            for (i, acc) in acc.iter().enumerate() {
                out.put(first + i, shape.cout, acc);
            }
            p += MR;
        }
    } else {
        for p in pixels {
            let [acc] = tile::<1, N, FMA>(x, [shape.patch(p)], shape, w, start);
            out.put(p, shape.cout, &acc);
        }
    }
}

#[inline(always)]
fn convolve_any<const FMA: bool>(
    x: &[f32],
    shape: &Shape,
    packed: &[f32],
    bias: &[f32],
    relu: bool,
    y: &mut [f32],
) {
    let depth = shape.k * shape.k * shape.cin;
    let band = shape.band();
    let mut row = 0;
    while row < shape.rows {
        let last = (row + band).min(shape.rows);
        let pixels = row * shape.columns..last * shape.columns;
        let (mut c, mut from) = (0, 0);
        while c < shape.cout {
            let n = block(c, shape.cout);
            let w = &packed[from..from + depth * n];
            let start = |j: usize| bias.get(c + j).copied().unwrap_or(0.0);
            let mut out = Out { y, c, relu };
            if n == NR {
                let start: [f32; NR] = std::array::from_fn(start);
                panel::<NR, FMA>(x, shape, w, start, &mut out, pixels.clone());
            } else {
                let start: [f32; 8] = std::array::from_fn(start);
                panel::<8, FMA>(x, shape, w, start, &mut out, pixels.clone());
            }
            c += n;
            from += depth * n;
        }
        row = last;
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
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the features, as just asked.
        return unsafe { convolve_avx2(x, shape, packed, bias, relu, y) };
    }
    convolve_any::<{ cfg!(target_arch = "aarch64") }>(x, shape, packed, bias, relu, y);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn convolve_avx2(
    x: &[f32],
    shape: &Shape,
    packed: &[f32],
    bias: &[f32],
    relu: bool,
    y: &mut [f32],
) {
    convolve_any::<true>(x, shape, packed, bias, relu, y);
}

/// One tile of the weight gradient: `M` neighbouring inputs by `N` outputs, summed over pixels.
#[inline(always)]
fn correlate_tile<const M: usize, const N: usize, const FMA: bool>(
    x: &[f32],
    g: &[f32],
    shape: &Shape,
    width: usize,
    offset: usize,
    c: usize,
    rows: std::ops::Range<usize>,
    acc: &mut [[f32; N]; M],
) {
    let mut sum = *acc;
    for row in rows {
        let xs = &x[row * shape.stride() + offset..];
        let gs = &g[row * shape.columns * width + c..];
        for p in 0..shape.columns {
            let (v, d) = (&xs[p * shape.cin..][..M], &gs[p * width..][..N]);
            for i in 0..M {
                for j in 0..N {
                    sum[i][j] = multiply_add::<FMA>(v[i], d[j], sum[i][j]);
                }
            }
        }
    }
    *acc = sum;
}

#[inline(always)]
fn correlate_block<const N: usize, const FMA: bool>(
    x: &[f32],
    g: &[f32],
    shape: &Shape,
    width: usize,
    c: usize,
    rows: std::ops::Range<usize>,
    dw: &mut [f32],
) {
    let run = shape.k * shape.cin;
    for ky in 0..shape.k {
        let mut i = 0;
        while i < run {
            let base = ky * run + i;
            let offset = ky * shape.stride() + i;
            if run - i >= MR {
                let mut acc: [[f32; N]; MR] = std::array::from_fn(|m| {
                    std::array::from_fn(|j| dw[(base + m) * width + c + j])
                });
                correlate_tile::<MR, N, FMA>(x, g, shape, width, offset, c, rows.clone(), &mut acc);
                for (m, acc) in acc.iter().enumerate() {
                    dw[(base + m) * width + c..][..N].copy_from_slice(acc);
                }
                i += MR;
            } else {
                let mut acc = [std::array::from_fn(|j| dw[base * width + c + j])];
                correlate_tile::<1, N, FMA>(x, g, shape, width, offset, c, rows.clone(), &mut acc);
                dw[base * width + c..][..N].copy_from_slice(&acc[0]);
                i += 1;
            }
        }
    }
}

#[inline(always)]
fn correlate_any<const FMA: bool>(
    x: &[f32],
    g: &[f32],
    shape: &Shape,
    width: usize,
    dw: &mut [f32],
) {
    let band = shape.band().min(8);
    let mut row = 0;
    while row < shape.rows {
        let last = (row + band).min(shape.rows);
        let mut c = 0;
        while c < width {
            let n = if width - c >= NR { NR } else { 8 };
            if n == NR {
                correlate_block::<NR, FMA>(x, g, shape, width, c, row..last, dw);
            } else {
                correlate_block::<8, FMA>(x, g, shape, width, c, row..last, dw);
            }
            c += n;
        }
        row = last;
    }
}

/// Adds the weight gradient of one image to `dw`, `[ky][kx][cin][width]`: `x` is the padded plane,
/// `g` the gradient `(rows, columns, width)` with channels padded to `width`, a multiple of 8.
pub(super) fn correlate(x: &[f32], g: &[f32], shape: &Shape, width: usize, dw: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the features, as just asked.
        return unsafe { correlate_avx2(x, g, shape, width, dw) };
    }
    correlate_any::<{ cfg!(target_arch = "aarch64") }>(x, g, shape, width, dw);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn correlate_avx2(x: &[f32], g: &[f32], shape: &Shape, width: usize, dw: &mut [f32]) {
    correlate_any::<true>(x, g, shape, width, dw);
}
