//! Semi-Lagrangian extrapolation: where the value that arrives at each pixel sets out from.

use super::plane::{bilinear, support};
use crate::layers::Boundary;

/// Displacements of leads `1..=leads` composed from the steady backward flow `v`.
///
/// `v` is `[y][x][dx, dy]` in pixels a step; the result is `[y][x][lead * 2 + {0: dx, 1: dy}]`, also in pixels:
/// the value forecast at `p` for a lead is the newest frame's at `p + D(p)`. The path is followed step by step by
/// the implicit midpoint rule, one correction a step (Germann and Zawadzki 2002): `D_0 = 0`, `s_0 = v(p)`,
/// `s_{k+1} = v(p + D_k + s_k / 2)`, `D_{k+1} = D_k + s_{k+1}`, with `v` bilinear, its coordinates clamped when
/// open and wrapped when periodic.
///
/// # Panics
/// If `v` does not hold `2 * height * width` values.
pub fn displacements(
    v: &[f32],
    height: usize,
    width: usize,
    leads: usize,
    boundary: Boundary,
) -> Vec<f32> {
    assert_eq!(v.len(), 2 * height * width, "a flow has two values a pixel");
    let mut out = vec![0.0; height * width * 2 * leads];
    if leads == 0 {
        return out;
    }
    for (p, path) in out.chunks_exact_mut(2 * leads).enumerate() {
        let (y, x) = ((p / width) as f32, (p % width) as f32);
        let ([mut dx, mut dy], mut stride) = ([0.0_f32; 2], [v[2 * p], v[2 * p + 1]]);
        for step in path.chunks_exact_mut(2) {
            let (half_x, half_y) = (dx + 0.5 * stride[0], dy + 0.5 * stride[1]);
            stride = flow_at(v, (height, width), y + half_y, x + half_x, boundary);
            (dx, dy) = (dx + stride[0], dy + stride[1]);
            step.copy_from_slice(&[dx, dy]);
        }
    }
    out
}

/// Bilinear value of an interleaved flow at a real place.
#[inline(always)]
fn flow_at(
    v: &[f32],
    (height, width): (usize, usize),
    y: f32,
    x: f32,
    boundary: Boundary,
) -> [f32; 2] {
    let (y0, y1, fy) = support(y, height, boundary);
    let (x0, x1, fx) = support(x, width, boundary);
    let at = |y: usize, x: usize| {
        let pixel = 2 * (y * width + x);
        [v[pixel], v[pixel + 1]]
    };
    let between = |a: [f32; 2], b: [f32; 2], share: f32| {
        [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])]
    };
    between(between(at(y0, x0), at(y0, x1), fx), between(at(y1, x0), at(y1, x1), fx), fy)
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
