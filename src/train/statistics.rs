//! What is measured on the training part before the first step.

use anyhow::{Context, Result, ensure};
use physicnet_operators::cropping::Transform;
use physicnet_operators::model::ModelConfig;

use super::config::TrainConfig;
use super::data::Data;
use super::loss::lead_weights;
use super::sample::Sampler;

/// At most so many frames decide mean and standard deviation: evenly over the training part.
const FRAMES: usize = 2000;

/// At most so many windows decide the weights of the leads.
const WINDOWS: usize = 64;

/// Fits the transforms that leave numbers open, in one pass over the training frames.
pub(crate) fn fit(data: &Data, model: &mut ModelConfig) -> Result<()> {
    if model.variables.iter().all(|variable| variable.transform.fitted()) {
        return Ok(());
    }
    let total: usize = data.parts.spans.iter().map(|(_, _, from, end)| end - from).sum();
    let every = total.div_ceil(FRAMES).max(1);
    // Sums about the first value: a field of 280 K must not lose its spread to rounding.
    let mut sums = vec![(0.0_f64, 0.0_f64, 0.0_f64, None::<f64>); model.variables.len()];
    let mut seen = 0;
    for &(store, sensor, from, end) in &data.parts.spans {
        for frame in from..end {
            seen += 1;
            if (seen - 1) % every != 0 {
                continue;
            }
            let frame = data.stores[store].read(sensor, frame)?;
            let plane = frame.shape[1] * frame.shape[2];
            for (values, sum) in frame.data.chunks_exact(plane.max(1)).zip(&mut sums) {
                for x in values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)) {
                    let d = x - *sum.3.get_or_insert(x);
                    *sum = (sum.0 + 1.0, sum.1 + d, sum.2 + d * d, sum.3);
                }
            }
        }
    }
    for (variable, (n, sum, squares, origin)) in model.variables.iter_mut().zip(sums) {
        if variable.transform.fitted() {
            continue;
        }
        let origin = origin.with_context(|| {
            format!("{}: no measured value in the training part", variable.name)
        })?;
        let std = (squares / n - (sum / n).powi(2)).max(0.0).sqrt();
        ensure!(
            std > 0.0,
            "{}: constant over the training part; leave it out of `variables`",
            variable.name
        );
        // In single precision, so that JSON carries the numbers exactly.
        let [fitted_mean, fitted_std] = [origin + sum / n, std].map(|x| f64::from(x as f32));
        if let Transform::Standardise { mean, std } = variable.transform {
            variable.transform = Transform::Standardise {
                mean: mean.or(Some(fitted_mean)),
                std: std.or(Some(fitted_std)),
            };
        }
    }
    Ok(())
}

/// The weights of the leads: 1, or against the error of persistence on training windows.
pub(crate) fn leads(data: &Data, config: &TrainConfig, model: &ModelConfig) -> Result<Vec<f32>> {
    let horizon = model.horizon;
    if !config.loss.lead_weighting {
        return Ok(vec![1.0; horizon]);
    }
    let mut sampler = Sampler::new(data, config, model);
    let (mut errors, mut weights) = (vec![0.0_f64; horizon], vec![0.0_f64; horizon]);
    let channels = model.variables.len();
    for window in data.parts.train.evenly(WINDOWS) {
        let sample = sampler.plain(window, 0)?;
        let newest = &sample.frames[sample.frames.len() / model.history * (model.history - 1)..];
        for (i, (&y, &w)) in sample.truth.iter().zip(&sample.weights).enumerate() {
            let row = horizon * channels;
            let before = newest[i / row * channels + i % channels];
            let lead = i % row / channels;
            errors[lead] += f64::from(w) * f64::from(y - before).powi(2);
            weights[lead] += f64::from(w);
        }
    }
    let means: Vec<f64> = errors.iter().zip(&weights).map(|(e, w)| e / w.max(1.0)).collect();
    Ok(lead_weights(&means))
}
