//! Variational refinement: brightness and gradient constancy against smoothness, all robust.
//!
//! The energy is that of Brox et al. (2004), its data terms normalised by the gradients' size
//! (Zimmer et al. 2011); lagged weights make it linear, red-black over-relaxation solves it.

//! Everything is worked out for [`LANES`] neighbouring pixels at a time, by the same operations in
//! vectors and without.

use super::plane::Plane;
use crate::layers::Boundary;
use crate::layers::bilinear::{Axis, LANES, Quads};
use crate::layers::simd::{Kernel, run};

/// Softens every robust penalty `sqrt(s^2 + EPSILON^2)`.
const EPSILON: f32 = 1e-3;
/// Keeps the normalisation of a flat pixel finite.
const ZETA: f32 = 0.1;
const OVER_RELAXATION: f32 = 1.6;

/// The weights of the terms, and how long to solve.
#[derive(Clone, Debug)]
pub(super) struct Refinement {
    pub(super) smoothness: f32,
    pub(super) brightness: f32,
    pub(super) gradient: f32,
    pub(super) rounds: usize,
    pub(super) sweeps: usize,
}

/// Some pixels of a row.
type Lane = [f32; LANES];

/// A plane with a border of one pixel, and room for whole lanes after every row.
#[derive(Clone)]
struct Grid {
    stride: usize,
    data: Vec<f32>,
}

impl Grid {
    fn zeros(height: usize, width: usize) -> Self {
        let stride = 2 + width.next_multiple_of(LANES);
        Self { stride, data: vec![0.0; (height + 2) * stride] }
    }

    fn of(plane: &Plane) -> Self {
        let mut grid = Self::zeros(plane.height, plane.width);
        for y in 0..plane.height {
            let at = grid.at(y, 0);
            grid.data[at..][..plane.width].copy_from_slice(plane.row(y));
        }
        grid
    }

    /// Where pixel `(y, x)` lies.
    fn at(&self, y: usize, x: usize) -> usize {
        (y + 1) * self.stride + x + 1
    }

    #[inline(always)]
    fn lane(&self, at: usize) -> &Lane {
        self.data[at..].first_chunk().expect("whole lanes")
    }

    #[inline(always)]
    fn lane_mut(&mut self, at: usize) -> &mut Lane {
        self.data[at..].first_chunk_mut().expect("whole lanes")
    }

    /// The nearest pixel stands for what lies outside.
    fn continue_border(&mut self, height: usize, width: usize) {
        for y in 0..height {
            let (first, last) = (self.at(y, 0), self.at(y, width - 1));
            self.data[first - 1] = self.data[first];
            self.data[last + 1] = self.data[last];
        }
        let [first, last] = [0, height - 1].map(|y| self.at(y, 0) - 1);
        self.data.copy_within(first..first + self.stride, 0);
        self.data.copy_within(last..last + self.stride, last + self.stride);
    }
}

/// One linearised constraint `t + x du + y dv = 0` at each pixel.
struct Constraint {
    x: Grid,
    y: Grid,
    t: Grid,
}

/// The linear system of one round: at each pixel `xx u + xy v = bu`, `xy u + yy v = bv`, and the
/// weights of the edges to the left and above, which are zero at the border.
struct System {
    xx: Grid,
    xy: Grid,
    yy: Grid,
    bu: Grid,
    bv: Grid,
    left: Grid,
    above: Grid,
    /// Of each pixel alone.
    diffusivity: Grid,
}

/// Refines `flow` in place, `to(p) ~ from(p + flow(p))`.
pub(super) fn refine(to: &Plane, from: &Plane, flow: &mut [Plane; 2], how: &Refinement) {
    if how.rounds > 0 && how.sweeps > 0 {
        run(Refine { to, from, flow, how });
    }
}

struct Refine<'a> {
    to: &'a Plane,
    from: &'a Plane,
    flow: &'a mut [Plane; 2],
    how: &'a Refinement,
}

impl Kernel for Refine<'_> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { to, from, flow, how } = self;
        let (height, width) = (to.height, to.width);
        let constraints = linearise::<FMA>(to, from, flow);
        let base = flow.each_ref().map(Grid::of);
        let mut refined = base.clone();
        let mut system = System::new(height, width);
        for _ in 0..how.rounds {
            refined.iter_mut().for_each(|component| component.continue_border(height, width));
            system.assemble(&constraints, &base, &refined, how, (height, width));
            for _ in 0..how.sweeps {
                sweep(&system, &mut refined, 0, (height, width));
                sweep(&system, &mut refined, 1, (height, width));
            }
        }
        for (flow, refined) in flow.iter_mut().zip(&refined) {
            for (y, row) in flow.data.chunks_exact_mut(width).enumerate() {
                row.copy_from_slice(&refined.data[refined.at(y, 0)..][..width]);
            }
        }
    }
}

/// Brightness, and the two components of its gradient, linearised about `flow`.
#[inline(always)]
fn linearise<const FMA: bool>(to: &Plane, from: &Plane, flow: &[Plane; 2]) -> [Constraint; 3] {
    let (height, width) = (to.height, to.width);
    let quads = Quads::new(&from.data, (height, width), (1, 0), Boundary::Open);
    let (mut mean, mut change) = (Plane::zeros(height, width), Plane::zeros(height, width));
    for y in 0..height {
        for first in (0..width).step_by(LANES) {
            let count = LANES.min(width - first);
            let at = y * width + first;
            let step = |component: &Plane| {
                let mut step = [0.0; LANES];
                step.iter_mut().zip(&component.data[at..][..count]).for_each(|(to, d)| *to = *d);
                step
            };
            let mut columns = [0.0; LANES];
            columns.iter_mut().zip(first..).for_each(|(to, x)| *to = x as f32);
            let x = Axis::new(&columns, &step(&flow[0]), width, Boundary::Open);
            let y = Axis::new(&[y as f32; LANES], &step(&flow[1]), height, Boundary::Open);
            let warped = quads.at::<FMA>(&x, &y);
            let out = mean.data[at..][..count].iter_mut().zip(&mut change.data[at..][..count]);
            for ((mean, change), (warped, to)) in out.zip(warped.iter().zip(&to.data[at..])) {
                *mean = 0.5 * (warped + to);
                *change = warped - to;
            }
        }
    }
    let (ix, iy) = mean.gradients();
    let (ixx, ixy) = ix.gradients();
    let (iyx, iyy) = iy.gradients();
    let (ixt, iyt) = change.gradients();
    let of = |x: &Plane, y: &Plane, t: &Plane| Constraint {
        x: Grid::of(x),
        y: Grid::of(y),
        t: Grid::of(t),
    };
    [of(&ix, &iy, &change), of(&ixx, &ixy, &ixt), of(&iyx, &iyy, &iyt)]
}

impl System {
    fn new(height: usize, width: usize) -> Self {
        let zeros = || Grid::zeros(height, width);
        Self {
            xx: zeros(),
            xy: zeros(),
            yy: zeros(),
            bu: zeros(),
            bv: zeros(),
            left: zeros(),
            above: zeros(),
            diffusivity: zeros(),
        }
    }

    /// The system whose weights are lagged at `flow`; its unknown is the whole flow, not the increment over `base`.
    #[inline(always)]
    fn assemble(
        &mut self,
        constraints: &[Constraint; 3],
        base: &[Grid; 2],
        flow: &[Grid; 2],
        how: &Refinement,
        (height, width): (usize, usize),
    ) {
        for y in 0..height {
            for x in (0..width).step_by(LANES) {
                let at = base[0].at(y, x);
                self.data_terms(constraints, base, flow, how, at);
                *self.diffusivity.lane_mut(at) = diffusivity(flow, how.smoothness, at);
            }
        }
        let stride = base[0].stride;
        for y in 0..height {
            for x in (0..width).step_by(LANES) {
                let at = base[0].at(y, x);
                let own = self.diffusivity.lane(at);
                let (beside, over) =
                    (self.diffusivity.lane(at - 1), self.diffusivity.lane(at - stride));
                let (left, above) = (self.left.lane_mut(at), self.above.lane_mut(at));
                for j in 0..LANES {
                    left[j] = 0.5 * (beside[j] + own[j]);
                    above[j] = 0.5 * (over[j] + own[j]);
                }
            }
            let first = self.left.at(y, 0);
            self.left.data[first] = 0.0;
            self.left.data[first + width] = 0.0;
        }
        let top = self.above.at(0, 0);
        self.above.data[top..][..width].fill(0.0);
    }

    /// What the constraints say of the pixels at `at`.
    #[inline(always)]
    fn data_terms(
        &mut self,
        constraints: &[Constraint; 3],
        base: &[Grid; 2],
        flow: &[Grid; 2],
        how: &Refinement,
        at: usize,
    ) {
        let (u0, v0) = (base[0].lane(at), base[1].lane(at));
        let (u, v) = (flow[0].lane(at), flow[1].lane(at));
        let mut residuals = [[0.0; LANES]; 3];
        let mut norms = [[0.0; LANES]; 3];
        for ((constraint, residual), norm) in constraints.iter().zip(&mut residuals).zip(&mut norms)
        {
            let Constraint { x, y, t } = constraint;
            let (x, y, t) = (x.lane(at), y.lane(at), t.lane(at));
            for j in 0..LANES {
                let rest = t[j] + x[j] * (u[j] - u0[j]) + y[j] * (v[j] - v0[j]);
                norm[j] = 1.0 / (x[j] * x[j] + y[j] * y[j] + ZETA * ZETA);
                residual[j] = rest * rest * norm[j];
            }
        }
        let (mut bright, mut edges) = ([0.0; LANES], [0.0; LANES]);
        for j in 0..LANES {
            bright[j] = how.brightness / (residuals[0][j] + EPSILON * EPSILON).sqrt();
            edges[j] =
                how.gradient / (residuals[1][j] + residuals[2][j] + EPSILON * EPSILON).sqrt();
        }
        let (mut xx, mut xy, mut yy) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let (mut bu, mut bv) = ([0.0; LANES], [0.0; LANES]);
        for (constraint, (norm, weights)) in
            constraints.iter().zip(norms.iter().zip([&bright, &edges, &edges]))
        {
            let Constraint { x, y, t } = constraint;
            let (x, y, t) = (x.lane(at), y.lane(at), t.lane(at));
            for j in 0..LANES {
                let weight = weights[j] * norm[j];
                // The unknown is u0 + du: move what the base explains to the right-hand side.
                let rest = x[j] * u0[j] + y[j] * v0[j] - t[j];
                xx[j] += weight * x[j] * x[j];
                xy[j] += weight * x[j] * y[j];
                yy[j] += weight * y[j] * y[j];
                bu[j] += weight * x[j] * rest;
                bv[j] += weight * y[j] * rest;
            }
        }
        *self.xx.lane_mut(at) = xx;
        *self.xy.lane_mut(at) = xy;
        *self.yy.lane_mut(at) = yy;
        *self.bu.lane_mut(at) = bu;
        *self.bv.lane_mut(at) = bv;
    }
}

/// How freely the flow spreads at the pixels at `at`.
#[inline(always)]
fn diffusivity(flow: &[Grid; 2], smoothness: f32, at: usize) -> Lane {
    let mut square = [0.0; LANES];
    for component in flow {
        let stride = component.stride;
        let (left, right) = (component.lane(at - 1), component.lane(at + 1));
        let (above, below) = (component.lane(at - stride), component.lane(at + stride));
        for j in 0..LANES {
            let (x, y) = (0.5 * (right[j] - left[j]), 0.5 * (below[j] - above[j]));
            square[j] += x * x + y * y;
        }
    }
    let mut out = [0.0; LANES];
    for j in 0..LANES {
        out[j] = smoothness / (square[j] + EPSILON * EPSILON).sqrt();
    }
    out
}

/// One half sweep of successive over-relaxation, over the pixels whose `x + y` has the given
/// parity. The others are worked out as well, and dropped: they are all that a pixel depends on.
#[inline(always)]
fn sweep(system: &System, flow: &mut [Grid; 2], parity: usize, (height, width): (usize, usize)) {
    let [u, v] = flow;
    let stride = u.stride;
    for y in 0..height {
        let odd = (y + parity) % 2;
        for x in (0..width).step_by(LANES) {
            let at = u.at(y, x);
            let count = LANES.min(width - x);
            let (wl, wr) = (system.left.lane(at), system.left.lane(at + 1));
            let (wa, wb) = (system.above.lane(at), system.above.lane(at + stride));
            let (xx, xy, yy) = (system.xx.lane(at), system.xy.lane(at), system.yy.lane(at));
            let (bu, bv) = (system.bu.lane(at), system.bv.lane(at));
            let mut total = [0.0; LANES];
            for j in 0..LANES {
                total[j] = wl[j] + wr[j] + wa[j] + wb[j];
            }
            let weights = [wl, wr, wa, wb];
            let (pull_u, pull_v) = (pull(u, at, weights), pull(v, at, weights));
            let (mut own_u, mut own_v) = (*u.lane(at), *v.lane(at));
            for j in 0..LANES {
                let nu = (bu[j] + pull_u[j] - xy[j] * own_v[j]) / (xx[j] + total[j]);
                let new_u = own_u[j] + OVER_RELAXATION * (nu - own_u[j]);
                let nv = (bv[j] + pull_v[j] - xy[j] * new_u) / (yy[j] + total[j]);
                let new_v = own_v[j] + OVER_RELAXATION * (nv - own_v[j]);
                let mine = j % 2 == odd && j < count;
                own_u[j] = if mine { new_u } else { own_u[j] };
                own_v[j] = if mine { new_v } else { own_v[j] };
            }
            *u.lane_mut(at) = own_u;
            *v.lane_mut(at) = own_v;
        }
    }
}

/// The weighted neighbours of the pixels at `at`: left, right, above and below.
#[inline(always)]
fn pull(component: &Grid, at: usize, [wl, wr, wa, wb]: [&Lane; 4]) -> Lane {
    let stride = component.stride;
    let (left, right) = (component.lane(at - 1), component.lane(at + 1));
    let (above, below) = (component.lane(at - stride), component.lane(at + stride));
    let mut pull = [0.0; LANES];
    for j in 0..LANES {
        pull[j] = wl[j] * left[j] + wr[j] * right[j] + wa[j] * above[j] + wb[j] * below[j];
    }
    pull
}
