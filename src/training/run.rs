//! The loop: batches from the loader, gradients of shards, steps down, validations, checkpoints.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use physicnet_operators::model::{Checkpoint, ModelConfig, Parent, PhysicNet, Provenance};
use physicnet_stream::Stop;

use super::ahead::Ahead;
use super::codes::Codes;
use super::config::TrainConfig;
use super::data::Data;
use super::loss::Loss;
use super::motion::Motion;
use super::optimiser::{Named, Optimiser, rate_at};
use super::sample::Sample;
use super::scores::{scores, yardstick};
use super::state::{self, Notes};
use super::threads::on_threads;
use super::weights::{Init, draw};
use super::{Seconds, Summary, Told, curves, measures, tendency, usage};

/// A run: what it trains, on what, and how far it is.
pub(super) struct Run<'a> {
    config: &'a TrainConfig,
    pub(super) model: ModelConfig,
    pub(super) data: Arc<Data>,
    map: VarMap,
    /// What computes.
    pub(super) device: Device,
    net: PhysicNet,
    pub(super) optimiser: Optimiser,
    codes: Codes,
    best: Option<(f64, u64)>,
    seconds: f64,
    pub(super) loss: Loss,
    /// The checkpoint that it began from.
    parent: Option<Parent>,
}

impl<'a> Run<'a> {
    /// Where `config` begins, or goes on from the state in `out`.
    ///
    /// # Errors
    /// When the state is not of this training, or a window that it takes cannot be read.
    pub(super) fn new(
        config: &'a TrainConfig,
        model: ModelConfig,
        data: Arc<Data>,
        init: Option<Init>,
    ) -> Result<Self> {
        let map = VarMap::new();
        let device = config.device.device(0)?;
        let vb = VarBuilder::from_varmap(&map, DType::F32, &device);
        let net = PhysicNet::new(&model, vb)?;
        let state = config.out.join("state.safetensors");
        let (optimiser, codes, best, seconds, parent) = if config.resume && state.exists() {
            let (optimiser, codes, notes) = state::load(&state)?;
            let same = state::fingerprint(config);
            ensure!(
                notes.config == same,
                "{}: belongs to another training file, in which these differ: {}. To go on from its \
                 weights set another `out` and `init_from: {}`; `resume: false` begins anew, over it",
                state.display(),
                state::differing(&notes.config, &same).join(", "),
                config.out.join("last.safetensors").display()
            );
            (optimiser, codes, notes.best, notes.seconds, notes.parent)
        } else {
            let fit = model.tendency > 0
                && init
                    .as_ref()
                    .is_none_or(|init| init.checkpoint.config.tendency != model.tendency);
            let mut weights = match &init {
                Some(init) => init.weights(&map)?,
                None => draw(&map, config.seed)?,
            };
            if fit {
                tendency::fit(&net, &data, &mut weights)?;
            }
            let parent = init.map(|init| init.parent);
            (Optimiser::new(weights), Codes::default(), None, 0.0, parent)
        };
        let (leads, variance) = yardstick(config, &model, &data)?;
        let loss = Loss::new(&config.loss, &model, &leads, variance)?;
        let run = Self {
            config,
            model,
            data,
            map,
            device,
            net,
            optimiser,
            codes,
            best,
            seconds,
            loss,
            parent,
        };
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
            var.set(&Tensor::from_vec(values.clone(), var.dims(), &self.device)?)?;
        }
        Ok(())
    }

    /// Trains until the end or until it is asked to stop, and leaves the files.
    ///
    /// # Errors
    /// As [`train`](super::train) says.
    pub(super) fn go(&mut self, stop: &Stop, log: &mut dyn FnMut(&Told)) -> Result<Summary> {
        let csv = measures::open(&self.config.out, self.optimiser.step)?;
        let spent = Seconds::default();
        let mut sitting = Sitting { csv, begun: Instant::now(), before: self.seconds, spent };
        let config = self.config;
        // The loader reads while the loop changes the weights.
        let (data, model) = (Arc::clone(&self.data), self.model.clone());
        let outcome = std::thread::scope(|scope| {
            let left = self.optimiser.step..config.steps;
            let ahead = Ahead::begin(scope, &data, config, &model, left);
            self.steps(&ahead, &mut sitting, stop, log)
        });
        let stopped = match outcome {
            Ok(stopped) => stopped,
            Err(error) => {
                let lost = |why| format!("What there is could not all be saved, either: {why:#}");
                bail!("{error:#}. {}", self.rescue().unwrap_or_else(lost));
            }
        };
        self.save(true)?;
        curves::draw(&config.out)?;
        let all = sitting.begun.elapsed().as_secs_f64();
        let seconds = Seconds { all, ..sitting.spent };
        let [best, last] =
            ["best", "last"].map(|name| config.out.join(name).with_extension("safetensors"));
        // Whoever interrupts does not wait for it; the sitting that ends the run does it.
        for path in [&best, &last].into_iter().filter(|path| !stopped && path.exists()) {
            let net = Checkpoint::load(path)?.network(&self.device)?;
            let usage = usage::usage(&self.data, &net, config.threads)?;
            usage.map(|(usage, _)| Checkpoint::describe(path, &usage)).transpose()?;
        }
        let checkpoint = if best.exists() { best } else { last };
        Ok(Summary { steps: self.optimiser.step, best: self.best, checkpoint, stopped, seconds })
    }

    /// The loop; true when it was asked to stop before its end.
    fn steps(
        &mut self,
        ahead: &Ahead,
        sitting: &mut Sitting,
        stop: &Stop,
        log: &mut dyn FnMut(&Told),
    ) -> Result<bool> {
        let first = self.optimiser.step;
        let config = self.config;
        let budget = config.minutes.map(|minutes| minutes * 60.0);
        while self.optimiser.step < config.steps {
            self.seconds = sitting.seconds();
            if stop.stopped() {
                return Ok(true);
            }
            let by_steps = self.optimiser.step as f64 / config.steps as f64;
            let done = budget.map_or(by_steps, |budget| (self.seconds / budget).max(by_steps));
            if done >= 1.0 {
                break;
            }
            let (batch, waited) = ahead.next()?;
            let waited = waited.as_secs_f64();
            let read = batch.iter().map(|sample| sample.read.as_secs_f64()).sum::<f64>();
            sitting.spent.waited += waited;
            sitting.spent.read += read;
            let rate = rate_at(done, config);
            let Parts { loss, mut health } = match self.step(&batch, rate, stop) {
                Err(error) if error.is::<Halted>() => return Ok(true),
                step => step?,
            };
            health.extend([("learning_rate", rate), ("waited", waited), ("read", read)]);
            let step = self.optimiser.step;
            let mut validation = None;
            if step.is_multiple_of(config.validate_every) || step == config.steps {
                validation = Some(self.validate()?);
            }
            let seconds = sitting.seconds();
            let per_step = (seconds - sitting.before) / (step - first) as f64;
            let frames = config.batch * (self.model.history + self.model.horizon);
            let by_steps = (config.steps - step) as f64 * per_step;
            let left = budget.map_or(by_steps, |budget| by_steps.min(budget - seconds));
            let of = step + (left / per_step).max(0.0) as u64;
            for (part, value) in loss.iter().chain(&health) {
                writeln!(sitting.csv, "{step},{seconds:.1},{part},{value}")?;
            }
            for (part, value) in validation.iter().flatten() {
                writeln!(sitting.csv, "{step},{seconds:.1},validation_{part},{value}")?;
            }
            if validation.is_some() {
                // After the rows of the step: whoever goes on from the state does not write them.
                self.save(false)?;
                curves::draw(&config.out)?;
            }
            let frames_per_second = frames as f64 / per_step;
            log(&Told { step, of, loss, health, frames_per_second, left, validation });
        }
        // The clock ended it between two validations.
        if self.optimiser.step < config.steps
            && !self.optimiser.step.is_multiple_of(config.validate_every)
        {
            let validation = Some(self.validate()?);
            let step = self.optimiser.step;
            let (loss, health) = (Vec::new(), Vec::new());
            let (frames_per_second, left) = (0.0, 0.0);
            log(&Told { step, of: step, loss, health, frames_per_second, left, validation });
        }
        Ok(false)
    }

    /// One step: shards on threads, gradients summed in the order of the batch.
    ///
    /// # Errors
    /// [`Astray`] where the loss is not finite, [`Halted`] where `stop` is asked before the last
    /// window: nothing has changed then.
    pub(super) fn step(&mut self, batch: &[Sample], rate: f64, stop: &Stop) -> Result<Parts> {
        let shards = on_threads(self.config.threads, batch, |sample| {
            ensure!(!stop.stopped(), Halted);
            self.shard(sample)
        });
        let mut gradients = Named::new();
        let mut loss: Vec<(&'static str, f64)> = Vec::new();
        let mut latents = (Vec::new(), Vec::new());
        let mut motion: Option<Motion> = None;
        let share = 1.0 / batch.len() as f32;
        for (sample, shard) in batch.iter().zip(shards) {
            let shard = shard?;
            for (name, values) in shard.gradients {
                let sum = gradients.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(sum, g)| *sum += share * g);
            }
            // The parts before their sum, so that the error names what went astray.
            if let Some(&(part, value)) = shard.parts.iter().rev().find(|p| !p.1.is_finite()) {
                let (step, place) = (self.optimiser.step + 1, sample.place.clone());
                return Err(Astray { step, part, value, place }.into());
            }
            for (name, value) in shard.parts {
                match loss.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += value / batch.len() as f64,
                    None => loss.push((name, value / batch.len() as f64)),
                }
            }
            latents.0.extend(shard.latents);
            latents.1.extend(shard.codes);
            if let Some(moved) = shard.motion {
                motion.get_or_insert_default().add(moved);
            }
        }
        let norm = self.optimiser.descend(&gradients, rate, self.config);
        let mut health = vec![("norm", norm)];
        let Optimiser { weights, ema, .. } = &mut self.optimiser;
        let revived =
            self.codes.follow(&latents.0, &latents.1, self.model.latent, &mut [weights, ema]);
        if !self.codes.counts.is_empty() {
            health.extend([("perplexity", self.codes.perplexity()), ("revived", revived as f64)]);
        }
        health.extend(motion.into_iter().flat_map(Motion::told));
        self.put(&self.optimiser.weights)?;
        Ok(Parts { loss, health })
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
        let moves = out.correction.is_some().then(|| Motion::of(&out.displacement, sample));
        let motion = moves.transpose()?;
        Ok(Shard { gradients, parts: losses.parts, latents, codes, motion })
    }

    /// Scores the averaged weights on the validation part: the mean absolute and squared error of
    /// both heads and of the chosen expert, transformed units.
    fn validate(&mut self) -> Result<BTreeMap<String, f64>> {
        let net = self.checkpoint(&self.optimiser.ema)?.network(&self.device)?;
        let mut sums = BTreeMap::<String, f64>::new();
        let mut count = 0.0;
        let places = self.data.validation(self.config.validate_windows);
        // Each thread reads what it scores, so that none waits for another's reading.
        let scored = on_threads(self.config.threads, &places, |place| {
            scores(&net, &self.data.whole(*place, &self.model)?)
        });
        for scored in scored {
            let (n, scored) = scored?;
            count += n;
            scored.into_iter().for_each(|(k, v)| *sums.entry(k).or_default() += v);
        }
        if count > 0.0 {
            sums.values_mut().for_each(|sum| *sum /= count);
            let score = sums.get("mae_sharp").or(sums.get("mae_mean")).copied();
            let better = |score: f64| self.best.is_none_or(|(best, _)| score < best);
            if let Some(score) = score.filter(|&score| better(score)) {
                let mut best = self.checkpoint(&self.optimiser.ema)?;
                best.provenance.validation.clone_from(&sums);
                best.save(&self.config.out.join("best.safetensors"))?;
                self.best = Some((score, self.optimiser.step));
            }
        }
        Ok(sums)
    }

    /// The checkpoint of these weights.
    pub(super) fn checkpoint(&self, weights: &Named) -> Result<Checkpoint> {
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
            learning_rate: Some(self.config.learning_rate),
            loss: Some(serde_json::to_value(&self.config.loss)?),
            parent: self.parent.clone().map(Box::new),
        };
        let (config, stored) = (self.model.clone(), self.config.weights);
        Ok(Checkpoint { config, provenance, weights, stored, usage: None, id: "none".into() })
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
            parent: self.parent.clone(),
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
    motion: Option<Motion>,
}

/// What a step measured: the loss and its parts, and how the network does.
pub(super) struct Parts {
    pub(super) loss: Vec<(&'static str, f64)>,
    pub(super) health: Vec<(&'static str, f64)>,
}

/// A step that was given up, since the run is to stop.
#[derive(Debug)]
pub(super) struct Halted;

impl std::error::Error for Halted {}

impl std::fmt::Display for Halted {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("stopped in the middle of a step")
    }
}

/// A loss that is no number.
#[derive(Debug)]
pub(super) struct Astray {
    step: u64,
    part: &'static str,
    value: f64,
    place: String,
}

impl std::error::Error for Astray {}

impl std::fmt::Display for Astray {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { step, part, value, place } = self;
        write!(
            f,
            "step {step}: the loss ({part}) is {value}, first on {place}. Lower \
             `learning_rate`, or look at that window with `inspect`"
        )
    }
}

/// One sitting of a run.
struct Sitting {
    csv: std::fs::File,
    begun: Instant,
    /// Seconds of the sittings before it.
    before: f64,
    /// What it has spent, but for all of it.
    spent: Seconds,
}

impl Sitting {
    /// Seconds trained, over all sittings.
    fn seconds(&self) -> f64 {
        self.before + self.begun.elapsed().as_secs_f64()
    }
}
