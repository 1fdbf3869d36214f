//! One batch forwards and backwards, its windows spread over threads.
//!
//! Every window is computed alone and sums are taken in the order of the windows, so the result
//! is the same to the bit for any number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{Tensor, Var};
use physicnet_operators::model::{ModelConfig, Outputs, PhysicNet};

use super::loss::{Counts, Events, LossConfig, Truth, pointwise, roughness};
use super::optimiser::Gradients;
use super::sample::Sample;

/// What is minimised.
#[derive(Clone, Debug)]
pub(crate) struct Objective {
    loss: LossConfig,
    leads: Vec<f32>,
    events: Option<Events>,
    stride: usize,
    channels: usize,
}

/// The weighted parts of a batch's loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Losses {
    pub(crate) mean: f64,
    pub(crate) sharp: f64,
    pub(crate) soft_csi: f64,
    pub(crate) warp: f64,
    pub(crate) smooth: f64,
    pub(crate) commitment: f64,
}

impl Losses {
    /// Names and values, in order.
    pub(crate) fn parts(&self) -> [(&'static str, f64); 6] {
        let Self { mean, sharp, soft_csi, warp, smooth, commitment } = *self;
        [
            ("mean", mean),
            ("sharp", sharp),
            ("soft_csi", soft_csi),
            ("warp", warp),
            ("smooth", smooth),
            ("commitment", commitment),
        ]
    }

    /// What is minimised.
    pub(crate) fn total(&self) -> f64 {
        self.parts().iter().map(|(_, value)| value).sum()
    }

    /// Adds another window's share.
    pub(crate) fn add(&mut self, other: &Self, scale: f64) {
        self.mean += scale * other.mean;
        self.sharp += scale * other.sharp;
        self.soft_csi += scale * other.soft_csi;
        self.warp += scale * other.warp;
        self.smooth += scale * other.smooth;
        self.commitment += scale * other.commitment;
    }
}

/// What a batch teaches.
pub(crate) struct Lesson {
    pub(crate) losses: Losses,
    pub(crate) gradients: Gradients,
    /// The newest frames' latents, each `(h * w, latent)`.
    pub(crate) latents: Vec<Tensor>,
}

impl Objective {
    /// Of a loss with lead weights, one each lead.
    pub(crate) fn new(loss: &LossConfig, model: &ModelConfig, leads: Vec<f32>) -> Result<Self> {
        ensure!(leads.len() == model.horizon, "one weight each lead");
        let soft = &loss.soft_csi;
        let mut events = None;
        if model.sharp && soft.weight > 0.0 && !soft.thresholds.is_empty() {
            let channel = match &soft.variable {
                None => 0,
                Some(name) => {
                    (model.variables.iter().position(|v| v.name == *name)).with_context(|| {
                        format!("loss.soft_csi.variable: the model has no variable {name}")
                    })?
                }
            };
            let transform = model.variables[channel].transform;
            let thresholds = soft.thresholds.iter().map(|&t| transform.forward(t)).collect();
            events = Some(Events { thresholds, width: soft.width, channel, leads: leads.len() });
        }
        let channels = model.variables.len();
        Ok(Self { loss: loss.clone(), leads, events, stride: model.stride(), channels })
    }
}

/// A window after the forward pass: its graph, and its outputs as plain numbers.
struct Pass {
    outputs: Outputs,
    counts: Counts,
}

/// What a window adds to the batch.
struct Share {
    losses: Losses,
    gradients: Gradients,
    latent: Option<Tensor>,
}

/// The loss of a batch, its gradients, and the latents of its newest frames.
pub(crate) fn learn(
    net: &PhysicNet,
    vars: &BTreeMap<String, Var>,
    samples: &[Sample],
    objective: &Objective,
    threads: usize,
) -> Result<Lesson> {
    let passes = each(samples.iter().collect(), threads, |_, sample| {
        let outputs = net.forward(&sample.batch(&net.config)?)?;
        let mut counts = Counts::new();
        if let (Some(events), Some(sharp)) = (&objective.events, &outputs.sharp) {
            counts = events.count(&numbers(sharp)?, &truth(sample, objective));
        }
        Ok(Pass { outputs, counts })
    })?;
    let mut counts = Counts::new();
    for pass in &passes {
        counts.resize(pass.counts.len(), [0.0; 2]);
        for (sum, one) in counts.iter_mut().zip(&pass.counts) {
            *sum = [sum[0] + one[0], sum[1] + one[1]];
        }
    }
    let weight = samples.iter().flat_map(|s| &s.weights).map(|&w| f64::from(w)).sum::<f64>();
    let scales = (1.0 / weight.max(1.0), 1.0 / samples.len().max(1) as f64);
    let shares = each(passes, threads, |i, pass| {
        backward(pass, vars, &samples[i], objective, &counts, scales)
    })?;
    let mut lesson =
        Lesson { losses: Losses::default(), gradients: Gradients::new(), latents: Vec::new() };
    for share in shares {
        lesson.losses.add(&share.losses, 1.0);
        for (name, gradient) in share.gradients {
            match lesson.gradients.get_mut(&name) {
                Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
                None => _ = lesson.gradients.insert(name, gradient),
            }
        }
        lesson.latents.extend(share.latent);
    }
    if let (Some(events), false) = (&objective.events, counts.is_empty()) {
        lesson.losses.soft_csi = objective.loss.soft_csi.weight * events.value(&counts);
    }
    Ok(lesson)
}

fn truth<'a>(sample: &'a Sample, objective: &Objective) -> Truth<'a> {
    Truth { values: &sample.truth, weights: &sample.weights, channels: objective.channels }
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// The gradients of one window: those of its outputs are written out, and the graph carries
/// them on as those of `Σ output * gradient`.
fn backward(
    pass: Pass,
    vars: &BTreeMap<String, Var>,
    sample: &Sample,
    objective: &Objective,
    counts: &Counts,
    (by_weight, by_window): (f64, f64),
) -> Result<Share> {
    let Outputs { mean, global, sharp, warped, correction, commitment, latent, chosen: _ } =
        pass.outputs;
    let Objective { loss, leads, events, stride, channels: _ } = objective;
    let truth = truth(sample, objective);
    let mut losses = Losses::default();
    let mut terms: Vec<Tensor> = Vec::new();
    let mut follow = |output: &Tensor, gradient: Vec<f32>| -> candle_core::Result<()> {
        let gradient = Tensor::from_vec(gradient, output.dims(), output.device())?;
        terms.push((output * gradient)?.sum_all()?);
        Ok(())
    };
    // With a local level, gradients reach the global level through `global` alone.
    for output in std::iter::once(&mean).chain(&global) {
        let values = numbers(output)?;
        let (scale, mut gradient) = (loss.mean.weight * by_weight, vec![0.0; values.len()]);
        losses.mean += pointwise(&values, &truth, leads, loss.mean.kind, scale, &mut gradient);
        follow(output, gradient)?;
    }
    if let Some(output) = &sharp {
        let values = numbers(output)?;
        let (scale, mut gradient) = (loss.sharp.weight * by_weight, vec![0.0; values.len()]);
        losses.sharp += pointwise(&values, &truth, leads, loss.sharp.kind, scale, &mut gradient);
        if let Some(events) = events {
            events.gradient(&values, &truth, counts, loss.soft_csi.weight, &mut gradient);
        }
        follow(output, gradient)?;
    }
    if loss.warp.weight > 0.0 {
        let values = numbers(&warped)?;
        let (scale, mut gradient) = (loss.warp.weight * by_weight, vec![0.0; values.len()]);
        losses.warp += pointwise(&values, &truth, leads, loss.warp.kind, scale, &mut gradient);
        follow(&warped, gradient)?;
    }
    if let (Some(output), true) = (&correction, loss.smooth > 0.0) {
        let values = numbers(output)?;
        let (_, h, w, depth) = output.dims4()?;
        let scale = loss.smooth * by_window / (stride * stride) as f64;
        let mut gradient = vec![0.0; values.len()];
        losses.smooth += roughness(&values, [h, w, depth], scale, &mut gradient);
        follow(output, gradient)?;
    }
    if let Some(output) = &commitment {
        let scale = loss.commitment * by_window;
        losses.commitment += scale * f64::from(output.to_scalar::<f32>()?);
        follow(output, vec![scale as f32])?;
    }
    let mut terms = terms.into_iter();
    let first = terms.next().ok_or_else(|| anyhow!("loss: every weight is 0"))?;
    let total = terms.try_fold(first, |sum, term| sum + term)?;
    let store = total.backward()?;
    let mut gradients = Gradients::new();
    for (name, var) in vars {
        if let Some(gradient) = store.get(var.as_tensor()) {
            gradients.insert(name.clone(), numbers(gradient)?);
        }
    }
    Ok(Share { losses, gradients, latent })
}

/// `f` of every item on `threads` threads; the results in the order of the items.
pub(crate) fn each<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    f: impl Fn(usize, T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let slots: Vec<Mutex<(Option<T>, Option<Result<R>>)>> =
        items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(i) else { break };
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let done = slot.0.take().map(|item| f(i, item));
            slot.1 = done;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(slots.len()) {
            scope.spawn(work);
        }
        work();
    });
    let taken = |slot: Mutex<(Option<T>, Option<Result<R>>)>| {
        let (_, result) = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        result.unwrap_or_else(|| Err(anyhow!("a training thread died")))
    };
    slots.into_iter().map(taken).collect()
}
