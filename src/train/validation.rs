//! The averaged weights on the validation part, beside persistence and the chosen expert.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;
use physicnet_operators::model::{ModelConfig, Serve};

use super::config::{Choice, Metric, Product, TrainConfig};
use super::data::Data;
use super::sample::{Sample, Sampler};
use super::step::each;
use super::weights::Weights;

/// Errors over all leads and measured pixels, transformed units, by `product/metric`.
pub(crate) type Scores = BTreeMap<String, f64>;

/// Sums of squared and absolute errors.
type Sums = BTreeMap<&'static str, [f64; 2]>;

/// Keeps the sampler, and with it the flows of the validation windows, between validations.
pub(crate) struct Validator<'a> {
    sampler: Sampler<'a>,
    data: &'a Data,
    config: &'a TrainConfig,
    model: &'a ModelConfig,
}

impl<'a> Validator<'a> {
    pub(crate) fn new(data: &'a Data, config: &'a TrainConfig, model: &'a ModelConfig) -> Self {
        Self { sampler: Sampler::new(data, config, model), data, config, model }
    }

    /// Whether there is anything to validate on.
    pub(crate) fn any(&self) -> bool {
        self.config.validate.windows > 0 && self.data.parts.validation.len() > 0
    }

    /// Scores these weights.
    pub(crate) fn score(&mut self, weights: &Weights, threads: usize) -> Result<Scores> {
        let net = weights.frozen(self.model)?;
        let (mut sums, mut total) = (Sums::new(), 0.0);
        let windows = self.data.parts.validation.evenly(self.config.validate.windows);
        // A few at a time: whole frames are large.
        for some in windows.chunks(threads.max(1)) {
            let samples: Vec<Sample> = (some.iter())
                .map(|&window| self.sampler.plain(window, self.config.validate.crop))
                .collect::<Result<_>>()?;
            let scored = each(samples, threads, |_, sample| {
                let outputs = net.forward(&sample.batch(self.model)?)?;
                let numbers = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
                let (mean, chosen) = (numbers(&outputs.mean)?, numbers(&outputs.chosen)?);
                let sharp = outputs.sharp.as_ref().map(numbers).transpose()?;
                let base = match (self.model.serve, &sharp) {
                    (Serve::Sharp, Some(sharp)) => sharp,
                    _ => &mean,
                };
                let served = self.ramped(base, &chosen);
                let mut sums = Sums::new();
                sums.insert("served", errors(&served, &sample));
                sums.insert("mean", errors(&mean, &sample));
                sums.insert("expert", errors(&chosen, &sample));
                sums.insert("persistence", errors(&self.persistence(&sample), &sample));
                if let Some(sharp) = &sharp {
                    sums.insert("sharp", errors(sharp, &sample));
                }
                Ok((sums, sample.weights.iter().map(|&w| f64::from(w)).sum::<f64>()))
            })?;
            for (more, weight) in scored {
                total += weight;
                for (product, [squared, absolute]) in more {
                    let sum = sums.entry(product).or_default();
                    *sum = [sum[0] + squared, sum[1] + absolute];
                }
            }
        }
        let mut scores = Scores::new();
        for (product, [squared, absolute]) in sums {
            scores.insert(format!("{product}/mse"), squared / total.max(1.0));
            scores.insert(format!("{product}/mae"), absolute / total.max(1.0));
        }
        Ok(scores)
    }

    /// The served forecast: the head, blended towards the carried field as leads grow.
    fn ramped(&self, base: &[f32], chosen: &[f32]) -> Vec<f32> {
        let channels = self.model.variables.len();
        let leads = self.model.horizon;
        let shares: Vec<f32> = (0..leads).map(|k| self.model.ramp_at(k)).collect();
        let blend = |(i, (&b, &d)): (usize, (&f32, &f32))| {
            let a = shares[i % (leads * channels) / channels];
            a * d + (1.0 - a) * b
        };
        base.iter().zip(chosen).enumerate().map(blend).collect()
    }

    /// The newest frame for every lead.
    fn persistence(&self, sample: &Sample) -> Vec<f32> {
        let (channels, leads) = (self.model.variables.len(), self.model.horizon);
        let one = sample.frames.len() / self.model.history;
        let newest = &sample.frames[sample.frames.len() - one..];
        newest.chunks_exact(channels).flat_map(|pixel| pixel.repeat(leads)).collect()
    }
}

/// Weighted sums of squared and absolute errors.
fn errors(forecast: &[f32], sample: &Sample) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for ((&y, &truth), &weight) in forecast.iter().zip(&sample.truth).zip(&sample.weights) {
        if weight > 0.0 {
            let error = f64::from(y - truth);
            sums[0] += f64::from(weight) * error * error;
            sums[1] += f64::from(weight) * error.abs();
        }
    }
    sums
}

impl Choice {
    /// The score that is to be least.
    pub(crate) fn of(&self, scores: &Scores) -> Option<f64> {
        let product = match self.product {
            Product::Served => "served",
            Product::Mean => "mean",
            Product::Sharp => "sharp",
        };
        let metric = match self.metric {
            Metric::Mse => "mse",
            Metric::Mae => "mae",
        };
        scores.get(&format!("{product}/{metric}")).copied()
    }
}
