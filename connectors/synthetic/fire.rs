//! A fire that runs through fuel in the wind.

use physicnet_stream::{Error, Grid, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Physics, Simulation, one, square, within};
use super::limiter::monotonised;
use super::random::Random;
use super::texture::Texture;

/// The radius of what is lit at the start, in the thickness of the hot layer ahead of a front: a
/// smaller fire loses more heat to its sides than it makes.
const SPARK: f64 = 4.0;

/// ∂T/∂t + w·∇T = D ∆T + (Q/τ) F [T ≥ Ti] − (T − Ta)/τc and ∂F/∂t = −(F/τ) [T ≥ Ti]: temperature T
/// in kelvin, fuel F as a share of the heaviest load, on an open square, from sparks in fuel whose
/// load varies from place to place.
///
/// The advection-diffusion-reaction model of wildfires (Asensio and Ferragut 2002; Mandel et al.
/// 2008, doi:10.1016/j.matcom.2008.03.015) with the ignition temperature that is usual in it and,
/// above that, fuel that burns at a constant rate: then the speed of a straight front has a closed
/// form, √(D/τ (Q F/(Ti − Ta) − 1)) without wind and cooling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fire {
    /// Cells along a side, 8 to 1024.
    pub size: usize,
    /// The side of a cell in m.
    pub spacing: f64,
    /// From which speeds of the wind w, as it carries heat, a sensor draws its own, m/s.
    pub wind: [f64; 2],
    /// Where the wind blows to, in degrees from +x towards +y; drawn for each sensor when absent.
    pub direction: Option<f64>,
    /// The least and the largest load of fuel, up to 1; below 0.3 or so nothing carries a fire.
    pub fuel: [f64; 2],
    /// How many sparks there are at the start.
    pub sparks: usize,
    /// How heat spreads, D, in m²/s: radiation and turbulence more than conduction.
    pub diffusivity: f64,
    /// How much all of the heaviest load heats, Q, in K.
    pub heat: f64,
    /// The temperature Ti above which fuel burns, K.
    pub ignition: f64,
    /// The temperature Ta of the air, K.
    pub ambient: f64,
    /// In which time τ fuel burns down to 1 / e, s.
    pub burning: f64,
    /// In which time τc heat is lost to the air, down to 1 / e, s.
    pub cooling: f64,
    /// Simulated time between frames, s.
    pub interval: f64,
}

impl Default for Fire {
    fn default() -> Self {
        Self {
            size: 128,
            spacing: 2.0,
            wind: [0.0, 0.3],
            direction: None,
            fuel: [0.4, 1.0],
            sparks: 1,
            diffusivity: 2.0,
            heat: 1200.0,
            ignition: 550.0,
            ambient: 300.0,
            burning: 30.0,
            cooling: 120.0,
            interval: 10.0,
        }
    }
}

impl Physics for Fire {
    fn validate(&self) -> Result<()> {
        one("size", self.size as f64, 8.0, 1024.0)?;
        one("spacing", self.spacing, 1e-3, 1e3)?;
        within("wind", self.wind, 0.0, 100.0)?;
        one("direction", self.direction.unwrap_or(0.0), -360.0, 360.0)?;
        within("fuel", self.fuel, 0.0, 1.0)?;
        one("sparks", self.sparks as f64, 0.0, 1000.0)?;
        one("diffusivity", self.diffusivity, 1e-6, 1e6)?;
        one("heat", self.heat, 0.0, 1e5)?;
        one("ambient", self.ambient, 0.0, 1e4)?;
        one("ignition", self.ignition, self.ambient + 1.0, 1e5)?;
        one("burning", self.burning, 1e-3, 1e6)?;
        one("cooling", self.cooling, 1e-3, 1e9)?;
        one("interval", self.interval, 1e-3, 1e6)
    }

    fn grid(&self) -> Grid {
        square(&[["fuel", "1"], ["temperature", "K"]], self.size, 0.0, self.spacing, "m")
    }

    fn signed(&self) -> bool {
        false
    }

    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>> {
        self.validate()?;
        let mut random = Random::new(key);
        let speed = random.between(self.wind);
        let drawn = random.between([0.0, 360.0]);
        let (sin, cos) = self.direction.unwrap_or(drawn).to_radians().sin_cos();
        let n = self.size;
        let mut land = Land::cold(self, [n, n], [speed * cos, speed * sin], self.fuel[1]);

        let [thin, thick] = self.fuel;
        let texture = Texture::new(n, 1.6, &mut random);
        for (at, fuel) in land.fuel.iter_mut().enumerate() {
            let rough = f64::from(texture.at((at % n) as f64, (at / n) as f64));
            *fuel = thin + (thick - thin) * 0.5 * (1.0 + rough.tanh());
        }
        let radius = SPARK * (self.diffusivity * self.burning).sqrt() / self.spacing;
        for _ in 0..self.sparks {
            // Not at the edge, where half of it would be lost.
            let [x, y] = [0; 2].map(|_| random.between([0.2, 0.8]) * n as f64);
            for (at, rise) in land.rise.iter_mut().enumerate() {
                let away = ((at % n) as f64 + 0.5 - x).hypot((at / n) as f64 + 0.5 - y);
                if away <= radius.max(1.0) {
                    *rise = self.heat;
                }
            }
        }
        Ok(Box::new(land))
    }
}

/// A burning land in progress.
///
/// Finite volumes: heat is carried by the wind through upwind values of cells that are linear
/// within, with monotonised slopes, and spreads by central differences; in time the second-order
/// rule of Shu and Osher (1988). No temperature falls below the air's, no fuel below nothing, and
/// but for cooling and the edges heat and fuel together are conserved.
struct Land {
    config: Fire,
    /// Rows and columns.
    shape: [usize; 2],
    /// The wind along x and y, m/s.
    wind: [f64; 2],
    /// How much warmer than the air it is, K, `[y][x]`.
    rise: Vec<f64>,
    /// `[y][x]`.
    fuel: Vec<f64>,
}

impl Land {
    /// A land as cold as the air, with the same load everywhere.
    fn cold(config: &Fire, shape: [usize; 2], wind: [f64; 2], load: f64) -> Self {
        let cells = shape[0] * shape[1];
        let (rise, fuel) = (vec![0.0; cells], vec![load; cells]);
        Self { config: config.clone(), shape, wind, rise, fuel }
    }

    /// The sum of all rates: steps up to one over it keep heat and fuel positive.
    fn fastest(&self) -> f64 {
        let Fire { spacing, diffusivity, burning, cooling, .. } = self.config;
        // Twice: the value at a side may be twice that of the cell.
        let carried = 2.0 * (self.wind[0].abs() + self.wind[1].abs()) / spacing;
        carried + 4.0 * diffusivity / (spacing * spacing) + 1.0 / burning + 1.0 / cooling
    }

    fn go_on(&mut self, time: f64) -> Result<()> {
        let steps = (time * self.fastest()).ceil();
        if steps.is_nan() || steps > 1e6 {
            let Fire { spacing, diffusivity, interval, .. } = self.config;
            let what = format!(
                "fire with spacing {spacing}, diffusivity {diffusivity}, interval {interval}"
            );
            return Err(Error::new(what, "a frame takes too many steps: take a larger spacing"));
        }
        for _ in 0..steps as u64 {
            self.step(time / steps);
        }
        Ok(())
    }

    /// One step of length `step`: the mean of the land now and of that two Euler steps on.
    fn step(&mut self, step: f64) {
        let (rise, fuel) = self.euler(&self.rise, &self.fuel, step);
        let (rise, fuel) = self.euler(&rise, &fuel, step);
        let mean = |now: &mut [f64], then: &[f64]| {
            now.iter_mut().zip(then).for_each(|(now, then)| *now = 0.5 * (*now + then));
        };
        mean(&mut self.rise, &rise);
        mean(&mut self.fuel, &fuel);
    }

    fn euler(&self, rise: &[f64], fuel: &[f64], step: f64) -> (Vec<f64>, Vec<f64>) {
        let Fire { heat, ignition, ambient, burning, cooling, .. } = self.config;
        let (mut warmer, mut less) = (rise.to_vec(), fuel.to_vec());
        self.carry(rise, step, &mut warmer);
        for (at, now) in rise.iter().enumerate() {
            let burnt = if *now >= ignition - ambient { step / burning * fuel[at] } else { 0.0 };
            less[at] -= burnt;
            warmer[at] += heat * burnt - step / cooling * now;
        }
        (warmer, less)
    }

    /// Adds to `after` the heat that crosses the sides of all cells in the time `step`.
    fn carry(&self, rise: &[f64], step: f64, after: &mut [f64]) {
        let Fire { spacing, diffusivity, .. } = self.config;
        let ([height, width], spread) = (self.shape, step * diffusivity / (spacing * spacing));
        // Along x the lines are rows, along y columns: how many, how far apart, how far their cells.
        let lines = [[height, width, width, 1], [width, height, 1, width]];
        for (wind, [count, n, line, place]) in self.wind.into_iter().zip(lines) {
            let along = step * wind / spacing;
            for start in (0..count).map(|i| i * line) {
                let at = |i: usize| rise[start + i * place];
                let slope = |i: usize| {
                    monotonised(at(i) - at(i.max(1) - 1), at((i + 1).min(n - 1)) - at(i))
                };
                // Over the edge come neither heat nor cold but what the wind takes away.
                for side in 0..=n {
                    let carried = match (along > 0.0, side) {
                        (true, 0) => 0.0,
                        (true, _) => along * (at(side - 1) + 0.5 * slope(side - 1)),
                        (false, _) if side == n => 0.0,
                        (false, _) => along * (at(side) - 0.5 * slope(side)),
                    };
                    let inside = (1..n).contains(&side);
                    let spread = if inside { spread * (at(side - 1) - at(side)) } else { 0.0 };
                    if side > 0 {
                        after[start + (side - 1) * place] -= carried + spread;
                    }
                    if side < n {
                        after[start + side * place] += carried + spread;
                    }
                }
            }
        }
    }
}

impl Simulation for Land {
    fn advance(&mut self) -> Result<()> {
        self.go_on(self.config.interval)
    }

    fn render(&mut self) -> Result<Vec<f32>> {
        let fuel = self.fuel.iter().map(|fuel| *fuel as f32);
        Ok(fuel.chain(self.rise.iter().map(|rise| (self.config.ambient + rise) as f32)).collect())
    }
}

#[cfg(test)]
mod tests;
