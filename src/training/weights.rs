//! Where weights start: from a seed, or from a checkpoint.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use candle_nn::VarMap;
use physicnet_operators::model::Checkpoint;

use super::codes::CODEBOOK;
use super::optimiser::Named;
use super::random::Random;

/// The weights of a checkpoint for this network: those that fit by name and shape, the rest fresh.
pub(crate) fn known(init: &Checkpoint, map: &VarMap) -> Result<Named> {
    let mut weights = draw(map, 0)?;
    for (name, values) in &mut weights {
        if let Some(tensor) = init.weights.get(name).filter(|t| t.elem_count() == values.len()) {
            *values = tensor.flatten_all()?.to_vec1()?;
        }
    }
    Ok(weights)
}

/// Fresh weights from a seed: candle's own initialisation cannot be seeded on the CPU, so its
/// scale is kept and the draws are ours.
pub(crate) fn draw(map: &VarMap, seed: u64) -> Result<Named> {
    let vars = map.data().lock().map_err(|_| anyhow!("the weights' lock broke"))?;
    let mut weights = Named::new();
    let sorted: BTreeMap<_, _> = vars.iter().collect();
    for (at, (name, var)) in sorted.into_iter().enumerate() {
        let values: Vec<f32> = var.flatten_all()?.to_vec1()?;
        let constant = values.iter().all(|v| v.to_bits() == values[0].to_bits());
        let mut random = Random::new(seed, &[0x5eed, at as u64]);
        let fan_in: usize = var.dims().iter().skip(1).product();
        let scale = if name == CODEBOOK { 1.0 } else { (2.0 / fan_in.max(1) as f64).sqrt() };
        let fresh = values.iter().map(|_| (scale * random.normal()) as f32);
        weights.insert(name.clone(), if constant { values.clone() } else { fresh.collect() });
    }
    Ok(weights)
}
