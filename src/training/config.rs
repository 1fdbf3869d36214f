//! What a training file says.

use std::path::PathBuf;

use physicnet_connectors::zarr::ZarrSource;
use physicnet_operators::layers::Boundary;
use physicnet_operators::model::{ModelConfig, Processor, Stored};
use physicnet_stream::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the archive is divided. What neither part takes is left for `evaluate`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Along time within each sensor, or by whole sensors (trajectories).
    pub by: By,
    /// The share that trains, from the beginning.
    pub train: f64,
    /// The share after it that chooses the best weights.
    pub validation: f64,
}

/// Along what an archive is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Earlier frames train, later ones test.
    #[default]
    Time,
    /// Some sensors train, others test.
    Sensor,
}

impl Default for Split {
    fn default() -> Self {
        Self { by: By::Time, train: 0.6, validation: 0.1 }
    }
}

/// True symmetries of the physics, and what sensors add to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Mirror left-right and up-down, half of the time each.
    pub flip: bool,
    /// Swap the axes of square views, half of the time.
    pub transpose: bool,
    /// Roll a periodic domain by (s, -s) pixels: the symmetry of a forcing that depends on x + y.
    pub roll_diagonal: bool,
    /// Gaussian noise on the inputs, of a standard deviation drawn from 0 to this, transformed
    /// units; targets stay clean.
    pub noise: f32,
    /// The chance that a pixel block of the input is lost, drawn from 0 to this.
    pub dropout: f32,
    /// What a whole window is multiplied by, in physical units, drawn from 1/this to this with even
    /// logarithm; at most 1, nothing is. For rates, where a heavier rain moves like a lighter one.
    pub scale: f32,
}

/// What the error of a head is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Absolute error.
    #[default]
    Mae,
    /// Squared error.
    Mse,
}

/// The parts of the loss and their weights, on transformed values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// The error that both heads lower.
    pub error: ErrorKind,
    /// The weight of the first variable's squared error in physical units, over the variance that the chosen expert
    /// leaves: for skewed rates, whose mean is not the inverse of the transformed mean.
    #[schemars(range(min = 0.0))]
    pub physical: f64,
    /// The weight of the first variable's 1 - CSI, made smooth, on the sharp head.
    #[schemars(range(min = 0.0))]
    pub soft_csi: f64,
    /// Thresholds of the soft CSI, in physical units.
    pub thresholds: Vec<f64>,
    /// The weight of the squared error of the carried field.
    #[schemars(range(min = 0.0))]
    pub warp: f64,
    /// The weight of the roughness of the flow's correction, in latent cells.
    #[schemars(range(min = 0.0))]
    pub smooth: f64,
    /// The weight of the commitment of latents to their codes (`hard` quantization).
    #[schemars(range(min = 0.0))]
    pub commitment: f64,
    /// Whether short leads weigh more, as 1 / (persistence error + a fifth of its mean).
    pub weigh_leads: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            error: ErrorKind::Mae,
            physical: 0.0,
            soft_csi: 0.5,
            thresholds: Vec::new(),
            warp: 0.1,
            smooth: 0.01,
            commitment: 0.25,
            weigh_leads: false,
        }
    }
}

impl LossConfig {
    /// Whether each weight is one.
    fn check(&self) -> Result<()> {
        let weights = [
            ("physical", self.physical),
            ("soft_csi", self.soft_csi),
            ("warp", self.warp),
            ("smooth", self.smooth),
            ("commitment", self.commitment),
        ];
        for (key, weight) in weights {
            if !weight.is_finite() || weight < 0.0 {
                let why = format!("{weight}; a weight is a number from 0 on");
                return Err(Error::new(format!("loss.{key}"), why));
            }
        }
        if let Some(wrong) = self.thresholds.iter().find(|threshold| !threshold.is_finite()) {
            return Err(Error::new("loss.thresholds", format!("{wrong}; give finite numbers")));
        }
        Ok(())
    }
}

/// More threads than any machine that this was made for has.
const MOST_THREADS: usize = 1024;

/// A training run. Every key but `data` and `out` has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The archives.
    pub data: Vec<ZarrSource>,
    /// How often each of `data` is drawn, relative to the others; empty draws every window as
    /// often as any other.
    #[serde(default)]
    pub mix: Vec<f64>,
    /// The directory for checkpoints, state and metrics.
    pub out: PathBuf,
    /// How the checkpoints' weights are stored; the run itself, and its state, are f32.
    #[serde(default, skip_serializing_if = "Stored::is_f32")]
    pub weights: Stored,
    /// The network.
    #[serde(default)]
    pub model: ModelConfig,
    /// How the archives are divided.
    #[serde(default)]
    pub split: Split,
    /// The side of the square views that are trained on, a multiple of the latent stride;
    /// 0 takes whole frames.
    #[serde(default)]
    pub crop: usize,
    /// The least share of measured pixels of a view.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_measured: f64,
    /// Augmentation.
    #[serde(default)]
    pub augment: Augment,
    /// The loss.
    #[serde(default)]
    pub loss: LossConfig,
    /// Windows of a step.
    #[serde(default = "four")]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Steps of the run.
    #[serde(default = "steps")]
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// Ends the run early: the schedule then follows the clock, and two runs differ.
    #[serde(default)]
    pub minutes: Option<f64>,
    /// The peak of the learning rate.
    #[serde(default = "rate")]
    pub learning_rate: f64,
    /// The share of the run in which the rate rises.
    #[serde(default = "warm_up")]
    pub warm_up: f64,
    /// AdamW's decay of the weights.
    #[serde(default = "decay")]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// The largest norm of a step's gradient.
    #[serde(default = "one")]
    pub clip: f64,
    /// The memory of the averaged weights, which are the ones that are kept.
    #[serde(default = "ema")]
    pub ema: f64,
    /// Where every draw begins.
    #[serde(default)]
    pub seed: u64,
    /// Threads; the weights do not depend on it.
    #[serde(default = "threads")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: usize,
    /// What computes: `auto` (a GPU, where the program was built with CUDA and one answers, else
    /// the CPU), `cpu`, or `cuda:0`.
    #[serde(default, skip_serializing_if = "Processor::is_auto")]
    pub device: Processor,
    /// Steps between validations and checkpoints.
    #[serde(default = "every")]
    #[schemars(range(min = 1))]
    pub validate_every: u64,
    /// The most windows of a validation.
    #[serde(default = "windows")]
    #[schemars(range(min = 1))]
    pub validate_windows: usize,
    /// A checkpoint to start from.
    #[serde(default)]
    pub init_from: Option<PathBuf>,
    /// Whether to go on from the state in `out`, where there is one.
    #[serde(default = "yes")]
    pub resume: bool,
}

fn yes() -> bool {
    true
}
fn half() -> f64 {
    0.5
}
fn four() -> usize {
    4
}
fn steps() -> u64 {
    2000
}
fn rate() -> f64 {
    1.5e-3
}
fn warm_up() -> f64 {
    0.05
}
fn decay() -> f64 {
    1e-4
}
fn one() -> f64 {
    1.0
}
fn ema() -> f64 {
    0.995
}
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
fn every() -> u64 {
    200
}
fn windows() -> usize {
    32
}

impl TrainConfig {
    /// Checks what can be checked without the data.
    ///
    /// # Errors
    /// Names the key that does not fit and what would.
    pub fn validate(&self) -> Result<()> {
        let fail = |key: &str, why: &str| Err(Error::new(key, why));
        if self.data.is_empty() {
            return fail("data", "name at least one archive");
        }
        for (i, store) in self.data.iter().enumerate() {
            store.validate().map_err(|error| Error::new(format!("data[{i}]"), error))?;
        }
        let drawn = self.mix.iter().all(|x| x.is_finite() && *x >= 0.0);
        if !self.mix.is_empty()
            && (self.mix.len() != self.data.len() || !drawn || self.mix.iter().sum::<f64>() <= 0.0)
        {
            return fail("mix", "has one number from 0 on for each of `data`, not all of them 0");
        }
        let Split { train, validation, .. } = self.split;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        if !share(train) || !share(validation) || train + validation > 1.0 || train == 0.0 {
            return fail("split", "shares lie between 0 and 1 and add up to 1 at most");
        }
        if self.out.as_os_str().is_empty() {
            return fail("out", "is empty; name the folder for what is written");
        }
        let least = |x: f64| x.is_finite() && x >= 0.0;
        self.loss.check()?;
        if !least(self.weight_decay) {
            return fail(
                "weight_decay",
                &format!("{}; give a number from 0 on", self.weight_decay),
            );
        }
        if !share(self.min_measured) {
            let why = format!("{}; a share lies between 0 and 1", self.min_measured);
            return fail("min_measured", &why);
        }
        if self.augment.roll_diagonal && self.model.boundary != Boundary::Periodic {
            return fail("augment.roll_diagonal", "is for model.boundary: periodic; leave it out");
        }
        if self.threads > MOST_THREADS {
            return fail("threads", &format!("{}; at most {MOST_THREADS}", self.threads));
        }
        if self.validate_windows == 0 {
            return fail("validate_windows", "0; to train without, say split.validation: 0");
        }
        if self.batch == 0 || self.steps == 0 || self.threads == 0 {
            return fail("batch, steps, threads", "must be at least 1");
        }
        if !self.crop.is_multiple_of(self.model.stride()) {
            let (crop, stride) = (self.crop, self.model.stride());
            let near = crop.next_multiple_of(stride);
            return fail(
                "crop",
                &format!("{crop}; it must be a multiple of {stride}, e.g. {near}"),
            );
        }
        let Augment { noise, dropout, scale, .. } = self.augment;
        if !(noise.is_finite() && noise >= 0.0 && scale.is_finite() && scale >= 0.0) {
            return fail("augment.noise, augment.scale", "are numbers from 0 on");
        }
        if !(0.0..=1.0).contains(&dropout) {
            return fail("augment.dropout", "is a chance, from 0 to 1");
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.learning_rate) || !positive(self.clip) {
            return fail("learning_rate, clip", "must be positive");
        }
        if self.minutes.is_some_and(|m| !positive(m)) {
            return fail("minutes", "must be positive");
        }
        if !(0.0..1.0).contains(&self.ema) || !(0.0..1.0).contains(&self.warm_up) {
            return fail("ema, warm_up", "lie from 0 up to, not including, 1");
        }
        if self.validate_every == 0 {
            return fail("validate_every", "must be at least 1");
        }
        Ok(())
    }
}
