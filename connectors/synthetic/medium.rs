//! Two species that diffuse and react on a square: what reaction-diffusion simulations share.

use physicnet_stream::{Error, Result};

use super::field::largest;

/// The fastest decay rate times step. The classical rule of Runge and Kutta is stable up to 2.79
/// on the negative real axis (Hairer and Wanner 1996, IV.2); at 1 even the shortest wave decays to
/// within 2 % of what it should.
const COURANT: f64 = 1.0;
/// More steps than this in a frame are a mistake in the settings.
const MOST: f64 = 1e6;

/// What the species do to one another where they meet.
pub(super) trait Kinetics {
    /// ∂u/∂t and ∂v/∂t without diffusion.
    fn rates(&self, u: f64, v: f64) -> [f64; 2];

    /// A bound of the rates' Jacobian, its largest sum of a row's magnitudes, wherever |u| and |v|
    /// are at most these.
    fn stiffness(&self, u: f64, v: f64) -> f64;
}

/// What is at the edges of the square.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    /// Nothing passes. Second order in space.
    Closed,
    /// The opposite edge. Fourth order in space.
    Periodic,
}

/// Both species now, in n × n cells: ∂u/∂t = D ∆u + rates.
///
/// Central differences: what crosses the side between two cells is a difference of those around
/// it, so diffusion alone conserves both species. Classical Runge–Kutta in time, as many steps a
/// frame as diffusion and reaction ask for.
pub(super) struct Medium<K> {
    kinetics: K,
    n: usize,
    /// D over the area of a cell, for each species, 1/time.
    exchange: [f64; 2],
    /// The weights of the nearest cells and of those behind them in the Laplacian.
    weights: [f64; 2],
    /// The two places before and the two after every place of a row or column.
    beside: Vec<[usize; 4]>,
    /// u and then v, each `[y][x]`.
    state: Vec<f64>,
    scratch: [Vec<f64>; 3],
}

impl<K: Kinetics> Medium<K> {
    /// `state` holds u and then v, each `[y][x]` of n × n cells of the side `spacing`.
    pub(super) fn new(
        kinetics: K,
        edge: Edge,
        diffusion: [f64; 2],
        spacing: f64,
        state: Vec<f64>,
    ) -> Self {
        let n = (state.len() / 2).isqrt();
        let beside = |i: usize| match edge {
            // A cell that is its own neighbour exchanges nothing there.
            Edge::Closed => {
                [i.saturating_sub(2), i.saturating_sub(1), (i + 1).min(n - 1), (i + 2).min(n - 1)]
            }
            Edge::Periodic => [n - 2, n - 1, 1, 2].map(|step| (i + step) % n),
        };
        let weights = match edge {
            Edge::Closed => [1.0, 0.0],
            Edge::Periodic => [4.0 / 3.0, -1.0 / 12.0],
        };
        Self {
            kinetics,
            n,
            exchange: diffusion.map(|d| d / (spacing * spacing)),
            weights,
            beside: (0..n).map(beside).collect(),
            scratch: std::array::from_fn(|_| vec![0.0; state.len()]),
            state,
        }
    }

    /// u and then v, each `[y][x]`.
    pub(super) fn state(&self) -> &[f64] {
        &self.state
    }

    /// Goes on by `time`.
    ///
    /// # Errors
    /// When that takes more steps than make sense, or the values are no longer finite; `what`
    /// names the settings.
    pub(super) fn march(&mut self, time: f64, what: impl Fn() -> String) -> Result<()> {
        let mut left = time;
        while left > 0.0 {
            // Anew for each step: noise calms down, patterns grow.
            let steps = (left * self.fastest() / COURANT).ceil();
            if steps.is_nan() || steps > MOST {
                let why = "the reaction is too fast to follow: take a shorter interval, or less \
                           diffusion";
                return Err(Error::new(what(), why));
            }
            let steps = steps.max(1.0);
            self.step(left / steps);
            left = if steps > 1.0 { left - left / steps } else { 0.0 };
        }
        Ok(())
    }

    /// The fastest rate of anything.
    fn fastest(&self) -> f64 {
        let (u, v) = self.state.split_at(self.n * self.n);
        // The wave of two cells is the fastest to decay.
        let diffusion = 8.0 * self.weights[0] * self.exchange[0].max(self.exchange[1]);
        diffusion + self.kinetics.stiffness(largest(u.iter().copied()), largest(v.iter().copied()))
    }

    /// One step of length `h`.
    fn step(&mut self, h: f64) {
        let [mut stage, mut slope, mut sum] = std::mem::take(&mut self.scratch);
        self.slope(&self.state, &mut slope);
        sum.copy_from_slice(&self.state);
        for (along, weight) in [(h / 2.0, h / 6.0), (h / 2.0, h / 3.0), (h, h / 3.0)] {
            for (i, k) in slope.iter().enumerate() {
                stage[i] = self.state[i] + along * k;
                sum[i] += weight * k;
            }
            self.slope(&stage, &mut slope);
        }
        for (sum, k) in sum.iter_mut().zip(&slope) {
            *sum += h / 6.0 * k;
        }
        std::mem::swap(&mut self.state, &mut sum);
        self.scratch = [stage, slope, sum];
    }

    /// ∂/∂t of `state`.
    fn slope(&self, state: &[f64], slope: &mut [f64]) {
        let n = self.n;
        let (u, v) = state.split_at(n * n);
        let (du, dv) = slope.split_at_mut(n * n);
        let [near, far] = self.weights;
        for (y, rows) in self.beside.iter().enumerate() {
            for (x, columns) in self.beside.iter().enumerate() {
                let at = y * n + x;
                let laplacian = |s: &[f64]| {
                    let [a, b, c, d] = rows.map(|row| s[row * n + x]);
                    let [e, f, g, h] = columns.map(|column| s[y * n + column]);
                    near * ((b + c) + (f + g)) + far * ((a + d) + (e + h))
                        - 4.0 * (near + far) * s[at]
                };
                let [reacted_u, reacted_v] = self.kinetics.rates(u[at], v[at]);
                du[at] = self.exchange[0] * laplacian(u) + reacted_u;
                dv[at] = self.exchange[1] * laplacian(v) + reacted_v;
            }
        }
    }
}

#[cfg(test)]
mod tests;
