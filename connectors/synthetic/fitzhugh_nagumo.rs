//! FitzHugh and Nagumo's activator and inhibitor in a closed dish, from noise to Turing's patterns.

use physicnet_stream::{Grid, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Physics, Simulation, one, square};
use super::medium::{Edge, Kinetics, Medium};
use super::random::Random;

/// The dish is [−1, 1]².
const SIDE: f64 = 2.0;

/// ∂u/∂t = Du ∆u + u − u³ − k − v and ∂v/∂t = Dv ∆v + u − v on [−1, 1]² whose edges let nothing
/// pass, from standard normal noise in every cell.
///
/// The two-dimensional diffusion-reaction of PDEBench (Takamoto et al. 2022, arXiv:2210.07182,
/// after Klaasen and Troy 1984), whose parameters are the defaults: 101 frames are its t = 0 to 5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FitzHughNagumo {
    /// Cells along a side, 8 to 1024.
    pub size: usize,
    /// Du and Dv.
    pub diffusion: [f64; 2],
    /// The constant k.
    pub k: f64,
    /// Simulated time between frames.
    pub interval: f64,
    /// Simulated time before the first frame.
    pub warm_up: f64,
}

impl Default for FitzHughNagumo {
    fn default() -> Self {
        Self { size: 128, diffusion: [1e-3, 5e-3], k: 5e-3, interval: 0.05, warm_up: 0.0 }
    }
}

impl Physics for FitzHughNagumo {
    fn validate(&self) -> Result<()> {
        let Self { size, diffusion, k, interval, warm_up } = self;
        one("size", *size as f64, 8.0, 1024.0)?;
        diffusion.iter().try_for_each(|d| one("diffusion", *d, 0.0, 1.0))?;
        one("k", *k, -1.0, 1.0)?;
        one("interval", *interval, 1e-6, 1e3)?;
        one("warm_up", *warm_up, 0.0, 1e6)
    }

    fn grid(&self) -> Grid {
        square(&[["u", "1"], ["v", "1"]], self.size, -SIDE / 2.0, SIDE / self.size as f64, "1")
    }

    fn signed(&self) -> bool {
        true
    }

    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>> {
        self.validate()?;
        let mut random = Random::new(key);
        // A pair for each cell: both species come from one draw.
        let noise: Vec<[f64; 2]> = (0..self.size * self.size).map(|_| random.normals()).collect();
        let state = (0..2).flat_map(|s| noise.iter().map(move |pair| pair[s])).collect();
        let mut dish = Dish::new(self, state);
        dish.go_on(self.warm_up)?;
        Ok(Box::new(dish))
    }
}

/// The reaction.
struct Neuron {
    k: f64,
}

impl Kinetics for Neuron {
    fn rates(&self, u: f64, v: f64) -> [f64; 2] {
        [u - u * u * u - self.k - v, u - v]
    }

    fn stiffness(&self, u: f64, _v: f64) -> f64 {
        // Below 1 the bound would not hold as u goes on growing towards its rest at ±1.
        let u = u.max(1.0);
        3.0 * u * u
    }
}

/// A dish in progress.
struct Dish {
    config: FitzHughNagumo,
    medium: Medium<Neuron>,
}

impl Dish {
    fn new(config: &FitzHughNagumo, state: Vec<f64>) -> Self {
        let (neuron, spacing) = (Neuron { k: config.k }, SIDE / config.size as f64);
        let medium = Medium::new(neuron, Edge::Closed, config.diffusion, spacing, state);
        Self { config: config.clone(), medium }
    }

    fn go_on(&mut self, time: f64) -> Result<()> {
        let FitzHughNagumo { size, diffusion, k, .. } = &self.config;
        let what = || format!("fitzhugh_nagumo with size {size}, diffusion {diffusion:?}, k {k}");
        self.medium.march(time, what)
    }
}

impl Simulation for Dish {
    fn advance(&mut self) -> Result<()> {
        self.go_on(self.config.interval)
    }

    fn render(&mut self) -> Result<Vec<f32>> {
        Ok(self.medium.state().iter().map(|value| *value as f32).collect())
    }
}

#[cfg(test)]
mod tests;
