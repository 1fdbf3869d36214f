//! Rain seen by a radar: a texture and cells that grow, decay and drift in a slowly changing flow.

use std::f64::consts::FRAC_PI_2;

use physicnet_stream::{Axis, Grid, Result, Variable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::climate::{Affine, Climate, Weather};
use super::field::{Physics, Simulation, one, within};
use super::random::Random;
use super::texture::Texture;

/// Cells are born this far outside the frame too, in pixels: they drift in, or reach in.
const MARGIN: f64 = 16.0;
/// A cell lives this many of its time scales before and after its peak: exp(−9) is no rain.
const REACH: f64 = 3.0;

/// Rain rates in mm/h on an open domain, for ever.
///
/// In v = ln(1 + R / 0.1 mm/h) / 2 (clipped to 3.4, dry below 0.25) the field is a thresholded
/// texture, two power-law noises that replace one another, and elongated Gaussian cells, each
/// with its own growth and decay. Everything drifts with a flow that translates, rotates, shears
/// and diverges. Wind, amplitude and number of cells change to a new regime every 240 frames.
/// Lengths are in pixels and times in frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rain {
    /// Rows, 8 to 4096.
    pub height: usize,
    /// Columns, 8 to 4096.
    pub width: usize,
    /// The side of a pixel in km, for the axes.
    pub spacing: f64,
    /// From which speeds each regime draws, pixels a frame.
    pub speed: [f64; 2],
    /// Where rain moves to, in degrees from +x towards +y; drawn for each regime when absent.
    pub direction: Option<f64>,
    /// Standard deviation of the rotation, radians a frame.
    pub rotation: f64,
    /// Standard deviation of the expansion, per frame.
    pub divergence: f64,
    /// Standard deviation of the shear, per frame.
    pub shear: f64,
    /// From which rates a sensor draws how fast its texture changes, radians a frame.
    pub evolution: [f64; 2],
    /// From which counts each regime draws the cells that peak in 38 frames on 96 × 96 pixels.
    pub cells: [f64; 2],
    /// From which time scales cells draw theirs, frames.
    pub lifetime: [f64; 2],
}

impl Default for Rain {
    fn default() -> Self {
        Self {
            height: 96,
            width: 96,
            spacing: 1.0,
            speed: [0.0, 4.5],
            direction: None,
            rotation: 0.008,
            divergence: 0.006,
            shear: 0.004,
            evolution: [0.01, 0.05],
            cells: [3.0, 13.0],
            lifetime: [6.0, 20.0],
        }
    }
}

impl Physics for Rain {
    fn validate(&self) -> Result<()> {
        for (key, pixels) in [("height", self.height), ("width", self.width)] {
            one(key, pixels as f64, 8.0, 4096.0)?;
        }
        one("spacing", self.spacing, 1e-6, 1e6)?;
        one("direction", self.direction.unwrap_or(0.0), -360.0, 360.0)?;
        one("rotation", self.rotation, 0.0, 0.1)?;
        one("divergence", self.divergence, 0.0, 0.1)?;
        one("shear", self.shear, 0.0, 0.1)?;
        within("speed", self.speed, 0.0, 100.0)?;
        within("evolution", self.evolution, 0.0, 1.0)?;
        within("cells", self.cells, 0.0, 1000.0)?;
        within("lifetime", self.lifetime, 0.5, 1000.0)
    }

    fn grid(&self) -> Grid {
        let axis = |name: &str, len: usize| Axis {
            name: name.to_owned(),
            units: "km".to_owned(),
            values: (0..len).map(|i| i as f64 * self.spacing).collect(),
        };
        let variable = Variable { name: "precip_rate".to_owned(), units: "mm h-1".to_owned() };
        let (y, x) = (axis("y", self.height), axis("x", self.width));
        Grid { variables: vec![variable], y, x }
    }

    fn signed(&self) -> bool {
        false
    }

    fn begin(&self, key: &[u64]) -> Result<Box<dyn Simulation>> {
        Ok(Box::new(Sky::new(self, key)?))
    }
}

impl Rain {
    /// How many frames before and after its peak a cell may live.
    fn reach(&self) -> i64 {
        (REACH * self.lifetime[1]).ceil() as i64 + 1
    }
}

/// The sky over one sensor at one frame.
struct Sky {
    config: Rain,
    key: Vec<u64>,
    climate: Climate,
    frame: i64,
    /// How fast one noise replaces the other, radians a frame.
    evolution: f64,
    /// Noise k peaks at the phase k π/2; those on either side of the phase are blended.
    noises: Vec<Noise>,
    cells: Vec<Cell>,
}

/// One noise, and where a pixel's air is or was at the frame of the noise's peak.
struct Noise {
    number: i64,
    back: Affine,
    texture: Option<Texture>,
}

/// One cell, and where a pixel's air is or was at the frame of the cell's peak.
struct Cell {
    back: Affine,
    peak: f64,
    lifetime: f64,
    centre: [f64; 2],
    /// Rows of the matrix that takes an offset from the centre to multiples of the two widths.
    widths: [[f64; 2]; 2],
    height: f64,
}

impl Sky {
    /// The sky of `key` at frame 0, with the cells that live then.
    fn new(config: &Rain, key: &[u64]) -> Result<Self> {
        config.validate()?;
        let keyed = |purpose: u64| [key, &[purpose]].concat();
        let climate = Climate {
            key: keyed(0),
            speed: config.speed,
            direction: config.direction,
            rotation: config.rotation,
            divergence: config.divergence,
            shear: config.shear,
            cells: config.cells,
        };
        let evolution = Random::new(&keyed(1)).between(config.evolution);
        let mut sky = Self {
            config: config.clone(),
            key: key.to_vec(),
            climate,
            frame: 0,
            evolution,
            noises: Vec::new(),
            cells: Vec::new(),
        };
        for peak in -config.reach()..=config.reach() {
            sky.conceive(peak);
        }
        sky.renew();
        Ok(sky)
    }

    /// Where the air of this frame is at the frame `then`, before or after.
    fn carried(&self, then: i64) -> Affine {
        let mut map = Affine::IDENTITY;
        for frame in self.frame..then {
            map = Affine::drift(&self.climate.at(frame), 1.0).after(&map);
        }
        for frame in (then..self.frame).rev() {
            map = Affine::drift(&self.climate.at(frame), -1.0).after(&map);
        }
        map
    }

    /// Adds the cells that peak within the frame `peak`; they depend on nothing that came before.
    fn conceive(&mut self, peak: i64) {
        let mut random = Random::new(&[self.key.as_slice(), &[2, peak as u64]].concat());
        let [height, width] = [self.config.height, self.config.width].map(|n| n as f64);
        let area = |h: f64, w: f64| (h + 2.0 * MARGIN) * (w + 2.0 * MARGIN);
        let mean = self.climate.at(peak).cells / 38.0 * area(height, width) / area(96.0, 96.0);
        for _ in 0..random.poisson(mean) {
            let place =
                |random: &mut Random, n: f64| random.between([-1.0, 1.0]) * (n / 2.0 + MARGIN);
            let centre = [place(&mut random, width), place(&mut random, height)];
            let wide = (random.between([3_f64.ln(), 16_f64.ln()])).exp();
            let narrow = wide * random.between([0.5, 1.0]);
            let (sin, cos) = random.between([0.0, std::f64::consts::PI]).sin_cos();
            self.cells.push(Cell {
                back: self.carried(peak),
                peak: peak as f64 + random.unit(),
                lifetime: random.between(self.config.lifetime),
                centre,
                widths: [[cos / wide, sin / wide], [-sin / narrow, cos / narrow]],
                height: random.between([0.4, 2.2]),
            });
        }
    }

    /// Lets go of the noise that has faded out and brings the one that fades in.
    fn renew(&mut self) {
        let quarter = (self.evolution * self.frame as f64 / FRAC_PI_2).floor() as i64;
        self.noises.retain(|noise| noise.number >= quarter);
        for number in quarter..=quarter + 1 {
            let there = self.noises.iter().any(|noise| noise.number == number);
            // A texture that never changes has no successor.
            if there || (number > 0 && self.evolution == 0.0) {
                continue;
            }
            let peak = if number == 0 { 0.0 } else { number as f64 * FRAC_PI_2 / self.evolution };
            // Beyond some lag a steady flow would have torn the tile to threads.
            let peak = (peak as i64).min(self.frame + 160);
            self.noises.push(Noise { number, back: self.carried(peak), texture: None });
        }
    }

    /// The rain rate now, f32 `[y][x]` in mm/h.
    fn render_in(&mut self, weather: &Weather) -> Vec<f32> {
        let (height, width) = (self.config.height, self.config.width);
        let least = (2 * height.max(width)).max(256);
        for noise in self.noises.iter_mut().filter(|noise| noise.texture.is_none()) {
            let key = [self.key.as_slice(), &[3, noise.number as u64]].concat();
            let mut random = Random::new(&key);
            let steepness = random.between([1.6, 2.6]);
            noise.texture = Some(Texture::new(least, steepness, &mut random));
        }
        let (amplitude, threshold) = (weather.amplitude as f32, weather.threshold as f32);
        let now = self.frame as f64;
        let phase = self.evolution * now;
        let weight = |noise: &Noise| (phase - noise.number as f64 * FRAC_PI_2).cos() as f32;
        let noises: Vec<_> = self
            .noises
            .iter()
            .filter_map(|noise| Some((weight(noise), noise.back, noise.texture.as_ref()?)))
            .collect();
        let cells: Vec<_> = self.cells.iter().filter_map(|cell| cell.now(now)).collect();
        let (left, top) = ((1.0 - width as f64) / 2.0, (1.0 - height as f64) / 2.0);

        let mut rates = Vec::with_capacity(height * width);
        for y in (0..height).map(|row| row as f64 + top) {
            for x in (0..width).map(|column| column as f64 + left) {
                let mut texture = 0.0;
                for (weight, back, tile) in &noises {
                    let [u, v] = back.apply(x, y);
                    texture += weight * tile.at(u, v);
                }
                let grown: f32 = cells.iter().map(|(height, to)| bump(*height, to, x, y)).sum();
                let v = amplitude * (texture - threshold).max(0.0)
                    + grown * (1.0 + 0.35 * texture).clamp(0.0, 2.0);
                let v = v.min(3.4);
                rates.push(if v < 0.25 { 0.0 } else { 0.1 * ((2.0 * v).exp() - 1.0) });
            }
        }
        rates
    }
}

impl Simulation for Sky {
    fn advance(&mut self) -> Result<()> {
        let back = Affine::drift(&self.climate.at(self.frame), -1.0);
        self.frame += 1;
        for map in self.noises.iter_mut().map(|noise| &mut noise.back) {
            *map = map.after(&back);
        }
        for map in self.cells.iter_mut().map(|cell| &mut cell.back) {
            *map = map.after(&back);
        }
        let now = self.frame as f64;
        self.cells.retain(|cell| now <= cell.peak + REACH * cell.lifetime);
        self.conceive(self.frame + self.config.reach());
        self.renew();
        Ok(())
    }

    fn render(&mut self) -> Result<Vec<f32>> {
        let weather = self.climate.at(self.frame);
        Ok(self.render_in(&weather))
    }
}

impl Cell {
    /// Its height now and the map from the frame to multiples of its widths.
    fn now(&self, now: f64) -> Option<(f32, Affine)> {
        let age = (now - self.peak) / self.lifetime;
        let height = self.height * (-age * age).exp();
        let ([[a, b], [c, d]], [x, y]) = (self.widths, self.centre);
        let to = Affine([a, b, -a * x - b * y, c, d, -c * x - d * y]).after(&self.back);
        (age.abs() <= REACH).then_some((height as f32, to))
    }
}

fn bump(height: f32, to: &Affine, x: f64, y: f64) -> f32 {
    let [u, v] = to.apply(x, y);
    let square = (u * u + v * v) as f32;
    // Beyond five widths there is nothing worth an exponential.
    if square < 25.0 { height * (-0.5 * square).exp() } else { 0.0 }
}

#[cfg(test)]
mod tests;
