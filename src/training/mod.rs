//! Training: the nets that the operators run, taught on windows streamed from archives.
//!
//! ```text
//! archives ─► windows (by seed and step) ─► crop, augment, flow ─► shards on threads ─► gradients
//!                                                                summed in order ─► AdamW ─► EMA ─► checkpoint
//! ```
//!
//! Each window of a batch is a shard of its own and the gradients are summed in the order of the
//! batch, so the weights do not depend on the number of threads.

mod ahead;
mod codes;
mod config;
mod curves;
mod data;
mod lock;
mod loss;
mod measures;
mod memory;
mod motion;
mod optimiser;
mod random;
mod rate;
mod run;
mod sample;
mod scores;
mod state;
mod tendency;
#[cfg(test)]
mod tests;
mod threads;
mod usage;
mod weights;

pub use config::{Augment, By, ErrorKind, LossConfig, Split, TrainConfig};
pub use rate::{Swept, find_rate};
pub use usage::calibrate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use physicnet_operators::model::{Checkpoint, ModelConfig};
use physicnet_stream::Stop;

use data::Data;
use memory::Need;
use run::Run;
use weights::Init;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Steps taken.
    pub steps: u64,
    /// The best validation score (mean absolute error, transformed units) and its step.
    pub best: Option<(f64, u64)>,
    /// The checkpoint to use.
    pub checkpoint: PathBuf,
    /// Whether it was asked to stop before its end.
    pub stopped: bool,
    /// Where the time of this sitting went.
    pub seconds: Seconds,
}

/// Seconds of a sitting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    /// All of it.
    pub all: f64,
    /// Those in which the network waited for windows: to be read, cut and given their motion.
    pub waited: f64,
    /// Those that threads spent reading, added up over the threads.
    pub read: f64,
}

/// What a step tells about itself.
#[derive(Clone, Debug)]
pub struct Told {
    /// The step.
    pub step: u64,
    /// Steps of the whole run, as far as is known.
    pub of: u64,
    /// The parts of the loss, averaged over the batch.
    pub loss: Vec<(&'static str, f64)>,
    /// What else was measured: of gradients, codes and motion, the learning rate, the seconds
    /// that the windows were waited for and read.
    pub health: Vec<(&'static str, f64)>,
    /// Frames seen a second.
    pub frames_per_second: f64,
    /// Seconds left.
    pub left: f64,
    /// The validation's scores, on the steps that have one.
    pub validation: Option<BTreeMap<String, f64>>,
}

/// Trains by `config`, telling `log` about every step, until its end or until `stop` is asked.
///
/// `out` then holds `best.safetensors` and `last.safetensors` (checkpoints), `state.safetensors`
/// (to resume), `metrics.csv` and, drawn from it, `curves.png`.
///
/// # Errors
/// When the data or the config do not fit, a file cannot be written, or the loss is not finite:
/// the error then names the batch.
pub fn train(config: &TrainConfig, stop: &Stop, log: &mut dyn FnMut(&Told)) -> Result<Summary> {
    let (data, model, init) = open(config)?;
    let _lock = enter(config)?;
    let mut run = Run::new(config, model, Arc::new(data), init)?;
    run.go(stop, log)
}

/// Makes `out`, and keeps others out of it while what it returns is held.
fn enter(config: &TrainConfig) -> Result<Option<std::fs::File>> {
    std::fs::create_dir_all(&config.out)
        .with_context(|| format!("{}: cannot create it", config.out.display()))?;
    lock::lock(&config.out)
}

/// Whether the model and the data of `config` suit one another, so that training would begin.
///
/// # Errors
/// When they do not, naming the key, the store or the sensor.
pub fn suits(config: &TrainConfig) -> Result<()> {
    open(config).map(drop)
}

/// What training begins with: its data, the model for them, and the checkpoint to start from.
fn open(config: &TrainConfig) -> Result<(Data, ModelConfig, Option<Init>)> {
    config.validate()?;
    let init = config.init_from.as_deref().map(Checkpoint::load).transpose()?;
    let mut model = config.model.clone();
    if let (Some(init), true) = (&init, model.variables.is_empty()) {
        model.variables.clone_from(&init.config.variables);
    }
    let data = Data::open(config, &mut model)?;
    let fresh = Checkpoint::untrained(&model)?.weights;
    let weights = fresh.values().map(|weight| weight.elem_count()).sum();
    Need::of(config, &model, data.pixels(), weights).fits(memory::of_machine())?;
    let init = init.zip(config.init_from.as_deref());
    let init = init.map(|(init, path)| Init::new(init, path, &model)).transpose()?;
    Ok((data, model, init))
}
