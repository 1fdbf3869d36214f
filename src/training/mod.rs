//! Training: the nets that the operators run, taught on windows streamed from archives.
//!
//! ```text
//! archives ─► windows (by seed and step) ─► crop, augment, flow ─► shards on threads ─► gradients
//!                                                                summed in order ─► AdamW ─► EMA ─► checkpoint
//! ```
//!
//! Each window of a batch is a shard of its own and the gradients are summed in the order of the
//! batch, so the weights do not depend on the number of threads.

mod codes;
mod config;
mod data;
mod lock;
mod loss;
mod measures;
mod optimiser;
mod random;
mod sample;
mod state;
mod tendency;
#[cfg(test)]
mod tests;
mod threads;
mod usage;
mod weights;

pub use config::{Augment, By, ErrorKind, LossConfig, Split, TrainConfig};
pub use usage::calibrate;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use physicnet_operators::model::{Checkpoint, ModelConfig, PhysicNet, Provenance};
use physicnet_stream::Stop;

use codes::Codes;
use data::Data;
use loss::Loss;
use optimiser::{Named, Optimiser, rate_at};
use sample::Sample;
use state::Notes;
use threads::on_threads;
use weights::{draw, known};

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
/// (to resume) and `metrics.csv`.
///
/// # Errors
/// When the data or the config do not fit, a file cannot be written, or the loss is not finite:
/// the error then names the batch.
pub fn train(config: &TrainConfig, stop: &Stop, log: &mut dyn FnMut(&Told)) -> Result<Summary> {
    let (data, model, init) = open(config)?;
    std::fs::create_dir_all(&config.out)
        .with_context(|| format!("{}: cannot create it", config.out.display()))?;
    let _lock = lock::lock(&config.out)?;
    let mut run = Run::new(config, model, Arc::new(data), init)?;
    run.go(stop, log)
}

/// Whether the model and the data of `config` suit one another, so that training would begin.
///
/// # Errors
/// When they do not, naming the key, the store or the sensor.
pub fn suits(config: &TrainConfig) -> Result<()> {
    open(config).map(drop)
}

/// What training begins with: its data, the model for them, and the checkpoint to start from.
fn open(config: &TrainConfig) -> Result<(Data, ModelConfig, Option<Checkpoint>)> {
    config.validate()?;
    let init = config.init_from.as_deref().map(Checkpoint::load).transpose()?;
    let mut model = config.model.clone();
    if let (Some(init), true) = (&init, model.variables.is_empty()) {
        model.variables.clone_from(&init.config.variables);
    }
    let data = Data::open(config, &mut model)?;
    Ok((data, model, init))
}

struct Run<'a> {
    config: &'a TrainConfig,
    model: ModelConfig,
    data: Arc<Data>,
    map: VarMap,
    net: PhysicNet,
    optimiser: Optimiser,
    codes: Codes,
    best: Option<(f64, u64)>,
    seconds: f64,
    loss: Loss,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a TrainConfig,
        model: ModelConfig,
        data: Arc<Data>,
        init: Option<Checkpoint>,
    ) -> Result<Self> {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let net = PhysicNet::new(&model, vb)?;
        let state = config.out.join("state.safetensors");
        let (optimiser, codes, best, seconds) = if config.resume && state.exists() {
            let (optimiser, codes, notes) = state::load(&state)?;
            let same = state::fingerprint(config);
            ensure!(
                notes.config == same,
                "{}: belongs to another training file; set another `out` or `resume: false`",
                state.display()
            );
            (optimiser, codes, notes.best, notes.seconds)
        } else {
            let fit = model.tendency > 0
                && init.as_ref().is_none_or(|init| init.config.tendency != model.tendency);
            let mut weights = match init {
                Some(init) => known(&init, &map)?,
                None => draw(&map, config.seed)?,
            };
            if fit {
                tendency::fit(&net, &data, &mut weights)?;
            }
            (Optimiser::new(weights), Codes::default(), None, 0.0)
        };
        let (leads, variance) = yardstick(config, &model, &data)?;
        let loss = Loss::new(&config.loss, &model, &leads, variance)?;
        let run = Self { config, model, data, map, net, optimiser, codes, best, seconds, loss };
        run.put(&run.optimiser.weights)?;
        Ok(run)
    }

    /// Copies weights into the network.
    fn put(&self, weights: &Named) -> Result<()> {
        let vars = self.map.data().lock().map_err(|_| anyhow!("the weights' lock broke"))?;
        for (name, var) in vars.iter() {
            let values = weights
                .get(name)
                .ok_or_else(|| anyhow!("{name}: missing from the state to resume"))?;
            var.set(&Tensor::from_vec(values.clone(), var.dims(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    fn go(&mut self, stop: &Stop, log: &mut dyn FnMut(&Told)) -> Result<Summary> {
        let mut csv = measures::open(&self.config.out, self.optimiser.step)?;
        let began = Instant::now();
        let before = self.seconds;
        let first = self.optimiser.step;
        let config = self.config;
        // The loader reads while the loop changes the weights.
        let data = Arc::clone(&self.data);
        let model = self.model.clone();
        let outcome = std::thread::scope(|scope| -> Result<bool> {
            let (send, batches) = sync_channel(2);
            scope.spawn(|| {
                let send = send; // dropped with the thread, so that the loop sees the end
                for step in first..config.steps {
                    let batch: Result<Vec<Sample>> = (0..config.batch)
                        .map(|index| data.training(config, &model, step, index))
                        .collect();
                    if send.send(batch).is_err() {
                        return;
                    }
                }
            });
            self.steps(&batches, &data, stop, log, &mut csv, before, began)
        });
        let stopped = match outcome {
            Ok(stopped) => stopped,
            Err(error) => {
                let lost = |why| format!("What there is could not be saved, either: {why:#}");
                bail!("{error:#}. {}", self.rescue().unwrap_or_else(lost));
            }
        };
        self.save(true)?;
        let [best, last] =
            ["best", "last"].map(|name| self.config.out.join(name).with_extension("safetensors"));
        // Whoever interrupts does not wait for it; the sitting that ends the run does it.
        for path in [&best, &last].into_iter().filter(|path| !stopped && path.exists()) {
            let usage = usage::usage(&self.data, &Checkpoint::load(path)?, config.threads)?;
            usage.map(|usage| Checkpoint::describe(path, &usage)).transpose()?;
        }
        let checkpoint = if best.exists() { best } else { last };
        Ok(Summary { steps: self.optimiser.step, best: self.best, checkpoint, stopped })
    }

    /// The loop; true when it was asked to stop before its end.
    #[allow(clippy::too_many_arguments)] // the loop's surroundings, each used once
    fn steps(
        &mut self,
        batches: &Receiver<Result<Vec<Sample>>>,
        data: &Data,
        stop: &Stop,
        log: &mut dyn FnMut(&Told),
        csv: &mut std::fs::File,
        before: f64,
        began: Instant,
    ) -> Result<bool> {
        let first = self.optimiser.step;
        let config = self.config;
        let budget = config.minutes.map(|minutes| minutes * 60.0);
        while self.optimiser.step < config.steps {
            self.seconds = before + began.elapsed().as_secs_f64();
            if stop.stopped() {
                return Ok(true);
            }
            let by_steps = self.optimiser.step as f64 / config.steps as f64;
            let done = budget.map_or(by_steps, |budget| (self.seconds / budget).max(by_steps));
            if done >= 1.0 {
                break;
            }
            let batch = batches.recv().map_err(|_| anyhow!("the loader ended early"))??;
            let loss = self.step(&batch, rate_at(done, config))?;
            let step = self.optimiser.step;
            let mut validation = None;
            if step.is_multiple_of(config.validate_every) || step == config.steps {
                validation = Some(self.validate(data)?);
            }
            let spent = began.elapsed().as_secs_f64();
            let taken = (step - first) as f64;
            let per_step = spent / taken;
            let frames = config.batch * (self.model.history + self.model.horizon);
            let by_steps = (config.steps - step) as f64 * per_step;
            let left = budget.map_or(by_steps, |budget| by_steps.min(budget - before - spent));
            let of = step + (left / per_step).max(0.0) as u64;
            for (part, value) in &loss {
                writeln!(csv, "{step},{:.1},{part},{value}", before + spent)?;
            }
            for (part, value) in validation.iter().flatten() {
                writeln!(csv, "{step},{:.1},validation_{part},{value}", before + spent)?;
            }
            if validation.is_some() {
                // After the rows of the step: whoever goes on from the state does not write them.
                self.save(false)?;
            }
            let frames_per_second = frames as f64 / per_step;
            log(&Told { step, of, loss, frames_per_second, left, validation });
        }
        if !self.optimiser.step.is_multiple_of(config.validate_every) {
            let validation = self.validate(data)?;
            let step = self.optimiser.step;
            let told = Told {
                step,
                of: step,
                loss: Vec::new(),
                frames_per_second: 0.0,
                left: 0.0,
                validation: Some(validation),
            };
            log(&told);
        }
        Ok(false)
    }

    /// One step: shards on threads, gradients summed in the order of the batch.
    fn step(&mut self, batch: &[Sample], rate: f64) -> Result<Vec<(&'static str, f64)>> {
        let shards = on_threads(self.config.threads, batch, |sample| self.shard(sample));
        let mut gradients = Named::new();
        let mut parts: Vec<(&'static str, f64)> = Vec::new();
        let mut latents = (Vec::new(), Vec::new());
        let share = 1.0 / batch.len() as f32;
        for (sample, shard) in batch.iter().zip(shards) {
            let shard = shard?;
            for (name, values) in shard.gradients {
                let sum = gradients.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(sum, g)| *sum += share * g);
            }
            for (name, value) in shard.parts {
                if !value.is_finite() {
                    let step = self.optimiser.step + 1;
                    bail!(
                        "step {step}: the loss ({name}) is {value}, first on {}. Lower \
                         `learning_rate`, or look at that window with `inspect`",
                        sample.place
                    );
                }
                match parts.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += value / batch.len() as f64,
                    None => parts.push((name, value / batch.len() as f64)),
                }
            }
            latents.0.extend(shard.latents);
            latents.1.extend(shard.codes);
        }
        let norm = self.optimiser.descend(&gradients, rate, self.config);
        parts.push(("norm", norm));
        let Optimiser { weights, ema, .. } = &mut self.optimiser;
        self.codes.follow(&latents.0, &latents.1, self.model.latent, &mut [weights, ema]);
        if !self.codes.counts.is_empty() {
            parts.push(("perplexity", self.codes.perplexity()));
        }
        self.put(&self.optimiser.weights)?;
        Ok(parts)
    }

    fn shard(&self, sample: &Sample) -> Result<Shard> {
        let out = self.net.forward(&sample.batch)?;
        let losses = self.loss.of(&out, sample)?;
        let store = losses.total.backward()?;
        let mut gradients = Named::new();
        for (name, var) in self.map.data().lock().map_err(|_| anyhow!("lock"))?.iter() {
            if let Some(gradient) = store.get(var) {
                gradients.insert(name.clone(), gradient.flatten_all()?.to_vec1()?);
            }
        }
        let (mut latents, mut codes) = (Vec::new(), Vec::new());
        if let (Some(codebook), Some(latent)) = (&self.net.codebook, &out.latent) {
            latents = latent.flatten_all()?.to_vec1()?;
            codes = codebook.codes(latent)?.flatten_all()?.to_vec1()?;
        }
        Ok(Shard { gradients, parts: losses.parts, latents, codes })
    }

    /// Scores the averaged weights on the validation part: the mean absolute and squared error of
    /// both heads and of the chosen expert, transformed units.
    fn validate(&mut self, data: &Data) -> Result<BTreeMap<String, f64>> {
        let net = self.checkpoint(&self.optimiser.ema)?.network(&Device::Cpu)?;
        let mut sums = BTreeMap::<String, f64>::new();
        let mut count = 0.0;
        let mut samples = data.validation(&self.model, self.config.validate_windows).peekable();
        while samples.peek().is_some() {
            let some: Vec<Sample> =
                samples.by_ref().take(self.config.threads).collect::<Result<_>>()?;
            for scored in on_threads(self.config.threads, &some, |sample| scores(&net, sample)) {
                let (n, scored) = scored?;
                count += n;
                scored.into_iter().for_each(|(k, v)| *sums.entry(k).or_default() += v);
            }
        }
        if count > 0.0 {
            sums.values_mut().for_each(|sum| *sum /= count);
            let score = sums.get("mae_sharp").or(sums.get("mae_mean")).copied();
            let better = |score: f64| self.best.is_none_or(|(best, _)| score < best);
            if let Some(score) = score.filter(|&score| better(score)) {
                self.best = Some((score, self.optimiser.step));
                let mut best = self.checkpoint(&self.optimiser.ema)?;
                best.provenance.validation.clone_from(&sums);
                best.save(&self.config.out.join("best.safetensors"))?;
            }
        }
        Ok(sums)
    }

    fn checkpoint(&self, weights: &Named) -> Result<Checkpoint> {
        let vars = self.map.data().lock().map_err(|_| anyhow!("the weights' lock broke"))?;
        let tensor = |(name, var): (&String, &candle_core::Var)| {
            let values = weights.get(name).cloned().unwrap_or_default();
            Ok((name.clone(), Tensor::from_vec(values, var.dims(), &Device::Cpu)?))
        };
        let weights = vars.iter().map(tensor).collect::<Result<_>>()?;
        let (training, _) = self.data.counts();
        let provenance = Provenance {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data: self.config.data.iter().map(|store| store.path.display().to_string()).collect(),
            grid: (training > 0).then(|| self.data.grid()),
            steps: self.optimiser.step,
            seed: self.config.seed,
            validation: BTreeMap::new(),
        };
        let (config, usage, id) = (self.model.clone(), None, "none".into());
        Ok(Checkpoint { config, provenance, weights, usage, id })
    }

    /// Keeps what an error leaves, and says where it is.
    fn rescue(&self) -> Result<String> {
        let Optimiser { weights, ema, .. } = &self.optimiser;
        // As whoever loads them looks at them.
        let sane = |w: &Vec<f32>| w.iter().map(|value| value * value).sum::<f32>().is_finite();
        if weights.values().chain(ema.values()).all(sane) {
            self.save(true)?;
            let last = self.config.out.join("last.safetensors");
            return Ok(format!("The weights before that are in {}", last.display()));
        }
        let best = self.config.out.join("best.safetensors");
        Ok(if best.exists() {
            format!("The weights had gone astray before that; {} is from before", best.display())
        } else {
            "The weights had gone astray before that, and are not kept".to_owned()
        })
    }

    fn save(&self, last: bool) -> Result<()> {
        let notes = Notes {
            step: self.optimiser.step,
            seconds: self.seconds,
            best: self.best,
            config: state::fingerprint(self.config),
        };
        let out = &self.config.out;
        state::save(&out.join("state.safetensors"), &self.optimiser, &self.codes, &notes)?;
        if last {
            self.checkpoint(&self.optimiser.ema)?.save(&out.join("last.safetensors"))?;
        }
        Ok(())
    }
}

/// What one window gives to a step.
struct Shard {
    gradients: Named,
    parts: Vec<(&'static str, f64)>,
    latents: Vec<f32>,
    codes: Vec<u32>,
}

/// The number of pixels that count and the sums of errors over them.
fn scores(net: &PhysicNet, sample: &Sample) -> Result<(f64, BTreeMap<String, f64>)> {
    let out = net.forward(&sample.batch)?;
    let sum = |x: Tensor| -> Result<f64> { Ok(f64::from(x.sum_all()?.to_scalar::<f32>()?)) };
    let count = sum(sample.weight.clone())?;
    let mut scored = BTreeMap::new();
    let mut fields = vec![("mean", &out.mean), ("expert", &out.chosen)];
    fields.extend(out.global.as_ref().map(|global| ("global", global)));
    fields.extend(out.sharp.as_ref().map(|sharp| ("sharp", sharp)));
    for (name, field) in fields {
        let off = ((field - &sample.target)? * &sample.weight)?;
        scored.insert(format!("mae_{name}"), sum(off.abs()?)?);
        scored.insert(format!("mse_{name}"), sum(off.sqr()?)?);
    }
    Ok((count, scored))
}

/// Lead weights and the squared error in physical units that the chosen expert leaves, over some
/// training windows.
fn yardstick(config: &TrainConfig, model: &ModelConfig, data: &Data) -> Result<(Vec<f32>, f64)> {
    let channels = model.variables.len();
    if !config.loss.weigh_leads && config.loss.physical == 0.0 {
        return Ok((vec![1.0; model.horizon], 1.0));
    }
    let mut errors = vec![0.0_f64; model.horizon];
    let (mut physical, mut pixels) = (0.0_f64, 0.0_f64);
    for index in 0..24 {
        let sample = data.training(config, model, u64::MAX, index)?;
        let history = model.history;
        let newest =
            sample.batch.frames.narrow(1, history - 1, 1)?.flatten_all()?.to_vec1::<f32>()?;
        let target = sample.target.flatten_all()?.to_vec1::<f32>()?;
        let weight = sample.weight.flatten_all()?.to_vec1::<f32>()?;
        let depth = model.horizon * channels;
        for (at, (&y, &w)) in target.iter().zip(&weight).enumerate() {
            if w > 0.0 {
                let c = at % channels;
                let last = newest[at / depth * channels + c];
                errors[at % depth / channels] += f64::from((y - last) * (y - last));
                let transform = model.variables[c].transform;
                let off = f64::from(transform.inverse(y) - transform.inverse(last));
                physical += off * off;
                pixels += 1.0;
            }
        }
    }
    let mut weights = vec![1.0; model.horizon];
    if config.loss.weigh_leads {
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let raw: Vec<f64> = errors.iter().map(|e| 1.0 / (e / mean.max(1e-30) + 0.2)).collect();
        let before: f64 = errors.iter().sum();
        let after: f64 = errors.iter().zip(&raw).map(|(e, w)| e * w).sum();
        weights = raw.iter().map(|w| (w * before / after.max(1e-30)) as f32).collect();
    }
    Ok((weights, if pixels > 0.0 { physical / pixels } else { 1.0 }))
}
