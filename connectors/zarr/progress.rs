//! How far a forecast store has come: what a restart goes on from.

use std::collections::BTreeMap;

use physicnet_stream::{Catalogue, Error, Forecast, Result, SensorId, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::ZarrSink;
use super::place::{self, Place, ROOT};
use super::store::Store;

/// How far the forecasts of a sensor are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The reference time of the newest forecast in the store.
    #[serde(skip)]
    pub written_until: Time,
    /// The offset after that of its newest frame.
    pub next: u64,
    /// The valid time of that frame; stores that were begun before it was kept do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The offset from which to read in order to rebuild its window.
    pub replay_from: u64,
}

impl Progress {
    pub(super) fn after(forecast: &Forecast) -> Self {
        Self {
            written_until: forecast.reference_time,
            next: forecast.offset + 1,
            time: Some(forecast.frame_time),
            replay_from: forecast.replay_from,
        }
    }

    /// What a root's metadata says; `None` where it is not of a forecast store.
    pub(super) fn of(root: &Value) -> Option<Self> {
        serde_json::from_value(root["attributes"]["physicnet"]["progress"].clone()).ok()
    }
}

/// The root's metadata of a store; `None` where there is none yet.
pub(super) fn read_root(place: &dyn Place) -> Result<Option<Value>> {
    let wrong = |e| Error::new(place.name(ROOT), format!("is not JSON ({e}); choose another path"));
    let bytes = place.get(ROOT)?;
    bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(wrong)).transpose()
}

/// How far the forecasts of every sensor are committed; nothing for one without forecasts.
///
/// # Errors
/// When a path is no forecast store, or cannot be read.
pub fn progress(config: &ZarrSink, catalogue: &Catalogue) -> Result<BTreeMap<SensorId, Progress>> {
    let mut all = BTreeMap::new();
    for (sensor, path) in config.paths(catalogue)? {
        place::writable(&path)?;
        let Some(root) = read_root(&*place::open(&path)?)? else { continue };
        let why = "was not written by PhysicNet; choose another path";
        let known = Progress::of(&root).ok_or_else(|| Error::new(place::shown(&path), why))?;
        let times = match Store::open(&path)?.array("time")? {
            Some(array) => array.times()?,
            None => Vec::new(),
        };
        let newest =
            times.iter().max().ok_or_else(|| Error::new(place::shown(&path), "has no times"))?;
        all.insert(sensor, Progress { written_until: *newest, ..known });
    }
    Ok(all)
}
