//! One window with its future, cut, augmented and ready for the network.

use std::time::Duration;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use physicnet_operators::cropping::Extent;
use physicnet_operators::experts::{between, flow};
use physicnet_operators::layers::Boundary;
use physicnet_operators::model::{Batch, ModelConfig, VariableConfig};
use physicnet_stream::Frame;

use super::config::Augment;
use super::random::Random;

/// Transformed planes `(frame, rows, columns, channel)`, NaN where missing, and the classical flow
/// of the last input frame.
pub(crate) struct Planes {
    pub(super) frames: Vec<Vec<f32>>,
    pub(super) flow: Vec<f32>,
    pub(super) height: usize,
    pub(super) width: usize,
    channels: usize,
    history: usize,
    /// How long the frames were read, on this thread.
    pub(super) read: Duration,
}

/// What a step needs of one window.
pub(crate) struct Sample {
    /// The window.
    pub(crate) batch: Batch,
    /// The future, 0 where missing: `(1, H, W, lead * C)`.
    pub(crate) target: Tensor,
    /// 1 where it counts: `(1, H, W, lead * C)`.
    pub(crate) weight: Tensor,
    /// How the frame lies in it.
    pub(crate) extent: Extent,
    /// Where it was read, for error messages.
    pub(crate) place: String,
    /// How long its frames were read.
    pub(crate) read: Duration,
}

impl Sample {
    /// The same with its future on a device. The network brings the window there itself.
    pub(super) fn on(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            batch: self.batch.on(&Device::Cpu)?,
            target: self.target.to_device(device)?,
            weight: self.weight.to_device(device)?,
            place: self.place.clone(),
            ..*self
        })
    }
}

impl Planes {
    /// Transforms `history + horizon` frames and estimates the flow on the whole frame, so that
    /// a view's flow knows what lies around it.
    pub(crate) fn new(frames: &[Frame], config: &ModelConfig) -> Self {
        let [channels, height, width] = frames[0].shape;
        let transform = |frame: &Frame| {
            let mut plane = vec![0.0; frame.data.len()];
            for (c, variable) in config.variables.iter().enumerate() {
                let values = &frame.data[c * height * width..][..height * width];
                for (pixel, &x) in values.iter().enumerate() {
                    plane[pixel * channels + c] = variable.transform.forward(x);
                }
            }
            plane
        };
        let frames: Vec<Vec<f32>> = frames.iter().map(transform).collect();
        let history = config.history;
        let first = |plane: Vec<f32>| -> Vec<f32> { plane.into_iter().step_by(channels).collect() };
        let newest = first(filled(&frames[..history]));
        let previous = first(filled(&frames[..history - 1]));
        let transform = &config.variables[0].transform;
        let flow = between(&newest, &previous, height, width, transform, config.boundary);
        Self { frames, flow, height, width, channels, history, read: Duration::ZERO }
    }

    /// Cuts a square view out of every frame; false when too little of it was measured.
    pub(crate) fn crop(&mut self, side: usize, min_measured: f64, random: &mut Random) -> bool {
        let (rows, columns) = (side.min(self.height), side.min(self.width));
        let top = random.below(self.height - rows + 1);
        let left = random.below(self.width - columns + 1);
        let cut = |plane: &[f32], depth: usize, width: usize| -> Vec<f32> {
            (top..top + rows)
                .flat_map(|y| &plane[(y * width + left) * depth..][..columns * depth])
                .copied()
                .collect()
        };
        let (channels, width) = (self.channels, self.width);
        self.frames.iter_mut().for_each(|plane| *plane = cut(plane, channels, width));
        self.flow = cut(&self.flow, 2, width);
        (self.height, self.width) = (rows, columns);
        let newest = &self.frames[self.history - 1];
        let measured = newest.iter().filter(|value| !value.is_nan()).count();
        measured as f64 >= min_measured * newest.len() as f64
    }

    /// Applies symmetries to frames and flow alike, a scale to all frames, and noise to the inputs.
    pub(crate) fn augment(
        &mut self,
        augment: &Augment,
        variables: &[VariableConfig],
        random: &mut Random,
    ) {
        if augment.flip && random.coin() {
            self.flip_x();
        }
        if augment.flip && random.coin() {
            self.flip_y();
        }
        if augment.transpose && self.height == self.width && random.coin() {
            self.transpose();
        }
        if augment.roll_diagonal {
            self.roll(random.below(self.width) as isize);
        }
        if augment.scale > 1.0 {
            let most = f64::from(augment.scale).ln();
            let factor = ((2.0 * random.uniform() - 1.0) * most).exp() as f32;
            self.multiply(factor, variables);
        }
        let sigma = augment.noise * random.uniform() as f32;
        let lost = augment.dropout * random.uniform() as f32;
        for plane in &mut self.frames[..self.history] {
            if sigma > 0.0 {
                plane.iter_mut().for_each(|value| *value += sigma * random.normal() as f32);
            }
            if lost > 0.0 {
                lose_blocks(plane, self.width * self.channels, self.channels, lost, random);
            }
        }
    }

    /// Multiplies the physical values of all frames.
    pub(super) fn multiply(&mut self, factor: f32, variables: &[VariableConfig]) {
        for plane in &mut self.frames {
            for pixel in plane.chunks_exact_mut(variables.len()) {
                for (value, VariableConfig { transform, .. }) in pixel.iter_mut().zip(variables) {
                    // Missing stays missing, also where the inverse would clamp it.
                    if !value.is_nan() {
                        *value = transform.forward(factor * transform.inverse(*value));
                    }
                }
            }
        }
    }

    fn each(&mut self, change: impl Fn(&mut Vec<f32>, usize)) {
        let channels = self.channels;
        self.frames.iter_mut().for_each(|plane| change(plane, channels));
        change(&mut self.flow, 2);
    }

    pub(super) fn flip_x(&mut self) {
        let width = self.width;
        self.each(|plane, depth| {
            for row in plane.chunks_exact_mut(width * depth) {
                for x in 0..width / 2 {
                    for d in 0..depth {
                        row.swap(x * depth + d, (width - 1 - x) * depth + d);
                    }
                }
            }
        });
        self.flow.iter_mut().step_by(2).for_each(|dx| *dx = -*dx);
    }

    pub(super) fn flip_y(&mut self) {
        let (height, width) = (self.height, self.width);
        self.each(|plane, depth| {
            let line = width * depth;
            for y in 0..height / 2 {
                let (upper, lower) = plane.split_at_mut((height - 1 - y) * line);
                upper[y * line..][..line].swap_with_slice(&mut lower[..line]);
            }
        });
        self.flow.iter_mut().skip(1).step_by(2).for_each(|dy| *dy = -*dy);
    }

    pub(super) fn transpose(&mut self) {
        let side = self.height;
        self.each(|plane, depth| {
            let turned = (0..side * side).flat_map(|at| {
                let (y, x) = (at / side, at % side);
                plane[(x * side + y) * depth..][..depth].to_vec()
            });
            *plane = turned.collect();
        });
        self.flow.chunks_exact_mut(2).for_each(|step| step.swap(0, 1));
    }

    /// Rolls by `s` columns and `-s` rows.
    pub(super) fn roll(&mut self, s: isize) {
        let (height, width) = (self.height, self.width);
        self.each(|plane, depth| {
            let rolled = (0..height * width).flat_map(|at| {
                let (y, x) = ((at / width) as isize, (at % width) as isize);
                let (y, x) = (
                    Boundary::Periodic.index(y + s, height),
                    Boundary::Periodic.index(x - s, width),
                );
                plane[(y * width + x) * depth..][..depth].to_vec()
            });
            *plane = rolled.collect();
        });
    }

    /// The tensors. Where `cut` is set, pixels whose air came from outside the view do not count:
    /// nothing in the view could foretell them.
    pub(crate) fn sample(&self, config: &ModelConfig, cut: bool, place: String) -> Result<Sample> {
        let Self { height, width, channels, history, .. } = *self;
        let extent = Extent::new(height, width, config.stride());
        let (rows, columns, leads) = (extent.rows, extent.columns, config.horizon);
        ensure!(self.frames.len() == history + leads, "{place}: a window without its future");
        let device = &Device::Cpu;
        let (mut values, mut mask) = (Vec::new(), Vec::new());
        for t in 0..history {
            values.extend(extent.pad(&filled(&self.frames[..=t]), channels));
            let known: Vec<f32> =
                self.frames[t].iter().map(|v| if v.is_nan() { 0.0 } else { 1.0 }).collect();
            let mut known = extent.pad(&known, channels);
            blank_padding(&mut known, extent, channels);
            mask.extend(known);
        }
        let flow = extent.pad(&self.flow, 2);
        let carried =
            cut.then(|| flow::displacements(&flow, rows, columns, leads, config.boundary));
        let depth = leads * channels;
        let mut target = vec![0.0; rows * columns * depth];
        let mut weight = target.clone();
        for (pixel, (y, x)) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))).enumerate()
        {
            if y >= height || x >= width {
                continue;
            }
            for lead in 0..leads {
                let inside = carried.as_ref().is_none_or(|d| {
                    let at = (pixel * leads + lead) * 2;
                    let (fx, fy) = (x as f32 + d[at], y as f32 + d[at + 1]);
                    fx >= 0.0 && fy >= 0.0 && fx <= (width - 1) as f32 && fy <= (height - 1) as f32
                });
                for c in 0..channels {
                    let value = self.frames[history + lead][(y * width + x) * channels + c];
                    if inside && !value.is_nan() {
                        target[pixel * depth + lead * channels + c] = value;
                        weight[pixel * depth + lead * channels + c] = 1.0;
                    }
                }
            }
        }
        let shape = (1, history, rows, columns, channels);
        Ok(Sample {
            batch: Batch {
                frames: Tensor::from_vec(values, shape, device)?,
                mask: Tensor::from_vec(mask, shape, device)?,
                flow: Tensor::from_vec(flow, (1, rows, columns, 2), device)?,
                view: None,
            },
            target: Tensor::from_vec(target, (1, rows, columns, depth), device)?,
            weight: Tensor::from_vec(weight, (1, rows, columns, depth), device)?,
            extent,
            place,
            read: self.read,
        })
    }
}

/// The last plane with missing values from the newest older plane that has them, else 0: the
/// same rule as the stream's.
fn filled(planes: &[Vec<f32>]) -> Vec<f32> {
    let (newest, older) = planes.split_last().expect("at least one plane");
    let fill = |(at, value): (usize, &f32)| {
        if !value.is_nan() {
            return *value;
        }
        older.iter().rev().map(|plane| plane[at]).find(|v| !v.is_nan()).unwrap_or(0.0)
    };
    newest.iter().enumerate().map(fill).collect()
}

/// Padding was never measured.
fn blank_padding(mask: &mut [f32], extent: Extent, channels: usize) {
    for (at, cell) in mask.chunks_exact_mut(channels).enumerate() {
        if at / extent.columns >= extent.height || at % extent.columns >= extent.width {
            cell.fill(0.0);
        }
    }
}

/// Marks 8 x 8 blocks as missing, each with this chance.
fn lose_blocks(plane: &mut [f32], line: usize, channels: usize, chance: f32, random: &mut Random) {
    let (height, width) = (plane.len() / line, line / channels);
    for top in (0..height).step_by(8) {
        for left in (0..width).step_by(8) {
            if random.uniform() as f32 >= chance {
                continue;
            }
            for y in top..(top + 8).min(height) {
                let to = (left + 8).min(width);
                plane[y * line + left * channels..y * line + to * channels].fill(f32::NAN);
            }
        }
    }
}
