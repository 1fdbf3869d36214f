//! From a window of frames to what the network learns from.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use physicnet_operators::cropping::Extent;
use physicnet_operators::experts::{between, flow};
use physicnet_operators::layers::Boundary;
use physicnet_operators::model::{Batch, ModelConfig};
use physicnet_stream::Frame;

use super::augment::{Augment, Symmetry};
use super::config::{CropConfig, TrainConfig};
use super::data::Data;
use super::rng::Rng;
use super::windows::Window;

/// One window: inputs and truth, transformed, padded to whole latents.
pub(crate) struct Sample {
    /// Rows and columns, padded.
    pub(crate) size: [usize; 2],
    /// `(T, rows, columns, C)`, missing pixels filled.
    pub(crate) frames: Vec<f32>,
    /// 1 where measured: as `frames`.
    pub(crate) mask: Vec<f32>,
    /// The classical flow, `(rows, columns, 2)`.
    pub(crate) flow: Vec<f32>,
    /// `(rows, columns, L * C)`; 0 where missing.
    pub(crate) truth: Vec<f32>,
    /// The weight of each value of `truth`; 0 where missing.
    pub(crate) weights: Vec<f32>,
    /// Where it comes from.
    pub(crate) label: String,
}

impl Sample {
    /// As the network takes it: a batch of one.
    pub(crate) fn batch(&self, model: &ModelConfig) -> candle_core::Result<Batch> {
        let [rows, columns] = self.size;
        let shape = (1, model.history, rows, columns, model.variables.len());
        Ok(Batch {
            frames: Tensor::from_slice(&self.frames, shape, &Device::Cpu)?,
            mask: Tensor::from_slice(&self.mask, shape, &Device::Cpu)?,
            flow: Tensor::from_slice(&self.flow, (1, rows, columns, 2), &Device::Cpu)?,
        })
    }
}

/// Cuts windows out of the data, and remembers their flow: it is estimated on whole frames, once
/// for each newest frame.
pub(crate) struct Sampler<'a> {
    data: &'a Data,
    config: &'a TrainConfig,
    model: &'a ModelConfig,
    flows: Flows,
}

/// A rectangle of a frame: its corner and size.
#[derive(Clone, Copy)]
struct Place {
    y: usize,
    x: usize,
    height: usize,
    width: usize,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(data: &'a Data, config: &'a TrainConfig, model: &'a ModelConfig) -> Self {
        Self { data, config, model, flows: Flows::new(config.flow_cache_mib << 20) }
    }

    /// The window in a slot of a training step: a function of the seed, the step and the slot.
    pub(crate) fn training(&mut self, step: u64, slot: usize) -> Result<Sample> {
        let mut rng = Rng::keyed(&[self.config.seed, step, slot as u64]);
        let pool = slot < self.config.synthetic_windows();
        let part = if pool { &self.data.synthetic } else { &self.data.parts.train };
        let mut window = part.draw(&mut rng).context("data: there is no window to train on")?;
        if pool {
            window.store = self.data.stores.len() - 1;
        }
        let frames = self.read(window)?;
        let place = self.place(&frames, &mut rng);
        let symmetry = self.config.augment.draw(place.height, place.width, &mut rng);
        let inflow = self.config.crop.inflow;
        let mut sample = self.cut(window, &frames, place, symmetry, inflow)?;
        self.config.augment.add_noise(&mut sample, &mut rng);
        Ok(sample)
    }

    /// A window as validation sees it: the middle of the frames, as measured.
    pub(crate) fn plain(&mut self, window: Window, crop: usize) -> Result<Sample> {
        let frames = self.read(window)?;
        let [_, height, width] = frames[0].shape;
        let (h, w) = if crop == 0 { (height, width) } else { (crop.min(height), crop.min(width)) };
        let place = Place { y: (height - h) / 2, x: (width - w) / 2, height: h, width: w };
        self.cut(window, &frames, place, Symmetry::default(), 1.0)
    }

    fn read(&self, window: Window) -> Result<Vec<Frame>> {
        let Window { store, sensor, start } = window;
        let length = self.model.history + self.model.horizon;
        let read = |i| self.data.stores[store].read(sensor, start + i);
        let frames = (0..length).map(read).collect::<Result<_, _>>();
        frames.with_context(|| self.data.label(window, length))
    }

    /// Where to crop: the first of 16 places at random whose newest frame is measured and wet
    /// enough, else the best of them. The future has no say, or the crops would be biased.
    fn place(&self, frames: &[Frame], rng: &mut Rng) -> Place {
        let CropConfig { size, wet, wet_above, valid, inflow: _ } = self.config.crop;
        let newest = &frames[self.model.history - 1];
        let [_, height, width] = newest.shape;
        if size == 0 || (size >= height && size >= width) {
            return Place { y: 0, x: 0, height, width };
        }
        let (h, w) = (size.min(height), size.min(width));
        let mut best = (f64::NEG_INFINITY, None);
        for _ in 0..16 {
            let (y, x) = (rng.below(height - h + 1), rng.below(width - w + 1));
            let place = Place { y, x, height: h, width: w };
            let (mut above, mut measured) = (0_usize, 0_usize);
            for row in y..y + h {
                for value in &newest.data[row * width + x..row * width + x + w] {
                    measured += usize::from(value.is_finite());
                    above += usize::from(*value >= wet_above);
                }
            }
            let share = |n: usize| n as f64 / (h * w) as f64;
            let lack = (valid - share(measured)).max(0.0) + (wet - share(above)).max(0.0);
            if -lack > best.0 {
                best = (-lack, Some(place));
            }
            if lack == 0.0 {
                break;
            }
        }
        best.1.unwrap_or(Place { y: 0, x: 0, height: h, width: w })
    }

    fn cut(
        &mut self,
        window: Window,
        frames: &[Frame],
        place: Place,
        symmetry: Symmetry,
        inflow: f32,
    ) -> Result<Sample> {
        let (model, history) = (self.model, self.model.history);
        let [_, height, width] = frames[0].shape;
        let whole = place.height == height && place.width == width;
        let motion = self.flows.get(window, || classical(model, &frames[..history]));
        let cut = [place.height, place.width];
        let motion = symmetry.vectors(&crop(motion, width, 2, place), cut);
        let channels = model.variables.len();
        let planes: Vec<Vec<f32>> = frames
            .iter()
            .map(|frame| symmetry.scalars(&transformed(frame, model, place), cut, channels))
            .collect();
        let [h, w] = symmetry.size(cut);
        let extent = Extent::new(h, w, model.stride());
        let (mut values, mut mask) = (Vec::new(), Vec::new());
        let mut known = vec![0.0; h * w * channels];
        for plane in &planes[..history] {
            for (known, &value) in known.iter_mut().zip(plane) {
                if !value.is_nan() {
                    *known = value;
                }
            }
            values.extend(extent.pad(&known, channels));
            let seen = plane.iter().map(|v| f32::from(u8::from(!v.is_nan()))).collect::<Vec<_>>();
            mask.extend(padded_with_zeros(&seen, extent, channels));
        }
        let leads = model.horizon;
        let inside = if whole || inflow == 1.0 {
            vec![1.0; h * w * leads]
        } else {
            self.inside(&motion, h, w, inflow)
        };
        let (mut truth, mut weights) = (Vec::new(), Vec::new());
        for pixel in 0..h * w {
            for lead in 0..leads {
                for c in 0..channels {
                    let value = planes[history + lead][pixel * channels + c];
                    let missing = value.is_nan();
                    truth.push(if missing { 0.0 } else { value });
                    weights.push(if missing { 0.0 } else { inside[pixel * leads + lead] });
                }
            }
        }
        Ok(Sample {
            size: [extent.rows, extent.columns],
            frames: values,
            mask,
            flow: extent.pad(&motion, 2),
            truth: padded_with_zeros(&truth, extent, leads * channels),
            weights: padded_with_zeros(&weights, extent, leads * channels),
            label: self.data.label(window, frames.len()),
        })
    }

    /// 1 where the air of a pixel was inside of the crop when the window ended, `inflow`
    /// elsewhere: `(h, w, lead)`.
    fn inside(&self, motion: &[f32], h: usize, w: usize, inflow: f32) -> Vec<f32> {
        let leads = self.model.horizon;
        let displaced = flow::displacements(motion, h, w, leads, Boundary::Open);
        let one = |(i, d): (usize, &[f32])| {
            let pixel = i / leads;
            let (y, x) = ((pixel / w) as f32 + d[1], (pixel % w) as f32 + d[0]);
            let within = |at: f32, n: usize| (0.0..=(n - 1) as f32).contains(&at);
            if within(y, h) && within(x, w) { 1.0 } else { inflow }
        };
        displaced.chunks_exact(2).enumerate().map(one).collect()
    }
}

impl Augment {
    /// Noise on what was measured.
    fn add_noise(&self, sample: &mut Sample, rng: &mut Rng) {
        if self.noise > 0.0 {
            let sigma = self.noise * rng.uniform();
            for (value, &seen) in sample.frames.iter_mut().zip(&sample.mask) {
                *value += (sigma * rng.normal()) as f32 * seen;
            }
        }
    }
}

/// A rectangle of a frame, transformed, `(height, width, C)`; NaN where missing.
fn transformed(frame: &Frame, model: &ModelConfig, place: Place) -> Vec<f32> {
    let [_, height, width] = frame.shape;
    let channels = model.variables.len();
    let mut plane = vec![f32::NAN; place.height * place.width * channels];
    for (c, variable) in model.variables.iter().enumerate() {
        for row in 0..place.height {
            let from = (c * height + place.y + row) * width + place.x;
            for (column, &x) in frame.data[from..from + place.width].iter().enumerate() {
                let y = variable.transform.forward(x);
                plane[(row * place.width + column) * channels + c] = y;
            }
        }
    }
    plane
}

/// The backward flow of the newest of some whole frames, on the first channel, as the stream
/// estimates it: missing pixels filled by the newest older measurement, else 0.
fn classical(model: &ModelConfig, frames: &[Frame]) -> Vec<f32> {
    let [_, height, width] = frames[0].shape;
    let transform = &model.variables[0].transform;
    let filled = |frames: &[Frame]| -> Vec<f32> {
        let mut known = vec![0.0; height * width];
        for frame in frames {
            for (known, &x) in known.iter_mut().zip(&frame.data[..height * width]) {
                let value = transform.forward(x);
                if !value.is_nan() {
                    *known = value;
                }
            }
        }
        known
    };
    let (newest, previous) = (filled(frames), filled(&frames[..frames.len() - 1]));
    between(&newest, &previous, height, width, transform, model.boundary)
}

/// A rectangle of `(rows, width, depth)`.
fn crop(plane: &[f32], width: usize, depth: usize, place: Place) -> Vec<f32> {
    let row = |y: usize| &plane[(y * width + place.x) * depth..][..place.width * depth];
    (place.y..place.y + place.height).flat_map(row).copied().collect()
}

/// `(height, width, depth)` in the padded plane; the padding counts for nothing.
fn padded_with_zeros(plane: &[f32], extent: Extent, depth: usize) -> Vec<f32> {
    let mut padded = vec![0.0; extent.rows * extent.columns * depth];
    for (row, line) in plane.chunks_exact(extent.width * depth).enumerate() {
        padded[row * extent.columns * depth..][..line.len()].copy_from_slice(line);
    }
    padded
}

/// Flow fields by the window they were estimated for; the least recently used go first.
struct Flows {
    room: usize,
    used: usize,
    clock: u64,
    fields: HashMap<Window, (u64, Vec<f32>)>,
    ages: BTreeMap<u64, Window>,
}

impl Flows {
    fn new(room: usize) -> Self {
        Self { room, used: 0, clock: 0, fields: HashMap::new(), ages: BTreeMap::new() }
    }

    fn get(&mut self, window: Window, make: impl FnOnce() -> Vec<f32>) -> &[f32] {
        self.clock += 1;
        let field = match self.fields.remove(&window) {
            Some((age, field)) => {
                self.ages.remove(&age);
                field
            }
            None => {
                let field = make();
                self.used += 4 * field.len();
                while self.used > self.room
                    && let Some((_, oldest)) = self.ages.pop_first()
                {
                    self.used -= self.fields.remove(&oldest).map_or(0, |(_, f)| 4 * f.len());
                }
                field
            }
        };
        self.ages.insert(self.clock, window);
        &self.fields.entry(window).insert_entry((self.clock, field)).into_mut().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_remembered_within_their_room() {
        let mut flows = Flows::new(32);
        let window = |start| Window { store: 0, sensor: 0, start };
        let mut made = 0;
        for start in [0, 1, 0, 2, 0, 1] {
            let field = flows.get(window(start), || {
                made += 1;
                vec![start as f32; 4]
            });
            assert_eq!(field, [start as f32; 4]);
        }
        // 1 was the least recently used when 2 came.
        assert_eq!((made, flows.used), (4, 32));
    }
}
