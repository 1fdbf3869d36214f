//! Variational refinement: brightness and gradient constancy against smoothness, all robust.
//!
//! The energy is that of Brox et al. (2004), its data terms normalised by the gradients' size
//! (Zimmer et al. 2011); lagged weights make it linear, red-black over-relaxation solves it.

use super::plane::Plane;

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

/// One linearised constraint `t + x du + y dv = 0` at each pixel.
struct Constraint {
    x: Plane,
    y: Plane,
    t: Plane,
}

/// The linear system of one round: at each pixel `[xx, xy, yy, bu, bv]`, and the weights of the edges to the
/// right and below.
struct System {
    cells: Vec<[f32; 5]>,
    right: Vec<f32>,
    below: Vec<f32>,
}

/// Refines `flow` in place, `to(p) ~ from(p + flow(p))`.
pub(super) fn refine(to: &Plane, from: &Plane, flow: &mut [Plane; 2], how: &Refinement) {
    if how.rounds == 0 || how.sweeps == 0 {
        return;
    }
    let constraints = linearise(to, from, flow);
    let base = flow.clone();
    for _ in 0..how.rounds {
        let system = assemble(&constraints, &base, flow, how);
        for _ in 0..how.sweeps {
            sweep(&system, flow, 0);
            sweep(&system, flow, 1);
        }
    }
}

/// Brightness, and the two components of its gradient, linearised about `flow`.
fn linearise(to: &Plane, from: &Plane, flow: &[Plane; 2]) -> [Constraint; 3] {
    let (height, width) = (to.height, to.width);
    let (mut mean, mut change) = (Plane::zeros(height, width), Plane::zeros(height, width));
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            let warped = from.sample(y as f32 + flow[1].data[i], x as f32 + flow[0].data[i]);
            mean.data[i] = 0.5 * (warped + to.data[i]);
            change.data[i] = warped - to.data[i];
        }
    }
    let (ix, iy) = mean.gradients();
    let (ixx, ixy) = ix.gradients();
    let (iyx, iyy) = iy.gradients();
    let (ixt, iyt) = change.gradients();
    [
        Constraint { x: ix, y: iy, t: change },
        Constraint { x: ixx, y: ixy, t: ixt },
        Constraint { x: iyx, y: iyy, t: iyt },
    ]
}

/// The system whose weights are lagged at `flow`; its unknown is the whole flow, not the increment over `base`.
fn assemble(
    constraints: &[Constraint; 3],
    base: &[Plane; 2],
    flow: &[Plane; 2],
    how: &Refinement,
) -> System {
    let (height, width) = (flow[0].height, flow[0].width);
    let mut cells = vec![[0.0; 5]; height * width];
    for (i, cell) in cells.iter_mut().enumerate() {
        let (u0, v0) = (base[0].data[i], base[1].data[i]);
        let (du, dv) = (flow[0].data[i] - u0, flow[1].data[i] - v0);
        // [x, y, t, 1 / normalisation, normalised squared residual]
        let terms = constraints.each_ref().map(|c| {
            let (x, y, t) = (c.x.data[i], c.y.data[i], c.t.data[i]);
            let norm = 1.0 / (x * x + y * y + ZETA * ZETA);
            [x, y, t, norm, (t + x * du + y * dv).powi(2) * norm]
        });
        let bright = how.brightness / (terms[0][4] + EPSILON * EPSILON).sqrt();
        let edges = how.gradient / (terms[1][4] + terms[2][4] + EPSILON * EPSILON).sqrt();
        for ([x, y, t, norm, _], weight) in terms.into_iter().zip([bright, edges, edges]) {
            let weight = weight * norm;
            // The unknown is u0 + du: move what the base explains to the right-hand side.
            let rest = x * u0 + y * v0 - t;
            cell[0] += weight * x * x;
            cell[1] += weight * x * y;
            cell[2] += weight * y * y;
            cell[3] += weight * x * rest;
            cell[4] += weight * y * rest;
        }
    }
    let slopes = flow.each_ref().map(Plane::gradients);
    let diffusivity: Vec<f32> = (0..height * width)
        .map(|i| {
            let square: f32 =
                slopes.iter().map(|(x, y)| x.data[i].powi(2) + y.data[i].powi(2)).sum();
            how.smoothness / (square + EPSILON * EPSILON).sqrt()
        })
        .collect();
    let (mut right, mut below) = (vec![0.0; height * width], vec![0.0; height * width]);
    for i in 0..height * width {
        if (i + 1) % width != 0 {
            right[i] = 0.5 * (diffusivity[i] + diffusivity[i + 1]);
        }
        if i + width < height * width {
            below[i] = 0.5 * (diffusivity[i] + diffusivity[i + width]);
        }
    }
    System { cells, right, below }
}

/// One half sweep of successive over-relaxation, over the pixels whose `x + y` has the given parity.
fn sweep(system: &System, flow: &mut [Plane; 2], parity: usize) {
    let (height, width) = (flow[0].height, flow[0].width);
    let [u, v] = flow.each_mut().map(|component| &mut component.data[..]);
    for y in 0..height {
        for x in ((y + parity) % 2..width).step_by(2) {
            let i = y * width + x;
            // A missing neighbour has no weight; any pixel may stand for it.
            let left = if x > 0 { i - 1 } else { i };
            let above = if y > 0 { i - width } else { i };
            let (next, under) =
                ((i + 1).min(height * width - 1), (i + width).min(height * width - 1));
            let (wl, wa) = (
                if x > 0 { system.right[left] } else { 0.0 },
                if y > 0 { system.below[above] } else { 0.0 },
            );
            let (wr, wb) = (system.right[i], system.below[i]);
            let total = wl + wr + wa + wb;
            let [xx, xy, yy, bu, bv] = system.cells[i];
            let pull_u = wl * u[left] + wr * u[next] + wa * u[above] + wb * u[under];
            let pull_v = wl * v[left] + wr * v[next] + wa * v[above] + wb * v[under];
            let nu = (bu + pull_u - xy * v[i]) / (xx + total);
            u[i] += OVER_RELAXATION * (nu - u[i]);
            let nv = (bv + pull_v - xy * u[i]) / (yy + total);
            v[i] += OVER_RELAXATION * (nv - v[i]);
        }
    }
}
