//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with averaged weights, in plain numbers
//! so that a resumed run goes on to the bit.

use std::collections::BTreeMap;

use super::config::TrainConfig;

/// Values by weight name.
pub(crate) type Named = BTreeMap<String, Vec<f32>>;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.98;
const EPSILON: f64 = 1e-8;

/// The optimiser's state: weights, their running average, and both moments.
#[derive(Clone, Default)]
pub(crate) struct Optimiser {
    /// Steps taken.
    pub(crate) step: u64,
    /// The weights.
    pub(crate) weights: Named,
    /// The averaged weights.
    pub(crate) ema: Named,
    /// First moments.
    pub(crate) first: Named,
    /// Second moments.
    pub(crate) second: Named,
}

impl Optimiser {
    /// A fresh state around these weights.
    pub(crate) fn new(weights: Named) -> Self {
        let zero = |values: &Named| {
            values.iter().map(|(k, v)| (k.clone(), vec![0.0; v.len()])).collect::<Named>()
        };
        Self {
            step: 0,
            ema: weights.clone(),
            first: zero(&weights),
            second: zero(&weights),
            weights,
        }
    }

    /// One step down `gradients`, which are clipped to a norm first; weights without a gradient
    /// stay. Returns the gradient's norm before clipping.
    pub(crate) fn descend(&mut self, gradients: &Named, rate: f64, config: &TrainConfig) -> f64 {
        let squares = gradients.values().flatten().map(|&g| f64::from(g) * f64::from(g));
        let norm = squares.sum::<f64>().sqrt();
        let scale = if norm > config.clip { config.clip / norm } else { 1.0 };
        self.step += 1;
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (fix1, fix2) = (1.0 - BETA1.powi(step), 1.0 - BETA2.powi(step));
        let keep = config.ema.min((1.0 + self.step as f64) / (10.0 + self.step as f64));
        for (name, weights) in &mut self.weights {
            if let (Some(gradient), Some(first), Some(second)) =
                (gradients.get(name), self.first.get_mut(name), self.second.get_mut(name))
            {
                for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                    let g = f64::from(*g) * scale;
                    let m1 = BETA1 * f64::from(*m) + (1.0 - BETA1) * g;
                    let v1 = BETA2 * f64::from(*v) + (1.0 - BETA2) * g * g;
                    let change = m1 / fix1 / ((v1 / fix2).sqrt() + EPSILON);
                    let decayed = f64::from(*w) * (1.0 - rate * config.weight_decay);
                    (*m, *v, *w) = (m1 as f32, v1 as f32, (decayed - rate * change) as f32);
                }
            }
            if let Some(average) = self.ema.get_mut(name) {
                for (a, w) in average.iter_mut().zip(weights.iter()) {
                    *a = (keep * f64::from(*a) + (1.0 - keep) * f64::from(*w)) as f32;
                }
            }
        }
        norm
    }
}

/// The learning rate at `done` of the run (0 to 1): a straight rise, then half a cosine to 0.
pub(crate) fn rate_at(done: f64, config: &TrainConfig) -> f64 {
    let peak = config.learning_rate;
    if done < config.warm_up {
        return peak * (done / config.warm_up).max(1e-3);
    }
    let along = ((done - config.warm_up) / (1.0 - config.warm_up)).min(1.0);
    peak * 0.5 * (1.0 + (std::f64::consts::PI * along).cos())
}
