//! What a run needs to go on to the bit: one safetensors file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{Device, Tensor};
use physicnet_operators::model::{Parent, Processor, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::codes::Codes;
use super::config::TrainConfig;
use super::optimiser::{Named, Optimiser};
use crate::inspect::flatten;

/// What is beside the numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// Steps taken.
    pub(crate) step: u64,
    /// Seconds trained, over all sittings.
    pub(crate) seconds: f64,
    /// The best validation score, and the step it was reached at.
    pub(crate) best: Option<(f64, u64)>,
    /// The training file, so that another one cannot go on with this state.
    pub(crate) config: String,
    /// The checkpoint that the run began from; states from before this was kept lack it.
    #[serde(default)]
    pub(crate) parent: Option<Parent>,
}

/// What must not change between sittings of one run.
pub(crate) fn fingerprint(config: &TrainConfig) -> String {
    let (weights, device) = (Stored::F32, Processor::Auto);
    let own = config.clone();
    let free = TrainConfig { weights, resume: false, threads: 1, minutes: None, device, ..own };
    serde_json::to_string(&free).unwrap_or_default()
}

/// The keys that say something else in another training file, and what they say in both.
pub(crate) fn differing(before: &str, now: &str) -> Vec<String> {
    let keys = |text: &str| {
        let mut keys = BTreeMap::new();
        flatten(&serde_json::from_str(text).unwrap_or_default(), "", &mut keys);
        keys
    };
    let (before, now) = (keys(before), keys(now));
    let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let said = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
    let other = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    other
        .map(|name| {
            format!("{name} ({} then, {} now)", said(before.get(name)), said(now.get(name)))
        })
        .collect()
}

/// Writes the state: to a temporary name, synced, then renamed.
pub(crate) fn save(path: &Path, optimiser: &Optimiser, codes: &Codes, notes: &Notes) -> Result<()> {
    let mut tensors = Vec::new();
    let groups = [
        ("weights", &optimiser.weights),
        ("ema", &optimiser.ema),
        ("first", &optimiser.first),
        ("second", &optimiser.second),
    ];
    let vector = |v: &Vec<f32>| Tensor::from_vec(v.clone(), v.len(), &Device::Cpu);
    for (group, named) in groups {
        for (name, values) in named {
            tensors.push((format!("{group}/{name}"), vector(values)?));
        }
    }
    if !codes.counts.is_empty() {
        tensors.push(("codes/counts".to_owned(), vector(&codes.counts)?));
        tensors.push(("codes/sums".to_owned(), vector(&codes.sums)?));
    }
    let metadata = HashMap::from([("notes".to_owned(), serde_json::to_string(notes)?)]);
    let bytes = safetensors::serialize(tensors, Some(metadata))?;
    let temporary = path.with_extension("safetensors.tmp");
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{}: cannot write it", path.display()))
}

/// Reads a state back.
pub(crate) fn load(path: &Path) -> Result<(Optimiser, Codes, Notes)> {
    let what = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{what}: cannot resume from it"))?;
    let broken = || {
        format!(
            "{what}: is no whole training state; remove it, or set `resume: false`, to begin anew"
        )
    };
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).with_context(broken)?;
    let notes = header.metadata().as_ref().and_then(|strings| strings.get("notes"));
    let notes: Notes =
        serde_json::from_str(notes.ok_or_else(|| anyhow!("{what}: not a training state"))?)?;
    let mut groups: HashMap<String, Named> = HashMap::new();
    for (name, tensor) in
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).with_context(broken)?
    {
        let (group, name) = name.split_once('/').ok_or_else(|| anyhow!("{what}: {name}"))?;
        groups.entry(group.to_owned()).or_default().insert(name.to_owned(), tensor.to_vec1()?);
    }
    let mut take = |group: &str| groups.remove(group).unwrap_or_default();
    let (weights, ema, first, second) =
        (take("weights"), take("ema"), take("first"), take("second"));
    let mut book = take("codes");
    ensure!(!weights.is_empty(), "{what}: holds no weights");
    let codes = Codes {
        counts: book.remove("counts").unwrap_or_default(),
        sums: book.remove("sums").unwrap_or_default(),
    };
    Ok((Optimiser { step: notes.step, weights, ema, first, second }, codes, notes))
}
