//! The checkpoint: one safetensors file that PyTorch opens with no code of ours.
//!
//! Tensors have the names and layouts of a `state_dict`; the metadata holds `format: "pt"` and
//! one JSON string, `physicnet`, with the config and where the weights come from. A second one,
//! `physicnet.usage`, says what codes are usual: it changes no forecast, so it is no part of the
//! model's id and may be added later. Weights are f32 or, to halve the file, f16 or bf16: they are
//! f32 again once read, and the id is of these.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use physicnet_stream::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model::stored::{self, Stored};
use crate::model::{ModelConfig, PhysicNet, Precision};
use crate::quantization::Usage;

/// Where a checkpoint's weights come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The version of this program that wrote it.
    pub version: String,
    /// The training data: paths and time spans.
    pub data: Vec<String>,
    /// `[height, width]` of the training frames.
    pub grid: Option<[usize; 2]>,
    /// Optimiser steps taken.
    pub steps: u64,
    /// The seed of the training run.
    pub seed: u64,
    /// Scores on the validation part, by name.
    pub validation: BTreeMap<String, f64>,
    /// The peak of the learning rate; files from before there was this key lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// The parts of the loss and their weights, as the training file had them; likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Value>,
    /// The checkpoint that training began from, where it began from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
}

/// A checkpoint that another one's training began from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parent {
    /// Its id.
    pub id: String,
    /// Where it lay.
    pub path: String,
    /// What it was trained on itself: on that, no forecast of its children is of unseen data.
    pub data: Vec<String>,
    /// How many weights were taken from it, of how many.
    pub taken: [usize; 2],
    /// The checkpoint that it began from itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
}

/// The name of the config and the provenance among the metadata.
const HEADER: &str = "physicnet";
/// The name of the usage of the codes there.
const USAGE: &str = "physicnet.usage";

#[derive(Serialize, Deserialize)]
struct Header {
    config: ModelConfig,
    provenance: Provenance,
}

/// A model with its config, weights and provenance.
#[derive(Clone)]
pub struct Checkpoint {
    /// What the network is made of.
    pub config: ModelConfig,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// The weights by `state_dict` name, f32.
    pub weights: BTreeMap<String, Tensor>,
    /// How a file stores them: rounded, they are other weights under another id once read.
    pub stored: Stored,
    /// How its codes are used on its training data, where that was measured.
    pub usage: Option<Usage>,
    /// The first 16 hexadecimal digits of the SHA-256 of config, provenance and weights; `none`
    /// for a network that was never stored.
    pub id: Arc<str>,
}

impl Checkpoint {
    /// An untrained network: its forecast is the chosen expert's.
    ///
    /// # Errors
    /// When the config contradicts itself.
    pub fn untrained(config: &ModelConfig) -> Result<Self> {
        config.check()?;
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        PhysicNet::new(config, vb).map_err(|error| Error::new("model", error))?;
        let data = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let weights = data.iter().map(|(k, var)| (k.clone(), var.as_tensor().clone())).collect();
        let (provenance, stored) = (Provenance::default(), Stored::F32);
        let (config, id) = (config.clone(), "none".into());
        Ok(Self { config, provenance, weights, stored, usage: None, id })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read, is not a checkpoint of ours, or its tensors differ from
    /// what its config needs: every missing, surplus, misshapen or non-finite one is named, and
    /// every one that is neither F32, F16 nor BF16.
    pub fn load(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let why = "is a folder; a checkpoint is a file, best.safetensors in a training's `out`";
            return Err(Error::new(path.display(), why));
        }
        let bytes = std::fs::read(path)
            .map_err(|error| Error::new(path.display(), format!("cannot read it: {error}")))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Reads the bytes of a file; `name` is how errors call it.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let fail = |why: String| Error::new(name, why);
        let (json, Header { config, provenance }, usage) = header(bytes, name)?;
        let usage: Option<Usage> = usage
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|error| fail(format!("its code usage does not fit this version: {error}")))?;
        if let Some(usage) = usage.as_ref().filter(|usage| usage.counts.len() != config.codes) {
            let (counts, codes) = (usage.counts.len(), config.codes);
            return Err(fail(format!(
                "its code usage is of {counts} codes, its config of {codes}"
            )));
        }
        let file = safetensors::SafeTensors::deserialize(bytes)
            .map_err(|error| fail(format!("not a safetensors file: {error}")))?;
        let stored = Stored::of(&file);
        let weights = read(&Self::untrained(&config)?.weights, &file)
            .map_err(|wrong| fail(format!("weights differ from its config: {wrong}")))?;
        let id = identity(&json, &weights).map_err(|error| fail(error.to_string()))?;
        Ok(Self { config, provenance, weights, stored, usage, id })
    }

    /// What the network in the bytes of a file is made of; makes none.
    ///
    /// # Errors
    /// When the file is not a checkpoint, or its config contradicts itself.
    pub fn config_of(bytes: &[u8], name: &str) -> Result<ModelConfig> {
        header(bytes, name).map(|(_, header, _)| header.config)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the file cannot be written, or a weight, which is named, is larger than `stored`
    /// can hold: nothing is written then.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = Header { config: self.config.clone(), provenance: self.provenance.clone() };
        let mut metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        metadata.insert(HEADER.to_owned(), json(&header, path)?);
        if let Some(usage) = &self.usage {
            metadata.insert(USAGE.to_owned(), json(usage, path)?);
        }
        let store = |(name, weight): (&String, &Tensor)| {
            Ok((name.clone(), self.stored.store(name, weight)?))
        };
        let weights: Vec<_> = (self.weights.iter().map(store).collect::<Result<_>>())
            .map_err(|error| Error::new(path.display(), error))?;
        write(path, safetensors::serialize(weights, Some(metadata)))
    }

    /// Writes how its codes are used into the file at `path`, and changes nothing else of it:
    /// the model's id stays.
    ///
    /// # Errors
    /// When it is no safetensors file, or cannot be written.
    pub fn describe(path: &Path, usage: &Usage) -> Result<()> {
        let fail = |error: &dyn std::fmt::Display| Error::new(path.display(), error);
        let bytes = std::fs::read(path).map_err(|error| fail(&error))?;
        let (_, known) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| fail(&error))?;
        let mut metadata = known.metadata().clone().unwrap_or_default();
        metadata.insert(USAGE.to_owned(), json(usage, path)?);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| fail(&e))?;
        write(path, safetensors::serialize(tensors.iter(), Some(metadata)))
    }

    /// The network with these weights, ready to forecast.
    ///
    /// # Errors
    /// When the device cannot hold the weights.
    pub fn network(&self, device: &Device) -> Result<PhysicNet> {
        self.network_in(device, Precision::F32)
    }

    /// The same, and in what it multiplies on a GPU.
    ///
    /// # Errors
    /// As [`Checkpoint::network`].
    pub fn network_in(&self, device: &Device, precision: Precision) -> Result<PhysicNet> {
        let fail = |error: candle_core::Error| Error::new(format!("model {}", self.id), error);
        let moved =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        let weights = self.weights.iter().map(moved).collect::<candle_core::Result<_>>();
        let vb = VarBuilder::from_tensors(weights.map_err(fail)?, precision.into(), device);
        let net = PhysicNet::new(&self.config, vb).map_err(fail)?;
        Ok(PhysicNet { id: Arc::clone(&self.id), usage: self.usage.clone(), precision, ..net })
    }
}

/// The header of the bytes of a file, as it stands there and as what it says, and the usage of the
/// codes where there is one.
fn header(bytes: &[u8], name: &str) -> Result<(String, Header, Option<String>)> {
    let fail = |why: String| Error::new(name, why);
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes)
        .map_err(|error| fail(format!("not a safetensors file: {error}")))?;
    let strings = metadata.metadata().as_ref();
    let string = |name| strings.and_then(|strings| strings.get(name)).cloned();
    if string(HEADER).is_none() && string("notes").is_some() {
        let why = "is the state of a training, from which `train` goes on; its checkpoints are \
                   best.safetensors and last.safetensors beside it";
        return Err(fail(why.into()));
    }
    let json = string(HEADER).ok_or_else(|| {
        fail("no `physicnet` metadata: train writes it; foreign weights need it added".into())
    })?;
    let header: Header = serde_json::from_str(&json)
        .map_err(|error| fail(format!("its config does not fit this version: {error}")))?;
    header.config.check().map_err(|error| fail(error.to_string()))?;
    Ok((json, header, string(USAGE)))
}

fn json(value: &impl Serialize, path: &Path) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::new(path.display(), error))
}

/// Writes the bytes of a file: to a temporary name, synced, then renamed.
fn write(
    path: &Path,
    bytes: std::result::Result<Vec<u8>, safetensors::SafeTensorError>,
) -> Result<()> {
    let fail = |error: &dyn std::fmt::Display| {
        Error::new(path.display(), format!("cannot write it: {error}"))
    };
    let bytes = ordered(bytes.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
    }
    let temporary = path.with_extension("safetensors.tmp");
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| fail(&error))
}

/// The bytes of a safetensors file with its metadata in order: the library writes them in a new one
/// every time, and the same training is to leave the same file.
fn ordered(bytes: Vec<u8>) -> serde_json::Result<Vec<u8>> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return Ok(bytes) };
    let (header, tensors) = rest.split_at(rest.len().min(u64::from_le_bytes(*length) as usize));
    let mut header: BTreeMap<String, Value> = serde_json::from_slice(header)?;
    if let Some(metadata) = header.get_mut("__metadata__") {
        let strings: BTreeMap<String, String> = serde_json::from_value(metadata.take())?;
        *metadata = strings.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    }
    let mut header = serde_json::to_vec(&header)?;
    // Tensors begin at a multiple of 8 bytes, as the library lays them out.
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    Ok([&length[..], &header, tensors].concat())
}

/// The hash of what the file says, whatever order its writer gave the metadata.
fn identity(json: &str, weights: &BTreeMap<String, Tensor>) -> candle_core::Result<Arc<str>> {
    let mut digest = Sha256::new();
    digest.update(json);
    for (name, tensor) in weights {
        digest.update(name);
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        values.iter().for_each(|value| digest.update(value.to_le_bytes()));
    }
    Ok(digest
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into())
}

/// The weights that are `wanted`, as f32; or each way in which those of the file are others.
fn read(
    wanted: &BTreeMap<String, Tensor>,
    file: &safetensors::SafeTensors,
) -> std::result::Result<BTreeMap<String, Tensor>, String> {
    let (mut weights, mut wrong) = (BTreeMap::new(), Vec::new());
    for (name, want) in wanted {
        match file.tensor(name) {
            Err(_) => wrong.push(format!("{name} is missing")),
            Ok(view) if view.shape() != want.dims() => {
                wrong.push(format!("{name} is {:?}, not {:?}", view.shape(), want.dims()));
            }
            Ok(view) => match stored::read(&view) {
                Ok(weight) => _ = weights.insert(name.clone(), weight),
                Err(why) => wrong.push(format!("{name} {why}")),
            },
        }
    }
    let mut surplus: Vec<_> =
        file.names().into_iter().filter(|name| !wanted.contains_key(*name)).collect();
    surplus.sort_unstable();
    wrong.extend(surplus.iter().map(|name| format!("{name} is not part of the config")));
    if wrong.is_empty() { Ok(weights) } else { Err(wrong.join("; ")) }
}
