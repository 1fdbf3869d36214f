//! Two-dimensional turbulence: the vorticity of an incompressible flow on the unit torus.

use std::f64::consts::TAU;

use physicnet_stream::{Axis, Error, Grid, Result, Variable};
use rustfft::num_complex::Complex64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Physics, Simulation};
use super::fourier::Fourier;
use super::random::Random;

/// The largest wave number times speed times step: Runge and Kutta's limit is 2.8, and the flow
/// may speed up within a frame.
const COURANT: f64 = 1.8;
/// No step is longer than this, in time units, however slow the flow.
const LONGEST: f64 = 1.0 / 32.0;

/// ∂ω/∂t + u·∇ω = ν ∆ω − drag ω + a (sin 2π(x+y) + cos 2π(x+y)) on the unit torus, ∇·u = 0.
///
/// The benchmark of neural operators (Li et al. 2021, arXiv:2010.08895). Starts from a Gaussian
/// random field with the covariance τ^(2α−2) (−∆ + τ²)^−α, α = 2.5, τ = 7. Vorticity has no unit
/// here: lengths are in sides of the torus, times in the units of `interval`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NavierStokes {
    /// Pixels along a side, 8 to 1024.
    pub size: usize,
    /// Viscosity ν.
    pub viscosity: f64,
    /// Simulated time between frames.
    pub interval: f64,
    /// Amplitude a of the forcing.
    pub forcing: f64,
    /// Linear drag, in 1/time: what keeps a stream that never ends from gathering speed.
    pub drag: f64,
    /// Simulated time before the first frame.
    pub warm_up: f64,
}

impl Default for NavierStokes {
    fn default() -> Self {
        Self { size: 64, viscosity: 1e-4, interval: 0.5, forcing: 0.1, drag: 0.0, warm_up: 0.0 }
    }
}

impl Physics for NavierStokes {
    fn validate(&self) -> Result<()> {
        let Self { size, viscosity, interval, forcing, drag, warm_up } = *self;
        if !(8..=1024).contains(&size) {
            return Err(Error::new("size", format!("{size} is not between 8 and 1024 pixels")));
        }
        let least_zero = |value: f64| value.is_finite() && value >= 0.0;
        let bad = [
            ("viscosity", viscosity, least_zero(viscosity)),
            ("interval", interval, least_zero(interval) && interval > 0.0),
            ("forcing", forcing, forcing.is_finite()),
            ("drag", drag, least_zero(drag)),
            ("warm_up", warm_up, least_zero(warm_up)),
        ];
        match bad.into_iter().find(|(.., good)| !good) {
            Some((key, value, _)) => Err(Error::new(key, format!("{value} is out of range"))),
            None => Ok(()),
        }
    }

    fn grid(&self) -> Grid {
        let axis = |name: &str| Axis {
            name: name.to_owned(),
            units: "1".to_owned(),
            values: (0..self.size).map(|i| i as f64 / self.size as f64).collect(),
        };
        let variable = Variable { name: "vorticity".to_owned(), units: "1".to_owned() };
        Grid { variables: vec![variable], y: axis("y"), x: axis("x") }
    }

    fn signed(&self) -> bool {
        true
    }

    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>> {
        Ok(Box::new(Flow::new(self, key)?))
    }
}

/// A flow in progress: the Fourier coefficients of its vorticity.
///
/// Pseudo-spectral with the 2/3 rule; the linear terms are integrated exactly and advection by
/// the classical fourth-order Runge–Kutta rule in between (integrating factor), with as many
/// steps a frame as the speed of the flow asks for. Fields are real, so half the wave numbers
/// (kx ≥ 0) suffice, and two real fields travel as one complex transform.
struct Flow {
    config: NavierStokes,
    keep: usize,
    fourier: Fourier,
    plane: Vec<Complex64>,
    /// Vorticity, `[kx 0..=keep][ky 0..=keep, -keep..0]`.
    vorticity: Vec<Complex64>,
    modes: Vec<Mode>,
}

/// What a pair of wave numbers means, times 2π.
#[derive(Clone, Copy)]
struct Mode {
    /// Its place, and that of its mirror image −k, in the plane.
    at: [usize; 2],
    x: f64,
    y: f64,
    /// (kx² + ky²), and one over it (0 for the mean).
    square: f64,
    over: f64,
}

impl Flow {
    /// The flow of `key` at the end of its warm-up.
    fn new(config: &NavierStokes, key: &[u64]) -> Result<Self> {
        config.validate()?;
        let mut flow = Self::at_rest(config);
        let (alpha, tau) = (2.5_f64, 7.0_f64);
        let mut random = Random::new(key);
        for (mode, value) in flow.modes.iter().zip(&mut flow.vorticity) {
            let [re, im] = random.normals();
            // The mean of a vorticity on a torus is zero, and kx = 0 holds k and −k both.
            if mode.x > 0.0 || mode.y > 0.0 {
                let spread = tau.powf(alpha - 1.0) * (mode.square + tau * tau).powf(-alpha / 2.0);
                *value = Complex64::new(re, im) * spread;
            }
        }
        flow.mirror();
        if config.warm_up > 0.0 {
            flow.integrate(config.warm_up)?;
        }
        Ok(flow)
    }

    fn at_rest(config: &NavierStokes) -> Self {
        let n = config.size;
        // Products of two waves up to `keep` must not fold back onto them: 3 keep < n.
        let keep = (n - 1) / 3;
        let (span, signed) = (2 * keep + 1, keep as i64);
        let wrap = |k: i64| k.rem_euclid(n as i64) as usize;
        let modes: Vec<Mode> = (0..=signed)
            .flat_map(|kx| (0..=signed).chain(-signed..0).map(move |ky| (kx, ky)))
            .map(|(kx, ky)| {
                let (x, y) = (TAU * kx as f64, TAU * ky as f64);
                let square = x * x + y * y;
                let over = if square > 0.0 { 1.0 / square } else { 0.0 };
                let at = [wrap(kx) * n + wrap(ky), wrap(-kx) * n + wrap(-ky)];
                Mode { at, x, y, square, over }
            })
            .collect();
        Self {
            config: config.clone(),
            keep,
            fourier: Fourier::new(n, keep),
            plane: vec![Complex64::default(); n * n],
            vorticity: vec![Complex64::default(); (keep + 1) * span],
            modes,
        }
    }

    /// Makes kx = 0 hold conjugates at k and −k.
    fn mirror(&mut self) {
        for ky in 1..=self.keep {
            self.vorticity[2 * self.keep + 1 - ky] = self.vorticity[ky].conj();
        }
    }

    fn integrate(&mut self, time: f64) -> Result<()> {
        // Long stretches are cut, so that the step follows the speed of the flow.
        let pieces = (time / 0.5).ceil().max(1.0);
        for _ in 0..pieces as u64 {
            let piece = time / pieces;
            let fastest = self.speed() * TAU * self.keep as f64;
            let steps = (piece / LONGEST).max(piece * fastest / COURANT).ceil();
            if steps < 1e6 {
                self.march(piece / steps, steps as usize);
            }
            if steps >= 1e6 || !self.vorticity.iter().all(|value| value.is_finite()) {
                return Err(self.blown());
            }
        }
        Ok(())
    }

    fn blown(&self) -> Error {
        let NavierStokes { size, viscosity, forcing, interval, .. } = self.config;
        Error::new(
            format!(
                "navier_stokes with size {size}, viscosity {viscosity}, forcing {forcing}, \
                 interval {interval}"
            ),
            "the flow blew up: take a larger viscosity or drag, or a weaker forcing",
        )
    }

    /// `steps` steps of length `h`.
    fn march(&mut self, h: f64, steps: usize) {
        let NavierStokes { viscosity, drag, .. } = self.config;
        let decay: Vec<f64> =
            self.modes.iter().map(|k| (-0.5 * h * (viscosity * k.square + drag)).exp()).collect();
        let zero = vec![Complex64::default(); self.vorticity.len()];
        let (mut stage, mut slope, mut sum) = (zero.clone(), zero.clone(), zero);
        for _ in 0..steps {
            let start = std::mem::take(&mut self.vorticity);
            self.push(&start, &mut slope);
            for (i, &e) in decay.iter().enumerate() {
                stage[i] = (start[i] + slope[i] * (h / 2.0)) * e;
                sum[i] = (start[i] + slope[i] * (h / 6.0)) * (e * e);
            }
            self.push(&stage, &mut slope);
            for (i, &e) in decay.iter().enumerate() {
                stage[i] = start[i] * e + slope[i] * (h / 2.0);
                sum[i] += slope[i] * (e * h / 3.0);
            }
            self.push(&stage, &mut slope);
            for (i, &e) in decay.iter().enumerate() {
                stage[i] = (start[i] * e + slope[i] * h) * e;
                sum[i] += slope[i] * (e * h / 3.0);
            }
            self.push(&stage, &mut slope);
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += slope[i] * (h / 6.0);
            }
            self.vorticity = start;
            std::mem::swap(&mut self.vorticity, &mut sum);
        }
    }

    /// The velocity u + iv of `vorticity`, into the plane: û = i ky ω/k², v̂ = −i kx ω/k².
    fn velocity(&mut self, vorticity: &[Complex64]) {
        self.plane.fill(Complex64::default());
        for (mode, &value) in self.modes.iter().zip(vorticity) {
            let turn = Complex64::new(mode.x, mode.y) * mode.over;
            let [at, mirrored] = mode.at;
            self.plane[mirrored] = -(value.conj() * turn);
            self.plane[at] = value * turn;
        }
        self.fourier.inverse(&mut self.plane);
    }

    /// The largest |u| + |v|.
    fn speed(&mut self) -> f64 {
        let now = std::mem::take(&mut self.vorticity);
        self.velocity(&now);
        self.vorticity = now;
        self.plane.iter().map(|w| w.re.abs() + w.im.abs()).fold(0.0, f64::max)
    }

    /// What advection and forcing do to `vorticity`: −u·∇ω + f.
    ///
    /// In Basdevant's form (1983) u·∇ω = (∂xx − ∂yy)(uv) + ∂xy(v² − u²), which takes two real
    /// transforms each way, and so one complex one each way.
    fn push(&mut self, vorticity: &[Complex64], slope: &mut [Complex64]) {
        self.velocity(vorticity);
        for w in &mut self.plane {
            *w = Complex64::new(w.re * w.im, (w.im - w.re) * (w.im + w.re));
        }
        self.fourier.forward(&mut self.plane);
        let scale = 0.5 / self.plane.len() as f64;
        for (mode, slope) in self.modes.iter().zip(slope.iter_mut()) {
            let (here, there) = (self.plane[mode.at[0]], self.plane[mode.at[1]].conj());
            let (product, difference) = (here + there, here - there);
            let difference = Complex64::new(difference.im, -difference.re);
            let (x, y) = (mode.x, mode.y);
            *slope = (product * (x * x - y * y) + difference * (x * y)) * scale;
        }
        // a (sin θ + cos θ) = Re a (1 − i) exp(iθ) at kx = ky = 1.
        let forced = 2 * self.keep + 2;
        slope[forced] += Complex64::new(0.5, -0.5) * self.config.forcing;
    }
}

impl Simulation for Flow {
    fn advance(&mut self) -> Result<()> {
        self.integrate(self.config.interval)
    }

    fn render(&mut self) -> Result<Vec<f32>> {
        self.plane.fill(Complex64::default());
        for (mode, &value) in self.modes.iter().zip(&self.vorticity) {
            let [at, mirrored] = mode.at;
            self.plane[mirrored] = value.conj();
            self.plane[at] = value;
        }
        self.fourier.inverse(&mut self.plane);
        let values: Vec<f32> = self.plane.iter().map(|value| value.re as f32).collect();
        if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(self.blown()) }
    }
}

#[cfg(test)]
mod tests;
