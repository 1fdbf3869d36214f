//! The kinds of files that people write: which one a file is, and whether it fits.

use std::path::Path;

use anyhow::{Context, Result, bail};
use physicnet_connectors::kafka::Cluster;
use physicnet_connectors::synthetic::SyntheticSource;

use super::typed::Kind;
use crate::config::{self, Job, schema};
use crate::training::{TrainConfig, suits};

/// Whether the file and all that it names fit together.
pub(super) fn validate(path: &Path) -> Result<()> {
    // Reading it names the file by itself.
    let text = config::text(path)?;
    let checked = match kind(&text, path)? {
        Kind::Job => config::read::<Job>(&text, path)?.open().map(drop),
        Kind::Simulate => {
            config::read::<SyntheticSource>(&text, path)?.validate().map_err(Into::into)
        }
        Kind::Cluster => config::read::<Cluster>(&text, path).map(drop),
        Kind::Train => suits(&config::read(&text, path)?),
    };
    checked.with_context(|| path.display().to_string())
}

/// Refuses a file that another command reads, and says which.
pub(super) fn no_other_file(path: &Path) -> Result<()> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    if !["yaml", "yml", "toml"].contains(&&*extension) || !path.is_file() {
        return Ok(());
    }
    let file = path.display();
    match config::text(path).and_then(|text| kind(&text, path)) {
        Ok(Kind::Train) => bail!(
            "{file}: is a training file, which `physicnet train {file}` reads; `physicnet validate \
             {file}` opens all that it names"
        ),
        Ok(Kind::Simulate) => bail!(
            "{file}: is a simulation file, which `physicnet simulate {file} OUT.zarr` reads; \
             `physicnet validate {file}` checks it"
        ),
        _ => Ok(()),
    }
}

/// What kind of file it is: the one that knows most of its keys.
fn kind(text: &str, path: &Path) -> Result<Kind> {
    let raw: serde_json::Value = config::read(text, path)?;
    let keys: Vec<&String> = raw.as_object().into_iter().flat_map(|keys| keys.keys()).collect();
    let all = [Kind::Job, Kind::Train, Kind::Simulate, Kind::Cluster];
    let knows = all.map(|kind| {
        let schema = kind.schema();
        keys.iter().filter(|key| schema["properties"].get(key.as_str()).is_some()).count()
    });
    let most = knows.into_iter().max().unwrap_or(0);
    let mut likely = all.into_iter().zip(knows).filter(|(_, known)| *known == most);
    match (likely.next(), likely.next()) {
        (Some((kind, 1..)), None) => Ok(kind),
        _ => {
            bail!(
                "{}: no one kind of file has the keys {keys:?}: a job has `sources` and `model`, a \
                 training file `data` and `out`, a simulation `field`, a cluster `brokers`",
                path.display()
            )
        }
    }
}

impl Kind {
    /// Its schema.
    pub(super) fn schema(self) -> serde_json::Value {
        match self {
            Self::Job => schema::<Job>(),
            Self::Train => schema::<TrainConfig>(),
            Self::Simulate => schema::<SyntheticSource>(),
            Self::Cluster => schema::<Cluster>(),
        }
    }
}
