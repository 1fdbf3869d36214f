//! Every kind of sink, behind one door.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_stream::{Catalogue, Forecast, Pace, Reject, Result, SensorId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

use crate::Source;
use crate::kafka::{KafkaSink, Ledger};
use crate::rejects::{self, RejectsConfig};
use crate::zarr::{self, Progress, ZarrSink};

/// A sink as a job file says it: `type` and the settings of that type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// A Zarr store for each sensor.
    Zarr(ZarrSink),
    /// Topics of Kafka.
    Kafka(Box<KafkaSink>),
}

impl SinkConfig {
    /// Checks the settings against the sensors and the sources of the job called `job`.
    ///
    /// # Errors
    /// When they do not suit one another, or what is there is not a forecast store.
    pub fn open(&self, job: &str, sources: &[Source], catalogue: &Catalogue) -> Result<Opened> {
        match self {
            Self::Zarr(config) => {
                let sink = Sink::Zarr(config.clone());
                sink.progress(catalogue).map(|_| Opened::Sink(sink))
            }
            Self::Kafka(config) => {
                let (mut topics, mut series) = (Vec::new(), Vec::new());
                for source in sources {
                    match source {
                        Source::Kafka(opened) => topics.push(Arc::clone(opened)),
                        Source::Zarr(_) | Source::Synthetic(_) | Source::Own(_) => {
                            series.extend(source.sensors()?);
                        }
                    }
                }
                Ledger::new(config, job, topics, &series)
                    .map(|ledger| Opened::Ledger(Box::new(ledger)))
            }
        }
    }

    /// The products that it wants beside the served one.
    pub fn products(&self) -> &[String] {
        match self {
            Self::Zarr(config) => &config.products,
            Self::Kafka(_) => &[],
        }
    }
}

/// What a job file's sink is.
pub enum Opened {
    /// One of those that forecasts are written to.
    Sink(Sink),
    /// The one that also keeps the progress of the job, behind all others.
    Ledger(Box<Ledger>),
}

/// A function that is shown every forecast.
pub type Call = Arc<dyn Fn(&Forecast) + Send + Sync>;

/// A sink that is ready.
#[derive(Clone)]
pub enum Sink {
    /// A Zarr store for each sensor.
    Zarr(ZarrSink),
    /// The program itself: called for every forecast, on the worker that made it.
    Call(Call),
}

impl Sink {
    /// How far the forecasts of each sensor are durable; absent where there are none.
    ///
    /// # Errors
    /// When the settings do not suit the sensors, or what is there is not a forecast store.
    pub fn progress(&self, catalogue: &Catalogue) -> Result<BTreeMap<SensorId, Progress>> {
        match self {
            Self::Zarr(config) => zarr::progress(config, catalogue),
            Self::Call(_) => Ok(BTreeMap::new()),
        }
    }

    /// Writes forecasts; the frontier of what it returns is what is durable.
    pub fn write<'scope>(
        &self,
        forecasts: StreamVec<'scope, u64, Forecast>,
        catalogue: &Catalogue,
        pace: Pace,
    ) -> StreamVec<'scope, u64, ()> {
        match self {
            Self::Zarr(config) => {
                let failure = pace.failure.clone();
                let done = zarr::sink(forecasts.clone(), config, catalogue, pace.failure);
                done.unwrap_or_else(|error| {
                    // Opening checks the same: this is for sinks put together by a program.
                    failure.report(error);
                    forecasts.flat_map(|_| None)
                })
            }
            Self::Call(call) => {
                let call = Arc::clone(call);
                forecasts.flat_map(move |forecast| {
                    call(&forecast);
                    None
                })
            }
        }
    }
}

/// Where frames go that were not used.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RejectsSink {
    /// No more than what admission has logged.
    #[default]
    Log,
    /// A directory keeps them, with the units that the catalogue knows.
    Directory(RejectsConfig, Catalogue),
}

impl RejectsSink {
    /// Keeps rejected frames; the frontier of what it returns is what is durable.
    pub fn write<'scope>(
        &self,
        rejected: StreamVec<'scope, u64, Reject>,
        pace: Pace,
    ) -> StreamVec<'scope, u64, ()> {
        match self {
            Self::Log => rejected.flat_map(|_| None),
            Self::Directory(config, catalogue) => {
                rejects::sink(rejected, config, catalogue, pace.failure)
            }
        }
    }
}
