//! Semi-Lagrangian backward warp: each pixel takes the image's value where it came from.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::bilinear::{Axis, LANES, LONGEST, LOOK_UP, Quads};
use super::simd::{Kernel, run};
use super::written::{self, Blank, written};
use super::{Boundary, crew, gpu, values};

/// `out(p) = image(p + flow(p))`, bilinear, for each of L displacements: image `(B, H, W, C)`, flow
/// `(B, H, W, 2 L)` in pixels as (dx, dy) pairs, out `(B, H, W, L * C)`. Open domains clamp the
/// coordinates, periodic ones wrap them; a displacement that is not finite counts as none.
/// Gradients reach both.
///
/// # Errors
/// When the shapes do not fit.
pub fn warp(image: &Tensor, flow: &Tensor, boundary: Boundary) -> Result<Tensor> {
    if gpu::wanted(image) {
        return gpu::warp(image, flow, boundary);
    }
    image.contiguous()?.apply_op2(&flow.contiguous()?, Warp { boundary })
}

/// The same of one image `[y][x][c]` along one flow `[y][x][lead][dx, dy]`, written over planes
/// `[lead][c][y][x]`: the same to the bit.
///
/// # Panics
/// When the values do not fill the sizes, or a side is of millions.
pub(crate) fn warp_planes(
    image: &[f32],
    flow: &[f32],
    [rows, columns, channels]: [usize; 3],
    boundary: Boundary,
    out: &mut [f32],
) {
    let pixels = rows * columns;
    assert!(rows.max(columns) < LONGEST, "{rows} x {columns} pixels");
    assert_eq!(image.len(), pixels * channels, "an image has so many values");
    let leads = out.len() / (pixels * channels).max(1);
    assert_eq!(out.len(), pixels * channels * leads, "planes are as large as the image");
    assert_eq!(flow.len(), 2 * pixels * leads, "a flow has two values a pixel and lead");
    let sizes = &Sizes { batch: 1, rows, columns, channels, leads };
    let place = |sample: usize| sample % leads * channels * pixels + sample / leads;
    let places: Vec<usize> = (0..columns * leads).map(place).collect();
    for k in 0..channels {
        let quads = &Quads::new(image, (rows, columns), (channels, k), boundary);
        let to = To::Planes(&places, &mut out[k * pixels..]);
        run(Carry { sizes, boundary, quads, flow, rows: 0..rows, to });
    }
}

#[derive(Clone, Copy)]
struct Warp {
    boundary: Boundary,
}

/// The offsets of the four pixels around some samples.
type Corners = [[u32; LANES]; 4];

pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
    pub(super) leads: usize,
}

impl Sizes {
    pub(super) fn new(image: &[usize], flow: &[usize]) -> Result<Self> {
        match (image, flow) {
            (&[batch, rows, columns, channels], &[b, h, w, two])
                if batch == b
                    && rows == h
                    && columns == w
                    && two % 2 == 0
                    && (1..LONGEST).contains(&rows)
                    && (1..LONGEST).contains(&columns)
                    && rows * columns * channels <= i32::MAX as usize =>
            {
                Ok(Self { batch, rows, columns, channels, leads: two / 2 })
            }
            _ => bail!("an image {image:?} cannot be carried along {flow:?}"),
        }
    }

    /// Calls `visit(first sample, samples, x, y)` for the samples of some rows in their order; a
    /// sample is one lead of one pixel. Rows and samples are numbered through the batch.
    #[inline(always)]
    fn each(
        &self,
        rows: Range<usize>,
        flow: &[f32],
        boundary: Boundary,
        mut visit: impl FnMut(usize, usize, &Axis, &Axis),
    ) {
        let line = self.columns * self.leads;
        let columns: Vec<f32> = (0..line).map(|sample| (sample / self.leads) as f32).collect();
        for row in rows {
            let y = [(row % self.rows) as f32; LANES];
            for at in (0..line).step_by(LANES) {
                let count = LANES.min(line - at);
                let first = row * line + at;
                let (mut dx, mut dy) = ([0.0; LANES], [0.0; LANES]);
                let (steps, _) = flow[2 * first..].as_chunks::<2>();
                // A whole vector is faster than any other number.
                let x = match (columns[at..].first_chunk(), steps.first_chunk::<LANES>()) {
                    (Some(x), Some(steps)) => {
                        for j in 0..LANES {
                            [dx[j], dy[j]] = steps[j];
                        }
                        *x
                    }
                    _ => {
                        let mut x = [0.0; LANES];
                        x[..count].copy_from_slice(&columns[at..at + count]);
                        let steps = dx.iter_mut().zip(&mut dy).zip(&steps[..count]);
                        steps.for_each(|((dx, dy), step)| [*dx, *dy] = *step);
                        x
                    }
                };
                let x = Axis::new(&x, &dx, self.columns, boundary);
                let y = Axis::new(&y, &dy, self.rows, boundary);
                visit(first, count, &x, &y);
            }
        }
    }

    /// Where the pixels around each sample lie in their image.
    #[inline(always)]
    fn corners(&self, x: &Axis, y: &Axis) -> Corners {
        let mut corners = [[0; LANES]; 4];
        let at = |row: i32, column: i32| {
            ((row * self.columns as i32 + column) * self.channels as i32) as u32
        };
        let pairs = [(&y.low, &x.low), (&y.low, &x.high), (&y.high, &x.low), (&y.high, &x.high)];
        for (corner, (row, column)) in corners.iter_mut().zip(pairs) {
            let pairs = row.iter().zip(column);
            corner.iter_mut().zip(pairs).for_each(|(to, (y, x))| *to = at(*y, *x));
        }
        corners
    }
}

/// Writes the first `count` values; a whole vector is faster than any other number.
#[inline(always)]
fn put(values: [f32; LANES], count: usize, to: &mut [Blank]) {
    match to.first_chunk_mut::<LANES>() {
        Some(whole) if count == LANES => {
            whole.write_copy_of_slice(&values);
        }
        _ => written::put(&mut to[..count], values),
    }
}

/// One channel of some rows, numbered through the batch, carried.
struct Carry<'a> {
    sizes: &'a Sizes,
    boundary: Boundary,
    quads: &'a Quads,
    flow: &'a [f32],
    rows: Range<usize>,
    to: To<'a>,
}

/// Where the values go.
enum To<'a> {
    /// These rows of the result; the channel.
    Rows(&'a mut [Blank], usize),
    /// The channel's planes; where the samples of a line lie in the first of its lines.
    Planes(&'a [usize], &'a mut [f32]),
}

impl Kernel for Carry<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { sizes, boundary, quads, flow, rows, mut to } = self;
        let begin = rows.start * sizes.columns * sizes.leads;
        sizes.each(rows, flow, boundary, |first, count, x, y| {
            let mixed = quads.at::<FMA>(x, y);
            match &mut to {
                To::Rows(out, k) => {
                    let c = sizes.channels;
                    let out = &mut out[(first - begin) * c..][..count * c];
                    if c == 1 {
                        put(mixed, count, out);
                    } else {
                        let out = out.iter_mut().skip(*k).step_by(c).zip(mixed);
                        out.for_each(|(y, v)| *y = Blank::new(v));
                    }
                }
                To::Planes(places, out) => {
                    let (row, at) = (first / places.len(), first % places.len());
                    let line = &mut out[row * sizes.columns..];
                    let places = &places[at..at + count];
                    mixed.iter().zip(places).for_each(|(v, at)| line[*at] = *v);
                }
            }
        });
    }
}

/// Which gradient a pass makes, from that of the result.
#[derive(Clone, Copy)]
enum Pass {
    OfFlow,
    OfImage,
}

struct Back<'a> {
    sizes: &'a Sizes,
    boundary: Boundary,
    image: &'a [f32],
    flow: &'a [f32],
    gradient: &'a [f32],
    pass: Pass,
    out: &'a mut [f32],
}

impl Kernel for Back<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { sizes, boundary, image, flow, gradient, pass, out } = self;
        let c = sizes.channels;
        let size = sizes.rows * sizes.columns * c;
        for n in 0..sizes.batch {
            let image = &image[n * size..][..size];
            let rows = n * sizes.rows..(n + 1) * sizes.rows;
            match pass {
                Pass::OfFlow => sizes.each(rows, flow, boundary, |first, count, x, y| {
                    let corners = sizes.corners(x, y);
                    let gradient = &gradient[first * c..][..count * c];
                    let (mut dx, mut dy, mut g) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
                    for k in 0..c {
                        let v = values_at(image, &corners, k);
                        let given = gradient.iter().skip(k).step_by(c);
                        g.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
                        for j in 0..LANES {
                            let (right, down) = (x.share[j], y.share[j]);
                            let (upper, lower) = (v[1][j] - v[0][j], v[3][j] - v[2][j]);
                            let (left, other) = (v[2][j] - v[0][j], v[3][j] - v[1][j]);
                            dx[j] += g[j] * (upper + (lower - upper) * down);
                            dy[j] += g[j] * (left + (other - left) * right);
                        }
                    }
                    let to = out[2 * first..][..2 * count].chunks_exact_mut(2);
                    for (j, to) in to.enumerate() {
                        to[0] = dx[j] * x.free[j];
                        to[1] = dy[j] * y.free[j];
                    }
                }),
                Pass::OfImage => sizes.each(rows, flow, boundary, |first, count, x, y| {
                    let corners = sizes.corners(x, y);
                    let out = &mut out[n * size..][..size];
                    let gradient = gradient[first * c..][..count * c].chunks_exact(c);
                    for (j, g) in gradient.enumerate() {
                        let (right, down) = (x.share[j], y.share[j]);
                        let (left, up) = (1.0 - right, 1.0 - down);
                        let shares = [up * left, up * right, down * left, down * right];
                        for (corner, share) in corners.iter().zip(shares) {
                            let to = &mut out[corner[j] as usize..][..c];
                            to.iter_mut().zip(g).for_each(|(to, g)| *to += g * share);
                        }
                    }
                }),
            }
        }
    }
}

/// The four values of channel `k` around each sample, and around those that only fill the lanes.
#[inline(always)]
fn values_at(image: &[f32], corners: &Corners, k: usize) -> [[f32; LANES]; 4] {
    let mut values = [[0.0; LANES]; 4];
    for (values, at) in values.iter_mut().zip(corners) {
        for j in 0..LANES {
            values[j] = image[at[j] as usize + k];
        }
    }
    values
}

impl CustomOp2 for Warp {
    fn name(&self) -> &'static str {
        "warp-nhwc"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(l1.dims(), l2.dims())?;
        let Sizes { batch, rows, columns, leads, channels } = sizes;
        let (image, flow) = (values(s1, l1)?, values(s2, l2)?);
        let (boundary, sizes) = (self.boundary, &sizes);
        let (size, line) = (rows * columns * channels, columns * leads * channels);
        let carry = |n: usize, k: usize, out: &mut [Blank]| {
            let image = &image[n * size..][..size];
            let quads = &Quads::new(image, (rows, columns), (channels, k), boundary);
            let cost = rows * columns * leads * LOOK_UP;
            crew::rows(out, line, cost, |first, out| {
                let first = n * rows + first;
                let some = first..first + out.len() / line;
                let to = To::Rows(out, k);
                run(Carry { sizes, boundary, quads, flow, rows: some, to });
            });
        };
        let each = |out: &mut [Blank]| {
            for (n, out) in out.chunks_exact_mut((rows * line).max(1)).enumerate() {
                (0..channels).for_each(|k| carry(n, k, out));
            }
        };
        // SAFETY: every channel of every image is carried.
        #[allow(unsafe_code)]
        let out = unsafe { written(batch * rows * line, each) };
        Ok((CpuStorage::F32(out), Shape::from((batch, rows, columns, leads * channels))))
    }

    fn bwd(
        &self,
        image: &Tensor,
        flow: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let op = |of_flow| WarpGradient { boundary: self.boundary, of_flow };
        let image_part = image
            .track_op()
            .then(|| image.apply_op3_no_bwd(flow, &gradient, &op(false)))
            .transpose()?;
        let flow_part = flow
            .track_op()
            .then(|| image.apply_op3_no_bwd(flow, &gradient, &op(true)))
            .transpose()?;
        Ok((image_part, flow_part))
    }
}

/// `(image, flow, gradient) -> gradient of the flow or of the image`.
struct WarpGradient {
    boundary: Boundary,
    of_flow: bool,
}

impl CustomOp3 for WarpGradient {
    fn name(&self) -> &'static str {
        "warp-nhwc-gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = &Sizes::new(l1.dims(), l2.dims())?;
        let (image, flow, gradient) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let (pass, layout) = if self.of_flow { (Pass::OfFlow, l2) } else { (Pass::OfImage, l1) };
        let mut out = vec![0.0; layout.shape().elem_count()];
        let boundary = self.boundary;
        run(Back { sizes, boundary, image, flow, gradient, pass, out: &mut out });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
