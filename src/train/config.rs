//! What a training file says.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use physicnet_connectors::zarr::ZarrSource;
use physicnet_operators::layers::Boundary;
use physicnet_operators::model::ModelConfig;
use serde::{Deserialize, Serialize};

use super::augment::{Augment, Roll};
use super::loss::LossConfig;

/// Everything that decides the weights.
///
/// ```yaml
/// data:
///   - zarr: { path: radar.zarr, variables: [precip_rate] }
/// split: { by: time, train: 0.6, validation: 0.1 }
/// model: { history: 4, horizon: 12, sharp: true }
/// crop: { size: 64, wet: 0.1 }
/// augment: { flips: true, transpose: true }
/// minutes: 25
/// out: runs/radar
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The archives; may be empty where `synthetic.share` is 1.
    #[serde(default)]
    pub data: Vec<Store>,
    /// Which part trains, which validates; the rest is left for `evaluate`.
    #[serde(default)]
    pub split: Split,
    /// The network.
    #[serde(default)]
    pub model: ModelConfig,
    /// What is cut from a frame.
    #[serde(default)]
    pub crop: CropConfig,
    /// The symmetries of the data.
    #[serde(default)]
    pub augment: Augment,
    /// Simulated rain mixed into every batch.
    #[serde(default)]
    pub synthetic: Synthetic,
    /// Windows a step.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Steps to take; with `minutes` too, whichever ends first.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Minutes to train, validation included. The schedule then follows the clock, so that two
    /// runs differ; use `steps` where they must not.
    #[serde(default)]
    pub minutes: Option<f64>,
    /// The optimiser.
    #[serde(default)]
    pub adam: Adam,
    /// The loss.
    #[serde(default)]
    pub loss: LossConfig,
    /// How the best weights are chosen.
    #[serde(default)]
    pub validate: Validate,
    /// Steps between states that a run can be resumed from.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Steps between lines of `metrics.csv`.
    #[serde(default = "log_every")]
    pub log_every: u64,
    /// Decides every random number.
    #[serde(default)]
    pub seed: u64,
    /// Threads; by default as many as the machine has. The weights do not depend on it.
    #[serde(default)]
    pub threads: Option<usize>,
    /// The most that flow fields may take in memory, in MiB.
    #[serde(default = "cache_mib")]
    pub flow_cache_mib: usize,
    /// The folder for checkpoints, state and metrics.
    pub out: PathBuf,
    /// Whether to go on from the state in `out`, if there is one.
    #[serde(default)]
    pub resume: bool,
    /// A checkpoint whose weights to start from; what it lacks starts fresh.
    #[serde(default)]
    pub init_from: Option<PathBuf>,
}

fn batch() -> usize {
    4
}

fn checkpoint_every() -> u64 {
    200
}

fn log_every() -> u64 {
    10
}

fn cache_mib() -> usize {
    256
}

/// One archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The Zarr store.
    pub zarr: ZarrSource,
    /// How often it is drawn from beside the others; by default its number of windows.
    #[serde(default)]
    pub weight: Option<f64>,
}

/// How an archive is parted, in the order train, validation, test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// By time: the first share of each sensor's frames trains, the next validates. No window
    /// crosses a border.
    Time {
        /// The share that trains.
        train: f64,
        /// The share that validates.
        validation: f64,
    },
    /// By sensor (or trajectory): the first share of each store's sensors trains, the next
    /// validates.
    Sensor {
        /// The share that trains.
        train: f64,
        /// The share that validates.
        validation: f64,
    },
}

impl Default for Split {
    fn default() -> Self {
        Self::Time { train: 0.7, validation: 0.1 }
    }
}

/// What is cut from a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CropConfig {
    /// Side of the crops, a multiple of the latent stride; 0 trains on whole frames.
    pub size: usize,
    /// The least share of pixels above `wet_above` in the newest frame of a crop: up to 16
    /// places are tried, and the best of them is taken.
    pub wet: f64,
    /// What counts as wet, in the unit of the first variable.
    pub wet_above: f32,
    /// The least share of measured pixels in the newest frame of a crop.
    pub valid: f64,
    /// The weight in the loss of pixels whose air was outside of the crop: 0 leaves them out.
    pub inflow: f32,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self { size: 0, wet: 0.0, wet_above: 0.1, valid: 0.9, inflow: 0.0 }
    }
}

/// Simulated rain mixed into the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Synthetic {
    /// The share of each batch that is simulated, 0 to 1.
    pub share: f64,
    /// Sequences, held in memory.
    pub sequences: usize,
    /// Side of the simulated frames.
    pub size: usize,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { share: 0.0, sequences: 128, size: 96 }
    }
}

/// AdamW with linear warm-up, cosine decay to 0, clipping and averaged weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adam {
    /// The peak learning rate.
    pub lr: f64,
    /// The share of the training that warms up.
    pub warmup: f64,
    /// Decay of the running mean and square of the gradient.
    pub betas: [f64; 2],
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The largest global norm of the gradient.
    pub clip: f64,
    /// The decay of the averaged weights: the smaller of this and (1 + k) / (10 + k).
    pub ema: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            lr: 1.5e-3,
            warmup: 0.05,
            betas: [0.9, 0.98],
            weight_decay: 1e-4,
            clip: 1.0,
            ema: 0.99,
        }
    }
}

/// What is validated and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validate {
    /// Steps between validations; 0 validates at the end alone.
    pub every: u64,
    /// Windows, evenly over the validation part.
    pub windows: usize,
    /// Side of a centred crop; 0 validates on whole frames.
    pub crop: usize,
    /// What makes weights the best.
    pub best: Choice,
}

impl Default for Validate {
    fn default() -> Self {
        Self { every: 200, windows: 32, crop: 0, best: Choice::default() }
    }
}

/// What makes weights the best: the error, in transformed units, of one product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choice {
    /// The error.
    pub metric: Metric,
    /// Of which forecast.
    pub product: Product,
}

/// An error over all leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean squared error.
    #[default]
    Mse,
    /// Mean absolute error.
    Mae,
}

/// A forecast of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// What `run` serves: the served head with its ramp.
    #[default]
    Served,
    /// The mean head.
    Mean,
    /// The sharp head.
    Sharp,
}

impl TrainConfig {
    /// Checks what no single key can say; data and model are checked when they are opened.
    ///
    /// # Errors
    /// Names the key and what would fit.
    pub fn check(&self) -> Result<()> {
        ensure!(self.batch > 0, "batch: 0 windows teach nothing; give at least 1");
        ensure!(self.steps != Some(0), "steps: give at least 1");
        ensure!(self.threads != Some(0), "threads: give at least 1, or leave it out");
        ensure!(self.checkpoint_every > 0, "checkpoint_every: give at least 1");
        ensure!(self.log_every > 0, "log_every: give at least 1");
        match (self.steps, self.minutes) {
            (None, None) => bail!("steps: say how long to train, by `steps` or by `minutes`"),
            (_, Some(m)) if !(m > 0.0 && m.is_finite()) => bail!("minutes: {m} is no time"),
            _ => {}
        }
        let (Split::Time { train, validation } | Split::Sensor { train, validation }) = self.split;
        ensure!(
            train > 0.0 && validation >= 0.0 && train + validation <= 1.0 + 1e-9,
            "split: train {train} and validation {validation} must be shares that add up to at most 1"
        );
        let share = self.synthetic.share;
        ensure!((0.0..=1.0).contains(&share), "synthetic.share: {share} is not within 0 to 1");
        ensure!(
            !self.data.is_empty() || self.synthetic_windows() == self.batch,
            "data: name at least one store, or set synthetic.share to 1"
        );
        for (i, store) in self.data.iter().enumerate() {
            if let Some(weight) = store.weight {
                ensure!(weight > 0.0 && weight.is_finite(), "data[{i}].weight: must be positive");
            }
        }
        let stride = self.model.stride();
        for (key, size) in [
            ("crop.size", self.crop.size),
            ("validate.crop", self.validate.crop),
            ("synthetic.size", self.synthetic.size),
        ] {
            ensure!(size % stride == 0, "{key}: {size} is not a multiple of {stride}");
        }
        let periodic = self.model.boundary == Boundary::Periodic;
        ensure!(
            !periodic || (self.crop.size == 0 && self.validate.crop == 0),
            "crop.size: a crop of a periodic domain is not periodic; train on whole frames (0)"
        );
        ensure!(
            self.augment.roll == Roll::None || periodic,
            "augment.roll: only a periodic domain can be rolled; set model.boundary: periodic"
        );
        ensure!(
            self.augment.noise >= 0.0 && self.augment.noise.is_finite(),
            "augment.noise: must not be negative"
        );
        let Adam { lr, warmup, betas, weight_decay, clip, ema } = &self.adam;
        ensure!(*lr > 0.0 && lr.is_finite(), "adam.lr: must be positive");
        ensure!((0.0..1.0).contains(warmup), "adam.warmup: a share of the training, below 1");
        ensure!(betas.iter().all(|b| (0.0..1.0).contains(b)), "adam.betas: within 0 to 1");
        ensure!(*weight_decay >= 0.0, "adam.weight_decay: must not be negative");
        ensure!(*clip > 0.0, "adam.clip: must be positive");
        ensure!((0.0..1.0).contains(ema), "adam.ema: within 0 to 1");
        self.loss.check()?;
        ensure!(
            self.validate.best.product != Product::Sharp || self.model.sharp,
            "validate.best.product: the model has no sharp head; set model.sharp: true"
        );
        ensure!(self.model.learns(), "model: every part that learns is switched off");
        Ok(())
    }

    /// How many windows of a batch are simulated.
    pub(crate) fn synthetic_windows(&self) -> usize {
        (self.synthetic.share * self.batch as f64).round() as usize
    }

    /// The share of the training that is done after `step` steps and `seconds`.
    pub(crate) fn fraction(&self, step: u64, seconds: f64) -> f64 {
        let by_steps = self.steps.map_or(0.0, |all| step as f64 / all as f64);
        let by_clock = self.minutes.map_or(0.0, |all| seconds / 60.0 / all);
        by_steps.max(by_clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_file_is_enough_and_typos_are_refused() {
        let text = "data: [{zarr: {path: a.zarr}}]\nsteps: 10\nout: runs/a\n";
        let config: TrainConfig = serde_yaml_ng::from_str(text).unwrap();
        config.check().unwrap();
        assert_eq!(config.batch, 4);
        for bad in ["stepz: 1", "split: {by: time, train: 0.5, validation: 0.1, tset: 1}"] {
            assert!(serde_yaml_ng::from_str::<TrainConfig>(&format!("{text}{bad}")).is_err());
        }
        for bad in ["batch: 0", "crop: {size: 30}", "augment: {roll: any}"] {
            let config: TrainConfig = serde_yaml_ng::from_str(&format!("{text}{bad}")).unwrap();
            assert!(config.check().is_err(), "{bad}");
        }
    }
}
