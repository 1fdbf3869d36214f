//! What a run must remember to go on as if it had never stopped.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{Device, Tensor};
use physicnet_operators::model::ModelConfig;
use serde::{Deserialize, Serialize};

use super::codebook::Means;
use super::optimiser::Optimiser;
use super::weights::{Weight, Weights};

/// A run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) weights: Weights,
    pub(crate) optimiser: Optimiser,
    pub(crate) means: Means,
    pub(crate) record: Record,
}

/// The part of a state that is no tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Steps taken. Batches are a function of the seed and the step: no generator has a state.
    pub(crate) step: u64,
    /// Seconds trained.
    pub(crate) seconds: f64,
    /// The bits of the best validation score: JSON need not carry floats exactly.
    pub(crate) best: Option<u64>,
    /// The validation scores of the averaged weights when last validated.
    pub(crate) scores: BTreeMap<String, f64>,
    /// Weights of the leads in the loss, as bits.
    pub(crate) leads: Vec<u32>,
    /// The model, completed and fitted.
    pub(crate) model: ModelConfig,
    /// Everything in the config that decides the weights.
    pub(crate) decides: serde_json::Value,
}

impl State {
    /// Writes the file: to a temporary name, synced, then renamed.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let groups = [
            ("weights", &self.weights),
            ("average", &self.optimiser.average),
            ("first", &self.optimiser.first),
            ("second", &self.optimiser.second),
        ];
        for (group, weights) in groups {
            let all = weights.tensors()?;
            tensors.extend(all.into_iter().map(|(name, t)| (format!("{group}/{name}"), t)));
        }
        let plain = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        tensors.push(("codebook/counts".into(), plain(&self.means.counts)?));
        if !self.means.sums.is_empty() {
            tensors.push(("codebook/sums".into(), plain(&self.means.sums)?));
        }
        let json = serde_json::to_vec(&self.record)?;
        tensors.push(("record".into(), Tensor::from_slice(&json, json.len(), &Device::Cpu)?));
        let temporary = path.with_extension("safetensors.tmp");
        let all: HashMap<String, Tensor> = tensors.into_iter().collect();
        let write = || -> Result<()> {
            candle_core::safetensors::save(&all, &temporary)?;
            let mut file = std::fs::OpenOptions::new().append(true).open(&temporary)?;
            file.flush()?;
            file.sync_all()?;
            Ok(std::fs::rename(&temporary, path)?)
        };
        write().with_context(|| format!("{}: cannot write it", path.display()))
    }

    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let name = path.display();
        let mut all = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| format!("{name}: cannot read it; remove it to start anew"))?;
        let mut take = |key: &str| all.remove(key);
        let missing = |key: &str| anyhow!("{name}: {key} is missing; remove it to start anew");
        let json = take("record").ok_or_else(|| missing("record"))?.to_vec1::<u8>()?;
        let record: Record = serde_json::from_slice(&json)
            .with_context(|| format!("{name}: written by another version"))?;
        let counts = take("codebook/counts").ok_or_else(|| missing("codebook"))?.to_vec1()?;
        let sums = take("codebook/sums").map(|t| t.to_vec1()).transpose()?.unwrap_or_default();
        let mut groups: BTreeMap<String, Weights> = BTreeMap::new();
        for (key, tensor) in all {
            let (group, weight) = key.split_once('/').ok_or_else(|| missing("a group"))?;
            let (shape, values) = (tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?);
            let weights = groups.entry(group.to_owned()).or_default();
            weights.0.insert(weight.to_owned(), Weight { shape, values });
        }
        let mut group = |key: &str| groups.remove(key).ok_or_else(|| missing(key));
        Ok(Self {
            weights: group("weights")?,
            optimiser: Optimiser {
                step: record.step,
                first: group("first")?,
                second: group("second")?,
                average: group("average")?,
            },
            means: Means { counts, sums },
            record,
        })
    }
}
