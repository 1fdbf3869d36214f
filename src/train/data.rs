//! The data of a run, opened and checked against the model.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use physicnet_connectors::synthetic::{Field, Rain, Recording, SyntheticSource};
use physicnet_connectors::zarr::Archive;
use physicnet_operators::cropping::{Transform, is_rain_rate};
use physicnet_operators::model::{ModelConfig, VariableConfig};
use physicnet_stream::{Sensor, format_time};

use super::config::{Split, TrainConfig};
use super::footage::{Footage, Reels};
use super::windows::{Part, Parts, Window, part};

/// Opened stores and what is drawn from them.
pub(crate) struct Data {
    /// The archives, then the simulated pool where there is one.
    pub(crate) stores: Vec<Box<dyn Footage>>,
    /// What each is called.
    pub(crate) names: Vec<String>,
    /// The archives' parts.
    pub(crate) parts: Parts,
    /// The pool's windows.
    pub(crate) synthetic: Part,
}

impl Data {
    /// Opens the stores of a config and completes its model from them: channels, cadence.
    pub(crate) fn open(config: &TrainConfig, model: &mut ModelConfig) -> Result<Self> {
        let mut stores: Vec<Box<dyn Footage>> = Vec::new();
        let mut names = Vec::new();
        for store in &config.data {
            let name = store.zarr.path.display().to_string();
            let archive = Archive::open(&store.zarr)
                .with_context(|| format!("data: {name} cannot be opened"))?;
            stores.push(Box::new(archive));
            names.push(name);
        }
        Self::new(config, model, stores, names)
    }

    /// As [`Data::open`], of stores that are open.
    pub(crate) fn new(
        config: &TrainConfig,
        model: &mut ModelConfig,
        mut stores: Vec<Box<dyn Footage>>,
        mut names: Vec<String>,
    ) -> Result<Self> {
        complete(model, &stores);
        model.check()?;
        let weights: Vec<Option<f64>> = config.data.iter().map(|store| store.weight).collect();
        let length = model.history + model.horizon;
        for (store, name) in stores.iter().zip(&names) {
            for sensor in store.sensors() {
                fits(sensor, model, config).with_context(|| format!("data: {name}"))?;
            }
        }
        let parts = part(&stores, &weights, &config.split, length);
        let simulated = config.synthetic_windows();
        if simulated < config.batch && parts.train.len() == 0 {
            bail!(
                "data: the training part holds no {length} consecutive frames (history {} + \
                 horizon {}); give longer records or a shorter window",
                model.history,
                model.horizon
            );
        }
        let mut synthetic = Part::default();
        if simulated > 0 {
            let all = Split::Sensor { train: 1.0, validation: 0.0 };
            let pool: [Box<dyn Footage>; 1] = [Box::new(simulate(config, model)?)];
            synthetic = part(&pool, &[None], &all, length).train;
            stores.extend(pool);
            names.push("simulated rain".to_owned());
        }
        Ok(Self { stores, names, parts, synthetic })
    }

    /// What a window is called in messages: its store, its sensor and its times.
    pub(crate) fn label(&self, window: Window, length: usize) -> String {
        let Window { store, sensor, start } = window;
        let footage = &self.stores[store];
        let times = footage.times(sensor);
        let (name, id) = (&self.names[store], &footage.sensors()[sensor].id);
        let (from, to) = (times[start], times[start + length - 1]);
        format!("{name}, sensor {id}, {} to {}", format_time(from), format_time(to))
    }

    /// What the checkpoint says of its training data.
    pub(crate) fn provenance(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (s, name) in self.names.iter().enumerate() {
            let spans = self.parts.spans.iter().filter(|(store, ..)| *store == s);
            let ends = spans.map(|&(_, sensor, from, end)| {
                let times = self.stores[s].times(sensor);
                (times[from], times[end - 1])
            });
            let (from, to) = ends.fold((i64::MAX, i64::MIN), |a, b| (a.0.min(b.0), a.1.max(b.1)));
            all.push(if from <= to {
                format!("{name}: {} to {}", format_time(from), format_time(to))
            } else {
                name.clone()
            });
        }
        all
    }
}

/// Fills in what the model leaves to the data.
fn complete(model: &mut ModelConfig, stores: &[Box<dyn Footage>]) {
    let sensors = || stores.iter().flat_map(|store| store.sensors());
    if model.variables.is_empty() {
        let rain = || vec![("precip_rate".to_owned(), "mm h-1".to_owned())];
        let seen = sensors().next().map(|sensor| {
            let variables = sensor.grid.variables.iter();
            variables.map(|v| (v.name.clone(), v.units.clone())).collect()
        });
        let variable = |(name, units): (String, String)| {
            let transform = if is_rain_rate(&units) {
                Transform::LogRate { floor: 0.1 }
            } else {
                Transform::Standardise { mean: None, std: None }
            };
            VariableConfig { name, units, transform, keep: Vec::new() }
        };
        model.variables = seen.unwrap_or_else(rain).into_iter().map(variable).collect();
    }
    if model.cadence.is_none() {
        let first = sensors().next().map(|sensor| sensor.cadence);
        model.cadence = first.filter(|first| sensors().all(|sensor| sensor.cadence == *first));
    }
}

/// Whether a sensor's frames suit the model and the crops.
fn fits(sensor: &Arc<Sensor>, model: &ModelConfig, config: &TrainConfig) -> Result<()> {
    let names: Vec<&str> = sensor.grid.variables.iter().map(|v| v.name.as_str()).collect();
    let wanted: Vec<&str> = model.variables.iter().map(|v| v.name.as_str()).collect();
    ensure!(
        names == wanted,
        "sensor {} has the variables {names:?}, the model {wanted:?}; choose and order them with \
         `variables`",
        sensor.id
    );
    let [_, height, width] = sensor.grid.shape();
    model.check_size(height, width)?;
    for (key, size) in [("crop.size", config.crop.size), ("validate.crop", config.validate.crop)] {
        ensure!(
            size <= height && size <= width,
            "{key}: {size} is larger than the {height} x {width} frames of {}",
            sensor.id
        );
    }
    Ok(())
}

/// A pool of simulated rain, one sequence a sensor, just long enough for a few windows.
fn simulate(config: &TrainConfig, model: &ModelConfig) -> Result<Reels> {
    let names: Vec<&str> = model.variables.iter().map(|v| v.name.as_str()).collect();
    ensure!(
        model.variables.len() == 1 && is_rain_rate(&model.variables[0].units),
        "synthetic.share: simulated rain suits one channel in mm h-1, not {names:?}"
    );
    let size = config.synthetic.size;
    let rain = Rain { height: size, width: size, ..Rain::default() };
    let frames = (model.history + model.horizon + 8) as u64;
    let source = SyntheticSource {
        sensors: config.synthetic.sequences,
        frames: Some(frames),
        seed: config.seed,
        ..SyntheticSource::new(Field::Rain(rain))
    };
    let mut reels = Reels::default();
    for index in 0..config.synthetic.sequences {
        let mut recording = Recording::new(&source, index)?;
        let sensor = Arc::clone(recording.sensor());
        let mut frames = Vec::new();
        while let Some(frame) = recording.next_frame()? {
            frames.push(frame);
        }
        reels.push(sensor, frames);
    }
    Ok(reels)
}
