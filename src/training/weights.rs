//! Where weights start: from a seed, or from a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use candle_core::Tensor;
use candle_nn::VarMap;
use physicnet_operators::model::{Checkpoint, ModelConfig, Parent, Provenance};

use super::codes::CODEBOOK;
use super::optimiser::Named;
use super::random::Random;

/// Names of weights that did not fit, listed before the rest is only counted.
const LISTED: usize = 4;

/// A checkpoint to start from, and what of it fits the network by name and shape.
pub(crate) struct Init {
    pub(crate) checkpoint: Checkpoint,
    /// What the provenance says of it.
    pub(crate) parent: Parent,
    /// Weights of the network that it has none for.
    begun: Vec<String>,
}

impl Init {
    /// Holds a checkpoint against the network of `model`.
    ///
    /// # Errors
    /// When not one of its weights fits.
    pub(crate) fn new(checkpoint: Checkpoint, path: &Path, model: &ModelConfig) -> Result<Self> {
        let wanted = Checkpoint::untrained(model)?.weights;
        let fits = |(name, tensor): &(&String, &Tensor)| {
            checkpoint.weights.get(*name).is_some_and(|known| known.dims() == tensor.dims())
        };
        let begun: Vec<_> =
            wanted.iter().filter(|weight| !fits(weight)).map(|(name, _)| name.clone()).collect();
        let (of, path) = (wanted.len(), path.display().to_string());
        let taken = of - begun.len();
        // A bias of one number fits by chance.
        let any = wanted.iter().any(|weight| weight.1.rank() > 1 && fits(&weight));
        ensure!(
            any,
            "init_from: {path}: no matrix of it fits the network by name and shape (missing: {}); \
             `physicnet inspect` lists what it has, `model` says what the network is made of",
            few(&begun)
        );
        let Provenance { data, parent, .. } = checkpoint.provenance.clone();
        let id = checkpoint.id.to_string();
        let parent = Parent { id, path, data, taken: [taken, of], parent };
        Ok(Self { checkpoint, parent, begun })
    }

    /// The weights that the run starts with: those that fit, the rest fresh. Tells the log.
    pub(crate) fn weights(&self, map: &VarMap) -> Result<Named> {
        let mut weights = draw(map, 0)?;
        for (name, values) in weights.iter_mut().filter(|(name, _)| !self.begun.contains(name)) {
            if let Some(tensor) = self.checkpoint.weights.get(name) {
                *values = tensor.flatten_all()?.to_vec1()?;
            }
        }
        let Parent { path, taken: [taken, of], .. } = &self.parent;
        if self.begun.is_empty() {
            tracing::info!("{taken} of {of} weights taken from {path}");
        } else {
            let begun = few(&self.begun);
            tracing::warn!("{taken} of {of} weights taken from {path}; these begin anew: {begun}");
        }
        Ok(weights)
    }
}

/// A few names of all.
fn few(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
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
