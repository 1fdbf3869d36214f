//! Shallow water after a round dam broke: a bore runs out, a hollow follows it.

use physicnet_stream::{Error, Grid, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Physics, Simulation, largest, one, square, within};
use super::limiter::monotonised;
use super::random::Random;

/// The pool is [−2.5, 2.5]².
const SIDE: f64 = 5.0;
/// The sum over both directions of speed times step over the side of a cell. Up to one half no
/// depth becomes negative (Perthame and Shu 1996).
const COURANT: f64 = 0.5;

/// ∂h/∂t + ∇·(h u) = 0 and ∂(h u)/∂t + ∇·(h u⊗u + g h²/2) = 0 on [−2.5, 2.5]², whose edges let
/// everything out, from still water that stands higher within a circle around the centre.
///
/// The radial dam break of PDEBench (Takamoto et al. 2022, arXiv:2210.07182), whose parameters are
/// the defaults: 101 frames are its t = 0 to 1. Like its data, frames hold the depth h alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShallowWater {
    /// Cells along a side, 8 to 1024.
    pub size: usize,
    /// The acceleration g of gravity.
    pub gravity: f64,
    /// The depth within the circle.
    pub inner_height: f64,
    /// The depth outside of it.
    pub outer_height: f64,
    /// From which radii a sensor draws that of its circle.
    pub radius: [f64; 2],
    /// Simulated time between frames.
    pub interval: f64,
}

impl Default for ShallowWater {
    fn default() -> Self {
        let (inner_height, outer_height, radius) = (2.0, 1.0, [0.3, 0.7]);
        Self { size: 128, gravity: 1.0, inner_height, outer_height, radius, interval: 0.01 }
    }
}

impl Physics for ShallowWater {
    fn validate(&self) -> Result<()> {
        let Self { size, gravity, inner_height, outer_height, radius, interval } = self;
        one("size", *size as f64, 8.0, 1024.0)?;
        one("gravity", *gravity, 1e-3, 1e3)?;
        one("inner_height", *inner_height, 1e-3, 1e3)?;
        one("outer_height", *outer_height, 1e-3, 1e3)?;
        within("radius", *radius, 0.0, SIDE)?;
        one("interval", *interval, 1e-6, 1e3)
    }

    fn grid(&self) -> Grid {
        square(&[["h", "m"]], self.size, -SIDE / 2.0, SIDE / self.size as f64, "m")
    }

    fn signed(&self) -> bool {
        false
    }

    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>> {
        self.validate()?;
        let radius = Random::new(key).between(self.radius);
        let depth = |x: f64, y: f64| {
            if x.hypot(y) <= radius { self.inner_height } else { self.outer_height }
        };
        Ok(Box::new(Pool::still(self, depth)))
    }
}

/// Depth and momentum [h, h u, h v].
type Water = [f64; 3];

/// A pool in progress.
///
/// Godunov's finite volumes, second order: depth and velocity are linear within a cell, with
/// monotonised slopes; what crosses a side is Harten, Lax and van Leer's flux, with the transverse
/// velocity of the side that the water comes from (HLLC, Toro 2001, chapter 10); in time the
/// second-order rule of Shu and Osher (1988). Conserves water and momentum, keeps depths positive.
struct Pool {
    config: ShallowWater,
    n: usize,
    spacing: f64,
    /// `[y][x]`.
    water: Vec<Water>,
}

impl Pool {
    /// Still water of the depth that `depth` says at (x, y).
    fn still(config: &ShallowWater, depth: impl Fn(f64, f64) -> f64) -> Self {
        let n = config.size;
        let spacing = SIDE / n as f64;
        let place = |i: usize| (i as f64 + 0.5) * spacing - SIDE / 2.0;
        let water = (0..n * n).map(|at| [depth(place(at % n), place(at / n)), 0.0, 0.0]).collect();
        Self { config: config.clone(), n, spacing, water }
    }

    /// The largest sum of the speeds at which anything goes along x and along y. Not even over dry
    /// ground does water outrun |u| + 2 √(g h) (Ritter 1892).
    fn fastest(&self) -> f64 {
        let speed = |&[h, hu, hv]: &Water| {
            (hu / h).abs() + (hv / h).abs() + 4.0 * (self.config.gravity * h).sqrt()
        };
        largest(self.water.iter().map(speed))
    }

    fn go_on(&mut self, time: f64) -> Result<()> {
        let mut left = time;
        while left > 0.0 {
            let steps = (left * self.fastest() / (COURANT * self.spacing)).ceil();
            if steps.is_nan() || steps > 1e6 {
                let ShallowWater { size, gravity, inner_height, interval, .. } = self.config;
                let what = format!(
                    "shallow_water with size {size}, gravity {gravity}, inner_height \
                     {inner_height}, interval {interval}"
                );
                return Err(Error::new(what, "the water is too fast: take a shorter interval"));
            }
            let steps = steps.max(1.0);
            self.step(left / steps);
            left = if steps > 1.0 { left - left / steps } else { 0.0 };
        }
        Ok(())
    }

    /// One step of length `step`: the mean of the water now and of that two Euler steps on.
    fn step(&mut self, step: f64) {
        let along = step / self.spacing;
        let mut first = self.water.clone();
        self.flow(&self.water, along, &mut first);
        let mut second = first.clone();
        self.flow(&first, along, &mut second);
        for (now, then) in self.water.iter_mut().zip(second) {
            *now = [0, 1, 2].map(|i| 0.5 * (now[i] + then[i]));
        }
    }

    /// Adds to `after` what crosses the sides of the cells of `water` in a time of `along` cells a
    /// unit of speed.
    fn flow(&self, water: &[Water], along: f64, after: &mut [Water]) {
        let n = self.n;
        let (mut line, mut faces) = (vec![[0.0; 3]; n], vec![[0.0; 3]; n + 1]);
        for row in 0..n {
            line.copy_from_slice(&water[row * n..(row + 1) * n]);
            fluxes(self.config.gravity, &line, &mut faces);
            for (x, pair) in faces.windows(2).enumerate() {
                let cell = &mut after[row * n + x];
                *cell = [0, 1, 2].map(|i| cell[i] + along * (pair[0][i] - pair[1][i]));
            }
        }
        // Along y the two momenta change places.
        let turned = |[h, hu, hv]: Water| [h, hv, hu];
        for column in 0..n {
            for (y, cell) in line.iter_mut().enumerate() {
                *cell = turned(water[y * n + column]);
            }
            fluxes(self.config.gravity, &line, &mut faces);
            for (y, pair) in faces.windows(2).enumerate() {
                let (cell, [from, to]) =
                    (&mut after[y * n + column], [turned(pair[0]), turned(pair[1])]);
                *cell = [0, 1, 2].map(|i| cell[i] + along * (from[i] - to[i]));
            }
        }
    }
}

impl Simulation for Pool {
    fn advance(&mut self) -> Result<()> {
        self.go_on(self.config.interval)
    }

    fn render(&mut self) -> Result<Vec<f32>> {
        Ok(self.water.iter().map(|water| water[0] as f32).collect())
    }
}

/// What crosses the n + 1 sides of a line of n cells; beyond its ends is what is at its ends.
fn fluxes(gravity: f64, line: &[Water], faces: &mut [Water]) {
    // Depth and velocity: their slopes keep depths positive, which those of momentum might not.
    let plain = |[h, hu, hv]: Water| [h, hu / h, hv / h];
    let at = |i: usize| plain(line[i.min(line.len() - 1)]);
    let mut here = at(0);
    // The state at the far side of the cell before.
    let (mut before, mut left) = (here, here);
    for (i, face) in faces.iter_mut().enumerate() {
        let after = at(i + 1);
        let half = [0, 1, 2].map(|k| 0.5 * monotonised(here[k] - before[k], after[k] - here[k]));
        *face = flux(gravity, left, [0, 1, 2].map(|k| here[k] - half[k]));
        left = [0, 1, 2].map(|k| here[k] + half[k]);
        (before, here) = (here, after);
    }
}

/// What crosses a side between depth and velocities `[h, u, v]` on its left and on its right.
fn flux(gravity: f64, left: Water, right: Water) -> Water {
    let [[hl, ul, vl], [hr, ur, vr]] = [left, right];
    let (cl, cr) = ((gravity * hl).sqrt(), (gravity * hr).sqrt());
    // The depth between the waves, as if both were rarefactions (Toro 2001, 10.18).
    let between = (0.5 * (cl + cr) + 0.25 * (ul - ur)).max(0.0).powi(2) / gravity;
    let bore = |h: f64| {
        if between > h { (0.5 * (between + h) * between / (h * h)).sqrt() } else { 1.0 }
    };
    // No faster than water that runs over dry ground, or the steps would be too long.
    let first = (ul - cl * bore(hl)).max((ur - 2.0 * cr).min(ul - cl));
    let last = (ur + cr * bore(hr)).min((ul + 2.0 * cl).max(ur + cr));
    let whole = |[h, u, _]: Water| [h * u, h * u * u + 0.5 * gravity * h * h];
    let (fl, fr) = (whole(left), whole(right));
    let [mass, momentum] = if first >= 0.0 {
        fl
    } else if last <= 0.0 {
        fr
    } else {
        let jump = [hr - hl, hr * ur - hl * ul];
        [0, 1].map(|i| (last * fl[i] - first * fr[i] + first * last * jump[i]) / (last - first))
    };
    [mass, momentum, mass * if mass >= 0.0 { vl } else { vr }]
}

#[cfg(test)]
mod tests;
