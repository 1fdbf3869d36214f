//! Gray and Scott's fed and killed reaction on a torus: spots, worms, mazes and gliders.

use physicnet_stream::{Grid, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Physics, Simulation, one, square};
use super::medium::{Edge, Kinetics, Medium};
use super::random::Random;

/// The torus is [−1, 1]².
const SIDE: f64 = 2.0;

/// ∂u/∂t = Du ∆u − u v² + f (1 − u) and ∂v/∂t = Dv ∆v + u v² − (f + k) v on the torus [−1, 1]²,
/// from round spots of v in u = 1.
///
/// The equations are Pearson's (1993, Science 261:189), domain, diffusion and the interval those
/// of The Well (Ohana et al. 2024, arXiv:2412.00568). Feed and kill rate choose the pattern; the
/// defaults are gliders, which never come to rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrayScott {
    /// Cells along a side, 8 to 1024.
    pub size: usize,
    /// Du and Dv.
    pub diffusion: [f64; 2],
    /// The feed rate f.
    pub feed: f64,
    /// The kill rate k.
    pub kill: f64,
    /// Simulated time between frames.
    pub interval: f64,
    /// Simulated time before the first frame.
    pub warm_up: f64,
}

impl Default for GrayScott {
    fn default() -> Self {
        let (diffusion, feed, kill) = ([2e-5, 1e-5], 0.014, 0.054);
        Self { size: 128, diffusion, feed, kill, interval: 10.0, warm_up: 0.0 }
    }
}

impl Physics for GrayScott {
    fn validate(&self) -> Result<()> {
        let Self { size, diffusion, feed, kill, interval, warm_up } = self;
        one("size", *size as f64, 8.0, 1024.0)?;
        diffusion.iter().try_for_each(|d| one("diffusion", *d, 0.0, 1e-2))?;
        one("feed", *feed, 0.0, 1.0)?;
        one("kill", *kill, 0.0, 1.0)?;
        one("interval", *interval, 1e-6, 1e5)?;
        one("warm_up", *warm_up, 0.0, 1e7)
    }

    fn grid(&self) -> Grid {
        square(&[["u", "1"], ["v", "1"]], self.size, -SIDE / 2.0, SIDE / self.size as f64, "1")
    }

    fn signed(&self) -> bool {
        false
    }

    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>> {
        self.validate()?;
        let mut tank = Tank::new(self, spots(self.size, &mut Random::new(key)));
        tank.go_on(self.warm_up)?;
        Ok(Box::new(tank))
    }
}

/// u and v of `size` × `size` cells: twenty to forty Gaussian spots of v, and u what is left of 1.
fn spots(size: usize, random: &mut Random) -> Vec<f64> {
    let spacing = SIDE / size as f64;
    let mut v = vec![0.0_f64; size * size];
    for _ in 0..random.between([20.0, 41.0]) as usize {
        let centre = [0; 2].map(|_| random.between([0.0, SIDE]));
        let (width, height) = (random.between([0.03, 0.09]), random.between([0.5, 1.0]));
        // Around the torus the nearer way.
        let from = |i: usize, centre: f64| {
            let away = ((i as f64 + 0.5) * spacing - centre).abs();
            away.min(SIDE - away) / width
        };
        for (at, v) in v.iter_mut().enumerate() {
            let (dy, dx) = (from(at / size, centre[0]), from(at % size, centre[1]));
            *v = v.max(height * (-0.5 * (dy * dy + dx * dx)).exp());
        }
    }
    v.iter().map(|v| 1.0 - v).chain(v.iter().copied()).collect()
}

/// The reaction.
struct Feeding {
    feed: f64,
    kill: f64,
}

impl Kinetics for Feeding {
    fn rates(&self, u: f64, v: f64) -> [f64; 2] {
        let reacted = u * v * v;
        [self.feed * (1.0 - u) - reacted, reacted - (self.feed + self.kill) * v]
    }

    fn stiffness(&self, u: f64, v: f64) -> f64 {
        v * v + 2.0 * u * v + self.feed + self.kill
    }
}

/// A tank in progress.
struct Tank {
    config: GrayScott,
    medium: Medium<Feeding>,
}

impl Tank {
    fn new(config: &GrayScott, state: Vec<f64>) -> Self {
        let feeding = Feeding { feed: config.feed, kill: config.kill };
        let spacing = SIDE / config.size as f64;
        let medium = Medium::new(feeding, Edge::Periodic, config.diffusion, spacing, state);
        Self { config: config.clone(), medium }
    }

    fn go_on(&mut self, time: f64) -> Result<()> {
        let GrayScott { size, diffusion, feed, kill, .. } = &self.config;
        let what = || {
            format!(
                "gray_scott with size {size}, diffusion {diffusion:?}, feed {feed}, kill {kill}"
            )
        };
        self.medium.march(time, what)
    }
}

impl Simulation for Tank {
    fn advance(&mut self) -> Result<()> {
        self.go_on(self.config.interval)
    }

    fn render(&mut self) -> Result<Vec<f32>> {
        Ok(self.medium.state().iter().map(|value| *value as f32).collect())
    }
}

#[cfg(test)]
mod tests;
