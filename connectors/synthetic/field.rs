//! Every kind of simulation, behind one door.

use physicnet_stream::{Axis, Error, Grid, Result, Variable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fire, FitzHughNagumo, GrayScott, NavierStokes, Rain, ShallowWater};

/// What is simulated. `docs/simulators.md` has the equations, the schemes and every key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Field {
    /// The vorticity of a forced two-dimensional flow on a torus: channel `vorticity`.
    NavierStokes(NavierStokes),
    /// Rain that grows, decays and drifts over an open domain: channel `precip_rate`, mm h-1.
    Rain(Rain),
    /// FitzHugh and Nagumo's reaction-diffusion in a closed dish: channels `u` and `v`.
    #[serde(rename = "fitzhugh_nagumo")]
    FitzHughNagumo(FitzHughNagumo),
    /// Shallow water after a round dam broke: channel `h`.
    ShallowWater(ShallowWater),
    /// Gray and Scott's reaction-diffusion on a torus: channels `u` and `v`.
    GrayScott(GrayScott),
    /// A fire that runs through fuel in the wind: channels `fuel` and `temperature`, K.
    Fire(Fire),
}

impl Field {
    /// The kind in one word, as in configurations.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NavierStokes(_) => "navier_stokes",
            Self::Rain(_) => "rain",
            Self::FitzHughNagumo(_) => "fitzhugh_nagumo",
            Self::ShallowWater(_) => "shallow_water",
            Self::GrayScott(_) => "gray_scott",
            Self::Fire(_) => "fire",
        }
    }

    /// One of each kind, with its defaults.
    pub fn all() -> [Self; 6] {
        [
            Self::NavierStokes(NavierStokes::default()),
            Self::Rain(Rain::default()),
            Self::FitzHughNagumo(FitzHughNagumo::default()),
            Self::ShallowWater(ShallowWater::default()),
            Self::GrayScott(GrayScott::default()),
            Self::Fire(Fire::default()),
        ]
    }

    /// The grid of every sensor.
    pub fn grid(&self) -> Grid {
        self.physics().grid()
    }

    pub(super) fn physics(&self) -> &dyn Physics {
        match self {
            Self::NavierStokes(field) => field,
            Self::Rain(field) => field,
            Self::FitzHughNagumo(field) => field,
            Self::ShallowWater(field) => field,
            Self::GrayScott(field) => field,
            Self::Fire(field) => field,
        }
    }
}

/// The settings of one kind of simulation.
pub(super) trait Physics {
    /// # Errors
    /// When a setting is out of its range, naming the key.
    fn validate(&self) -> Result<()>;

    /// The grid of the frames. Variables stand in the order of their names, as a store lists them,
    /// or a model trained on a store would not take the frames.
    fn grid(&self) -> Grid;

    /// Whether values below zero have a meaning.
    fn signed(&self) -> bool;

    /// The simulation of `key` at its first frame.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), or when it blows up on the way to its first frame.
    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>>;
}

/// A simulation in progress. `Send`: sensors are simulated on as many threads as there are.
pub(super) trait Simulation: Send {
    /// Goes on to the next frame.
    ///
    /// # Errors
    /// When it blows up, naming the settings.
    fn advance(&mut self) -> Result<()>;

    /// The frame now, f32 `[channel][y][x]`.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    fn render(&mut self) -> Result<Vec<f32>>;
}

/// Whether `[low, high]` is a range within `least` to `most`, and if not, why `key` is refused.
pub(super) fn within(key: &str, [low, high]: [f64; 2], least: f64, most: f64) -> Result<()> {
    let good = least <= low && low <= high && high <= most;
    let why = || format!("[{low}, {high}] is not a range within {least} to {most}");
    if good { Ok(()) } else { Err(Error::new(key, why())) }
}

/// Whether `value` lies within `least` to `most`, and if not, why `key` is refused.
pub(super) fn one(key: &str, value: f64, least: f64, most: f64) -> Result<()> {
    let why = || format!("{value} is not between {least} and {most}");
    if (least..=most).contains(&value) { Ok(()) } else { Err(Error::new(key, why())) }
}

/// The largest magnitude; NaN where there is one, which `f64::max` would pass over.
pub(super) fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, |a, b| if a > b || a.is_nan() { a } else { b })
}

/// The grid of `variables` (names and units) on `size` × `size` pixels of the side `spacing`, the
/// first of which begins at `from`: coordinates are those of the centres.
pub(super) fn square(
    variables: &[[&str; 2]],
    size: usize,
    from: f64,
    spacing: f64,
    units: &str,
) -> Grid {
    let axis = |name: &str| Axis {
        name: name.to_owned(),
        units: units.to_owned(),
        values: (0..size).map(|i| from + (i as f64 + 0.5) * spacing).collect(),
    };
    let variable = |[name, units]: &[&str; 2]| Variable {
        name: (*name).to_owned(),
        units: (*units).to_owned(),
    };
    Grid { variables: variables.iter().map(variable).collect(), y: axis("y"), x: axis("x") }
}
