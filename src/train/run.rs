//! The training loop.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use physicnet_operators::model::{Checkpoint, ModelConfig, Provenance};
use physicnet_stream::Stop;
use serde_json::json;

use super::codebook::Means;
use super::config::TrainConfig;
use super::data::Data;
use super::loader::load;
use super::optimiser::{Optimiser, learning_rate, norm};
use super::progress::{Progress, Tick};
use super::sample::Sample;
use super::state::{Record, State};
use super::statistics;
use super::step::{Objective, learn};
use super::validation::Validator;
use super::weights::Weights;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Steps taken, those of earlier sessions included.
    pub steps: u64,
    /// Seconds trained, those of earlier sessions included.
    pub seconds: f64,
    /// The best validation score, if anything was validated.
    pub best: Option<f64>,
    /// Whether it was asked to stop before its end; it can then be resumed.
    pub stopped: bool,
    /// The checkpoint to use: the best by validation, else the last.
    pub checkpoint: PathBuf,
}

/// Trains, from the start or from the state in `out`. Writes into `out`: `best.safetensors` and
/// `last.safetensors` (checkpoints of the averaged weights), `state.safetensors` (to resume),
/// `metrics.csv` and `validation.csv`. `stop` ends it after the step in progress; `log` takes
/// lines for people.
///
/// # Errors
/// When the config contradicts itself or the data, a file cannot be read or written, or the loss
/// is not finite: then the error names the batch.
pub fn train(config: &TrainConfig, stop: &Stop, log: &mut dyn FnMut(&str)) -> Result<Summary> {
    config.check()?;
    let mut model = config.model.clone();
    let start = config.init_from.as_deref().map(Checkpoint::load).transpose()?;
    if let (Some(start), true) = (&start, model.variables.is_empty()) {
        model.variables.clone_from(&start.config.variables);
    }
    let data = Data::open(config, &mut model)?;
    run(config, model, &data, start.as_ref(), stop, log)
}

/// As [`train`], on data that is open.
pub(crate) fn run(
    config: &TrainConfig,
    mut model: ModelConfig,
    data: &Data,
    start: Option<&Checkpoint>,
    stop: &Stop,
    log: &mut dyn FnMut(&str),
) -> Result<Summary> {
    let out = &config.out;
    std::fs::create_dir_all(out).with_context(|| format!("out: {}", out.display()))?;
    let path = out.join("state.safetensors");
    let state = match (path.exists(), config.resume) {
        (true, true) => {
            let state = State::load(&path)?;
            same(&state.record.decides, &decides(config)?)?;
            model.clone_from(&state.record.model);
            log(&format!("going on after step {} of {}", state.record.step, path.display()));
            state
        }
        (true, false) => bail!(
            "out: {} holds a run already; set `resume: true` to go on with it, or choose another \
             folder",
            out.display()
        ),
        (false, _) => {
            statistics::fit(data, &mut model)?;
            fresh(config, &model, data, start, log)?
        }
    };
    let threads = config
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let windows = (data.parts.train.len(), data.parts.validation.len());
    log(&format!(
        "{} training and {} validation windows, {} weights, {threads} threads",
        windows.0,
        windows.1,
        state.weights.0.values().map(|w| w.values.len()).sum::<usize>()
    ));
    let leads = state.record.leads.iter().map(|&bits| f32::from_bits(bits)).collect();
    let objective = Objective::new(&config.loss, &model, leads)?;
    let progress = Progress::open(out, state.record.step)?;
    let validator = Validator::new(data, config, &model);
    let before = state.record.seconds;
    let clock = Instant::now();
    let mut session = Session {
        config,
        model: &model,
        data,
        state,
        progress,
        validator,
        threads,
        validated: None,
    };
    std::thread::scope(|scope| {
        let batches = load(scope, data, config, &model, session.state.record.step);
        let seconds = || before + clock.elapsed().as_secs_f64();
        loop {
            let step = session.state.record.step;
            session.state.record.seconds = seconds();
            let over = config.fraction(step, seconds()) >= 1.0;
            if over || stop.stopped() {
                session.close(!over, log)?;
                return Ok(session.summary(!over));
            }
            let samples = batches.recv().context("the loader died")??;
            session.step(&objective, &samples, seconds(), log)?;
            let step = session.state.record.step;
            session.state.record.seconds = seconds();
            if config.validate.every > 0 && step % config.validate.every == 0 {
                session.validate(log)?;
            }
            if step % config.checkpoint_every == 0 {
                session.save()?;
            }
        }
    })
}

/// What a run works with between its first and its last step.
struct Session<'a> {
    config: &'a TrainConfig,
    model: &'a ModelConfig,
    data: &'a Data,
    state: State,
    progress: Progress,
    validator: Validator<'a>,
    threads: usize,
    validated: Option<u64>,
}

impl Session<'_> {
    fn step(
        &mut self,
        objective: &Objective,
        samples: &[Sample],
        seconds: f64,
        log: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let State { weights, optimiser, means, record } = &mut self.state;
        let (net, vars) = weights.network(self.model)?;
        let lesson = learn(&net, &vars, samples, objective, self.threads)?;
        let (losses, size) = (lesson.losses, norm(&lesson.gradients));
        if !(losses.total().is_finite() && size.is_finite()) {
            let parts: Vec<String> =
                losses.parts().iter().map(|(name, value)| format!("{name} {value}")).collect();
            let labels: Vec<&str> = samples.iter().map(|sample| sample.label.as_str()).collect();
            bail!(
                "step {}: the loss is not finite ({}; gradient norm {size}). The batch: {}. Look \
                 for absurd values there, or lower adam.lr; {} holds the last good state",
                record.step,
                parts.join(", "),
                labels.join("; "),
                self.config.out.display()
            );
        }
        // The schedule counts the step that is being taken, so that the first one moves.
        let fraction = self.config.fraction(record.step + 1, seconds);
        let lr = learning_rate(&self.config.adam, fraction);
        optimiser.step(&self.config.adam, lr, weights, &lesson.gradients);
        let average = &mut optimiser.average;
        means.update(weights, average, &lesson.latents, self.config.seed, record.step)?;
        record.step += 1;
        let frames = (samples.len() * (self.model.history + self.model.horizon)) as u64;
        let tick = Tick { step: record.step, fraction, seconds, lr, norm: size, frames };
        self.progress.tick(&tick, &losses, self.config.log_every, log)
    }

    /// Scores the averaged weights and keeps them where they are the best.
    fn validate(&mut self, log: &mut dyn FnMut(&str)) -> Result<()> {
        if !self.validator.any() || self.validated == Some(self.state.record.step) {
            return Ok(());
        }
        let step = self.state.record.step;
        self.validated = Some(step);
        let scores = self.validator.score(&self.state.optimiser.average, self.threads)?;
        let score = self.config.validate.best.of(&scores);
        let old = self.state.record.best.map(f64::from_bits);
        let best = score.filter(|score| old.is_none_or(|old| *score < old));
        self.state.record.scores.clone_from(&scores);
        if let Some(score) = best {
            self.state.record.best = Some(score.to_bits());
            self.checkpoint("best.safetensors")?;
        }
        self.progress.validated(step, &scores, best.is_some(), log)
    }

    fn save(&self) -> Result<()> {
        self.state.save(&self.config.out.join("state.safetensors"))
    }

    /// The averaged weights as a checkpoint.
    fn checkpoint(&self, name: &str) -> Result<()> {
        let State { optimiser, means, record, .. } = &self.state;
        let mut grids = self.data.stores.iter().flat_map(|store| store.sensors());
        let tap = !means.sums.is_empty();
        let checkpoint = Checkpoint {
            config: self.model.clone(),
            provenance: Provenance {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                data: self.data.provenance(),
                grid: grids.next().map(|sensor| {
                    let [_, height, width] = sensor.grid.shape();
                    [height, width]
                }),
                steps: record.step,
                seed: self.config.seed,
                validation: record.scores.clone(),
                code_usage: if tap { means.usage() } else { Vec::new() },
            },
            weights: optimiser.average.tensors()?,
            id: "none".into(),
        };
        Ok(checkpoint.save(&self.config.out.join(name))?)
    }

    fn close(&mut self, stopped: bool, log: &mut dyn FnMut(&str)) -> Result<()> {
        // A resumed run validates where an uninterrupted one does: not where it was stopped.
        if !stopped {
            self.validate(log)?;
        }
        self.checkpoint("last.safetensors")?;
        self.save()?;
        let (step, out) = (self.state.record.step, self.config.out.display());
        let line = if stopped {
            format!("stopped after step {step}; set `resume: true` to go on from {out}")
        } else {
            format!("finished after {step} steps; {}", self.summary(false).checkpoint.display())
        };
        self.progress.say(&line, log);
        Ok(())
    }

    fn summary(&self, stopped: bool) -> Summary {
        let record = &self.state.record;
        let best = record.best.map(f64::from_bits);
        let name = if best.is_some() { "best.safetensors" } else { "last.safetensors" };
        Summary {
            steps: record.step,
            seconds: record.seconds,
            best,
            stopped,
            checkpoint: self.config.out.join(name),
        }
    }
}

/// The state before the first step.
fn fresh(
    config: &TrainConfig,
    model: &ModelConfig,
    data: &Data,
    start: Option<&Checkpoint>,
    log: &mut dyn FnMut(&str),
) -> Result<State> {
    let mut weights = Weights::initial(model, config.seed)?;
    if let Some(start) = start {
        let given = Weights::from_tensors(&start.weights)?;
        let mut anew = Vec::new();
        for (name, weight) in &mut weights.0 {
            match given.0.get(name) {
                Some(known) if known.shape == weight.shape => weight.clone_from(known),
                Some(known) => bail!(
                    "init_from: {name} is {:?} there and {:?} in this model; make the models' \
                     sizes, history and horizon equal",
                    known.shape,
                    weight.shape
                ),
                None => anew.push(name.as_str()),
            }
        }
        if !anew.is_empty() {
            log(&format!("not in init_from, so started anew: {}", anew.join(", ")));
        }
    }
    let leads = statistics::leads(data, config, model)?;
    let record = Record {
        model: model.clone(),
        decides: decides(config)?,
        leads: leads.into_iter().map(f32::to_bits).collect(),
        ..Record::default()
    };
    let (optimiser, means) = (Optimiser::new(&weights), Means::new(model.codes));
    Ok(State { weights, optimiser, means, record })
}

/// What of a config decides the weights after n steps. How long it trains, where and on how many
/// threads may change between sessions.
fn decides(config: &TrainConfig) -> Result<serde_json::Value> {
    let TrainConfig {
        data,
        split,
        model,
        crop,
        augment,
        synthetic,
        batch,
        adam,
        loss,
        seed,
        init_from,
        steps: _,
        minutes: _,
        validate: _,
        checkpoint_every: _,
        log_every: _,
        threads: _,
        flow_cache_mib: _,
        out: _,
        resume: _,
    } = config;
    Ok(json!({
        "data": data, "split": split, "model": model, "crop": crop, "augment": augment,
        "synthetic": synthetic, "batch": batch, "adam": adam, "loss": loss, "seed": seed,
        "init_from": init_from.as_deref().map(Path::to_path_buf),
    }))
}

/// Whether a run was begun with this config.
fn same(then: &serde_json::Value, now: &serde_json::Value) -> Result<()> {
    // Through text: numbers compare as JSON carries them.
    let now: serde_json::Value = serde_json::from_str(&now.to_string())?;
    let keys = now.as_object().into_iter().flatten();
    let changed: Vec<&str> = keys
        .filter(|(key, value)| then.get(key) != Some(value))
        .map(|(key, _)| key.as_str())
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    bail!(
        "resume: {} changed since the run began; restore it, or start anew in another `out` (with \
         `init_from` to keep the weights)",
        changed.join(", ")
    )
}
