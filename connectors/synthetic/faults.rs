//! What goes wrong between a simulated sensor and its receiver.

use std::collections::BTreeMap;
use std::ops::Range;

use physicnet_stream::{Error, Grid, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::random::Random;

/// The faults of every sensor; by default none.
///
/// What befalls a frame depends on the seed, the sensor and the frame alone: a fault is the same in
/// a replay, and stays where it is when another one is added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The standard deviation of normal noise in every pixel, by variable, in its units. What
    /// cannot be negative stays at least 0.
    pub noise: BTreeMap<String, f64>,
    /// The share of frames in which a block is missing: an eighth to a half of the height, and of
    /// the width.
    pub dropouts: f64,
    /// The share of frames in which every fourth to sixteenth row is missing.
    pub stripes: f64,
    /// The share of frames in which a block of such sides is stuck at twice the largest magnitude of
    /// the frame, and says so as if it were measured.
    pub stuck: f64,
    /// The share of frames in which every fourth to sixteenth row is twice the frame's standard
    /// deviation too high.
    pub streaks: f64,
    /// The share of frames that come late, after newer ones.
    pub late: f64,
    /// The share of frames that come again as they were.
    pub duplicate: f64,
    /// The share of frames that come without their lower half at first, and again as a whole.
    pub corrected: f64,
    /// After how many newer frames such a frame comes, or comes again, at most.
    pub delay: u64,
}

impl Default for Faults {
    fn default() -> Self {
        let [dropouts, stripes, stuck, streaks, late, duplicate, corrected] = [0.0; 7];
        let noise = BTreeMap::new();
        Self { noise, dropouts, stripes, stuck, streaks, late, duplicate, corrected, delay: 2 }
    }
}

/// When the whole of a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// When it should.
    Prompt,
    /// Not before this many newer frames.
    Late(u64),
    /// When it should, and again after this many newer frames.
    Again(u64),
    /// A part of it when it should, and the whole after this many newer frames.
    Corrected(u64),
}

impl Course {
    /// Behind how many newer frames something comes, if it does.
    pub(super) fn behind(self) -> Option<u64> {
        match self {
            Self::Prompt => None,
            Self::Late(delay) | Self::Again(delay) | Self::Corrected(delay) => Some(delay),
        }
    }
}

/// Draws that must have nothing to do with one another.
#[derive(Clone, Copy)]
enum Draw {
    Course,
    Dropout,
    Stripes,
    Noise,
    Stuck,
    Streaks,
}

impl Faults {
    /// Checks every setting against the grid of the sensors.
    ///
    /// # Errors
    /// When one is out of its range or names no variable, naming the key.
    pub(super) fn validate(&self, grid: &Grid) -> Result<()> {
        for (name, spread) in &self.noise {
            let names: Vec<&str> = grid.variables.iter().map(|v| v.name.as_str()).collect();
            if !names.contains(&name.as_str()) {
                let why = format!("there is no such variable; there are {}", names.join(", "));
                return Err(Error::new(format!("noise.{name}"), why));
            }
            if !(spread.is_finite() && *spread >= 0.0) {
                let why = format!("{spread} is no standard deviation");
                return Err(Error::new(format!("noise.{name}"), why));
            }
        }
        let of_pixels = [
            ("dropouts", self.dropouts),
            ("stripes", self.stripes),
            ("stuck", self.stuck),
            ("streaks", self.streaks),
        ];
        for (key, share) in of_pixels.into_iter().chain(self.of_order()) {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::new(key, format!("{share} is no share of the frames, 0 to 1")));
            }
        }
        let sum: f64 = self.of_order().iter().map(|(_, share)| share).sum();
        if sum > 1.0 {
            let why = "with `duplicate` and `corrected` more than all frames: one befalls a frame";
            return Err(Error::new("late", why));
        }
        if !(1..=1000).contains(&self.delay) {
            let why = format!("{} is not between 1 and 1000 frames", self.delay);
            return Err(Error::new("delay", why));
        }
        Ok(())
    }

    /// The shares of frames that do not come once and in order, by their keys.
    pub fn of_order(&self) -> [(&'static str, f64); 3] {
        [("late", self.late), ("duplicate", self.duplicate), ("corrected", self.corrected)]
    }

    /// When `frame` comes, of all `frames` of the sensor `key`: none comes after the last.
    ///
    /// One that is late comes behind one that is not, and so is judged late whatever becomes of
    /// those between.
    pub(super) fn course(&self, key: [u64; 2], frame: u64, frames: Option<u64>) -> Course {
        let course = self.drawn(key, frame);
        let Some(delay) = course.behind() else { return Course::Prompt };
        let behind = frame + delay;
        let over = frames.is_some_and(|frames| behind >= frames);
        let late = |course| matches!(course, Course::Late(_));
        let lost = late(course) && late(self.drawn(key, behind));
        if over || lost { Course::Prompt } else { course }
    }

    fn drawn(&self, key: [u64; 2], frame: u64) -> Course {
        let mut random = random(key, frame, Draw::Course);
        let (mut lot, delay) = (random.unit(), 1 + random.bits() % self.delay);
        let courses = [Course::Late(delay), Course::Again(delay), Course::Corrected(delay)];
        for ((_, share), course) in self.of_order().into_iter().zip(courses) {
            if lot < share {
                return course;
            }
            lot -= share;
        }
        Course::Prompt
    }

    /// Does to the pixels `data` of a `frame` on `grid` what befalls them.
    pub(super) fn spoil(
        &self,
        data: &mut [f32],
        grid: &Grid,
        signed: bool,
        key: [u64; 2],
        frame: u64,
    ) {
        let [channels, height, width] = grid.shape();
        let mut noisy = random(key, frame, Draw::Noise);
        for (field, variable) in data.chunks_mut((height * width).max(1)).zip(&grid.variables) {
            let spread = self.noise.get(&variable.name).copied().unwrap_or(0.0);
            if spread == 0.0 {
                continue;
            }
            let least = if signed { f32::NEG_INFINITY } else { 0.0 };
            for pair in field.chunks_mut(2) {
                for (pixel, z) in pair.iter_mut().zip(noisy.normals()) {
                    *pixel = (*pixel + (spread * z) as f32).max(least);
                }
            }
        }
        let random_of = |draw, share: f64| {
            let mut random = random(key, frame, draw);
            (random.unit() < share).then_some(random)
        };
        let block = |mut random: Random| {
            let mut span = |side: usize| {
                let part = (random.between([0.125, 0.5]) * side as f64) as usize;
                let part = part.clamp(1, side);
                let first = (random.unit() * (side - part + 1) as f64) as usize;
                first..first + part
            };
            (span(height), span(width))
        };
        let lines = |mut random: Random| {
            let every = 4 + (random.bits() % 13) as usize;
            let first = (random.bits() % every as u64) as usize;
            (first..height).step_by(every)
        };
        // What is wrong comes before what is missing: a missing pixel says nothing wrong.
        let stuck = random_of(Draw::Stuck, self.stuck).map(block);
        let streaks = random_of(Draw::Streaks, self.streaks).map(lines);
        for field in data.chunks_mut((height * width).max(1)) {
            let count = field.len().max(1) as f64;
            let mean = field.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
            let variance =
                field.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
            let (most, higher) = (
                2.0 * field.iter().fold(0.0_f32, |most, v| most.max(v.abs())),
                2.0 * variance.sqrt() as f32,
            );
            for row in streaks.clone().into_iter().flatten() {
                field[row * width..][..width].iter_mut().for_each(|pixel| *pixel += higher);
            }
            if let Some((rows, columns)) = stuck.clone() {
                rows.for_each(|row| field[row * width..][..width][columns.clone()].fill(most));
            }
        }
        let mut lose = |rows: &mut dyn Iterator<Item = usize>, columns: Range<usize>| {
            for row in rows {
                for channel in 0..channels {
                    let start = (channel * height + row) * width;
                    data[start..start + width][columns.clone()].fill(f32::NAN);
                }
            }
        };
        if let Some((mut rows, columns)) = random_of(Draw::Dropout, self.dropouts).map(block) {
            lose(&mut rows, columns);
        }
        if let Some(mut rows) = random_of(Draw::Stripes, self.stripes).map(lines) {
            lose(&mut rows, 0..width);
        }
    }
}

/// The sequence of one draw about a frame; the marker keeps it apart from the simulations'.
fn random([seed, sensor]: [u64; 2], frame: u64, draw: Draw) -> Random {
    Random::new(&[seed, sensor, u64::MAX, frame, draw as u64])
}

#[cfg(test)]
mod tests;
