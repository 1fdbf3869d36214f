//! AdamW (Loshchilov and Hutter 2019), its schedule and the averaged weights.

use std::collections::BTreeMap;

use super::config::Adam;
use super::weights::Weights;

/// Gradients by weight name.
pub(crate) type Gradients = BTreeMap<String, Vec<f32>>;

/// Running moments and the averaged weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Optimiser {
    /// Steps taken.
    pub(crate) step: u64,
    /// Running mean of the gradient.
    pub(crate) first: Weights,
    /// Running mean of its square.
    pub(crate) second: Weights,
    /// The averaged weights: what is validated and kept.
    pub(crate) average: Weights,
}

/// The learning rate when `fraction` of the training is done: up in a line, down in a cosine.
pub(crate) fn learning_rate(adam: &Adam, fraction: f64) -> f64 {
    let fraction = fraction.clamp(0.0, 1.0);
    if fraction < adam.warmup {
        return adam.lr * fraction / adam.warmup;
    }
    let along = (fraction - adam.warmup) / (1.0 - adam.warmup);
    adam.lr * 0.5 * (1.0 + (std::f64::consts::PI * along).cos())
}

/// The norm of all gradients together.
pub(crate) fn norm(gradients: &Gradients) -> f64 {
    let squares = gradients.values().flatten().map(|&g| f64::from(g).powi(2));
    squares.sum::<f64>().sqrt()
}

impl Optimiser {
    /// At rest, before the first step.
    pub(crate) fn new(weights: &Weights) -> Self {
        let zeros = weights.zeros();
        Self { step: 0, first: zeros.clone(), second: zeros, average: weights.clone() }
    }

    /// Takes one step at rate `lr`, the gradients clipped to a global norm, and averages. Weights
    /// without a gradient (the codebook) stay.
    pub(crate) fn step(&mut self, adam: &Adam, lr: f64, weights: &mut Weights, grads: &Gradients) {
        let k = self.step;
        self.step += 1;
        let size = norm(grads);
        let clip = if size > adam.clip { (adam.clip / size) as f32 } else { 1.0 };
        let [b1, b2] = adam.betas;
        let (c1, c2) = (1.0 - b1.powf((k + 1) as f64), 1.0 - b2.powf((k + 1) as f64));
        let (b1, b2, decay) = (b1 as f32, b2 as f32, (lr * adam.weight_decay) as f32);
        let (rate, root) = ((lr / c1) as f32, c2.sqrt() as f32);
        let keep = adam.ema.min((1.0 + k as f64) / (10.0 + k as f64)) as f32;
        for (name, weight) in &mut weights.0 {
            let (Some(m), Some(v)) = (self.first.0.get_mut(name), self.second.0.get_mut(name))
            else {
                continue;
            };
            if let Some(gradient) = grads.get(name) {
                let moments = m.values.iter_mut().zip(&mut v.values);
                for ((w, &g), (m, v)) in weight.values.iter_mut().zip(gradient).zip(moments) {
                    let g = g * clip;
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *w -= rate * *m / (v.sqrt() / root + 1e-8) + decay * *w;
                }
            }
            if let Some(average) = self.average.0.get_mut(name) {
                for (a, &w) in average.values.iter_mut().zip(&weight.values) {
                    *a = keep * *a + (1.0 - keep) * w;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::weights::Weight;

    #[test]
    fn the_schedule_rises_and_falls() {
        let adam = Adam { lr: 2.0, warmup: 0.1, ..Adam::default() };
        let rates = [0.0, 0.05, 0.1, 0.55, 1.0, 2.0].map(|f| learning_rate(&adam, f));
        for (rate, wanted) in rates.iter().zip([0.0, 1.0, 2.0, 1.0, 0.0, 0.0]) {
            assert!((rate - wanted).abs() < 1e-12, "{rates:?}");
        }
    }

    #[test]
    fn adam_agrees_with_the_scalar_formula() {
        let adam = Adam { weight_decay: 0.1, clip: 1.5, ema: 0.5, ..Adam::default() };
        let weight = |value| Weight { shape: vec![1], values: vec![value] };
        let one = |value| Weights(BTreeMap::from([("w".to_owned(), weight(value))]));
        let mut weights = one(0.7);
        let mut optimiser = Optimiser::new(&weights);
        let (mut w, mut m, mut v, mut average) = (0.7_f64, 0.0_f64, 0.0_f64, 0.7_f64);
        for k in 0..40_i32 {
            let g = 2.0 * f64::from(weights.0["w"].values[0]) - 3.0;
            let lr = 0.01 + 0.001 * f64::from(k);
            let gradients = Gradients::from([("w".to_owned(), vec![g as f32])]);
            optimiser.step(&adam, lr, &mut weights, &gradients);
            let g = g.clamp(-1.5, 1.5);
            m = 0.9 * m + 0.1 * g;
            v = 0.98 * v + 0.02 * g * g;
            let (mh, vh) = (m / (1.0 - 0.9_f64.powi(k + 1)), v / (1.0 - 0.98_f64.powi(k + 1)));
            w -= lr * (mh / (vh.sqrt() + 1e-8) + 0.1 * w);
            let keep = (f64::from(1 + k) / f64::from(10 + k)).min(0.5);
            average = keep * average + (1.0 - keep) * w;
            assert!((f64::from(weights.0["w"].values[0]) - w).abs() < 1e-4);
            assert!((f64::from(optimiser.average.0["w"].values[0]) - average).abs() < 1e-4);
        }
    }
}
