//! Every kind of source, behind one door.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_stream::{Frame, Pace, Result, Sensor, SensorId};
use serde::{Deserialize, Serialize};
use timely::dataflow::{Scope, StreamVec};

use crate::synthetic::{self, SyntheticSource};
use crate::zarr::{self, Archive, ZarrSource};

/// A source as a job file says it: `type` and the settings of that type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A Zarr store.
    Zarr(ZarrSource),
    /// Simulated sensors.
    Synthetic(SyntheticSource),
}

impl SourceConfig {
    /// Opens what is there to be opened and checks the rest.
    ///
    /// # Errors
    /// When a setting makes no sense or a store cannot be read, naming it.
    pub fn open(&self) -> Result<Source> {
        match self {
            Self::Zarr(config) => {
                config.validate()?;
                Ok(Source::Zarr(Arc::new(Archive::open(config)?)))
            }
            Self::Synthetic(config) => {
                config.validate()?;
                Ok(Source::Synthetic(Arc::new(config.clone())))
            }
        }
    }
}

/// An opened source.
#[derive(Clone)]
pub enum Source {
    /// A Zarr store.
    Zarr(Arc<Archive>),
    /// Simulated sensors.
    Synthetic(Arc<SyntheticSource>),
}

impl Source {
    /// The sensors whose frames it yields.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn sensors(&self) -> Result<Vec<Arc<Sensor>>> {
        match self {
            Self::Zarr(archive) => Ok(archive.sensors().to_vec()),
            Self::Synthetic(config) => config.sensors(),
        }
    }

    /// Its frames, from the offsets in `resume` on, as fast as `pace` allows.
    pub fn open<'scope>(
        &self,
        scope: Scope<'scope, u64>,
        resume: &BTreeMap<SensorId, u64>,
        pace: Pace,
    ) -> StreamVec<'scope, u64, Frame> {
        match self {
            Self::Zarr(archive) => zarr::source(scope, &[Arc::clone(archive)], resume, pace),
            Self::Synthetic(config) => synthetic::source(scope, config, resume, pace),
        }
    }
}
