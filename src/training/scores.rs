//! What windows say of a network, and what is asked of it.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;
use physicnet_operators::model::{ModelConfig, PhysicNet};

use super::config::TrainConfig;
use super::data::Data;
use super::sample::Sample;

/// The number of pixels that count and the sums of errors over them.
pub(super) fn scores(net: &PhysicNet, sample: &Sample) -> Result<(f64, BTreeMap<String, f64>)> {
    let out = net.forward(&sample.batch)?;
    let sample = &sample.on(&net.device)?;
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
pub(super) fn yardstick(
    config: &TrainConfig,
    model: &ModelConfig,
    data: &Data,
) -> Result<(Vec<f32>, f64)> {
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
                if c == 0 {
                    let transform = model.variables[0].transform;
                    let off = f64::from(transform.inverse(y) - transform.inverse(last));
                    physical += off * off;
                    pixels += 1.0;
                }
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
