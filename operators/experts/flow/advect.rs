//! Semi-Lagrangian extrapolation: where the value that arrives at each pixel sets out from.

use super::plane::bilinear;
use crate::layers::Boundary;
use crate::layers::bilinear::{Axis, LANES, LONGEST, LOOK_UP, Quads};
use crate::layers::crew;
use crate::layers::simd::{Kernel, run};

/// Displacements of leads `1..=leads` composed from the steady backward flow `v`.
///
/// `v` is `[y][x][dx, dy]` in pixels a step; the result is `[y][x][lead * 2 + {0: dx, 1: dy}]`, also in pixels:
/// the value forecast at `p` for a lead is the newest frame's at `p + D(p)`. The path is followed step by step by
/// the implicit midpoint rule, one correction a step (Germann and Zawadzki 2002): `D_0 = 0`, `s_0 = v(p)`,
/// `s_{k+1} = v(p + D_k + s_k / 2)`, `D_{k+1} = D_k + s_{k+1}`, with `v` bilinear, its coordinates clamped when
/// open and wrapped when periodic.
///
/// # Panics
/// If `v` does not hold `2 * height * width` values, or a side is of millions.
pub fn displacements(
    v: &[f32],
    height: usize,
    width: usize,
    leads: usize,
    boundary: Boundary,
) -> Vec<f32> {
    assert_eq!(v.len(), 2 * height * width, "a flow has two values a pixel");
    assert!(height.max(width) < LONGEST, "{height} x {width} pixels");
    let mut out = vec![0.0; height * width * 2 * leads];
    if !out.is_empty() {
        let of = |k| Quads::new(v, (height, width), (2, k), boundary);
        let flow = &[of(0), of(1)];
        let cost = 2 * height * width * leads * LOOK_UP;
        crew::rows(&mut out, width * 2 * leads, cost, |row, out| {
            run(Paths { v, flow, size: [height, width], leads, boundary, row, out });
        });
    }
    out
}

struct Paths<'a> {
    v: &'a [f32],
    /// Both components of `v`.
    flow: &'a [Quads; 2],
    /// Height and width.
    size: [usize; 2],
    leads: usize,
    boundary: Boundary,
    /// The first row of `out`.
    row: usize,
    out: &'a mut [f32],
}

impl Kernel for Paths<'_> {
    /// A step waits for the one before it: so pixels go side by side, through all their leads.
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { v, flow, size: [height, width], leads, boundary, row, out } = self;
        for (y, out) in (row..).zip(out.chunks_exact_mut(width * 2 * leads)) {
            for first in (0..width).step_by(LANES) {
                let count = LANES.min(width - first);
                let pixel = y * width + first;
                let (py, px) = ([y as f32; LANES], std::array::from_fn(|j| (first + j) as f32));
                let (mut dx, mut dy) = ([0.0; LANES], [0.0; LANES]);
                let (mut sx, mut sy) = ([0.0; LANES], [0.0; LANES]);
                let start = v[2 * pixel..][..2 * count].as_chunks::<2>().0;
                sx.iter_mut().zip(&mut sy).zip(start).for_each(|((x, y), v)| [*x, *y] = *v);
                let out = &mut out[first * 2 * leads..][..count * 2 * leads];
                for lead in 0..leads {
                    let half = |d: &[f32; LANES], s: &[f32; LANES]| {
                        let mut half = [0.0; LANES];
                        for j in 0..LANES {
                            half[j] = d[j] + 0.5 * s[j];
                        }
                        half
                    };
                    let x = Axis::new(&px, &half(&dx, &sx), width, boundary);
                    let y = Axis::new(&py, &half(&dy, &sy), height, boundary);
                    (sx, sy) = (flow[0].at::<FMA>(&x, &y), flow[1].at::<FMA>(&x, &y));
                    for j in 0..LANES {
                        dx[j] += sx[j];
                        dy[j] += sy[j];
                    }
                    for (j, path) in out.chunks_exact_mut(2 * leads).enumerate() {
                        path[2 * lead..][..2].copy_from_slice(&[dx[j], dy[j]]);
                    }
                }
            }
        }
    }
}

/// `field` `[y][x]` carried along one lead's displacement `d` `[y][x][dx, dy]`: `out(p) = field(p + d(p))`, bilinear.
///
/// # Panics
/// If the slices do not hold `height * width` and `2 * height * width` values.
pub fn advect(
    field: &[f32],
    d: &[f32],
    height: usize,
    width: usize,
    boundary: Boundary,
) -> Vec<f32> {
    assert_eq!(field.len(), height * width, "a field has one value a pixel");
    assert_eq!(d.len(), 2 * height * width, "a displacement has two values a pixel");
    let from = |(p, d): (usize, &[f32])| {
        let (y, x) = ((p / width) as f32 + d[1], (p % width) as f32 + d[0]);
        bilinear(field, height, width, y, x, boundary)
    };
    d.chunks_exact(2).enumerate().map(from).collect()
}
