//! Every kind of source, behind one door.

use std::sync::Arc;

use physicnet_stream::{Frame, Pace, Result, Resume, Sensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Map;
use timely::dataflow::{Scope, StreamVec};

use crate::kafka::{self, KafkaSource, Topics};
use crate::own::{self, Feed};
use crate::synthetic::{self, SyntheticSource};
use crate::zarr::{self, Archive, ZarrSource};

/// A source as a job file says it: `type` and the settings of that type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A Zarr store.
    Zarr(ZarrSource),
    /// Simulated sensors.
    Synthetic(SyntheticSource),
    /// Topics of Kafka.
    Kafka(Box<KafkaSource>),
}

impl SourceConfig {
    /// Opens what is there to be opened and checks the rest; `job` is the name of the job.
    ///
    /// # Errors
    /// When a setting makes no sense, or a store or a topic cannot be read, naming it.
    pub fn open(&self, job: &str) -> Result<Source> {
        match self {
            Self::Zarr(config) => {
                config.validate()?;
                Ok(Source::Zarr(Arc::new(Archive::open(config)?)))
            }
            Self::Synthetic(config) => {
                config.validate()?;
                Ok(Source::Synthetic(Arc::new(config.clone())))
            }
            Self::Kafka(config) => Ok(Source::Kafka(Arc::new(Topics::open(config, job)?))),
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
    /// Topics of Kafka.
    Kafka(Arc<Topics>),
    /// The program itself.
    Own(Arc<dyn Feed>),
}

impl Source {
    /// The sensors whose frames it yields, as far as they are known by name.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn sensors(&self) -> Result<Vec<Arc<Sensor>>> {
        match self {
            Self::Zarr(archive) => Ok(archive.sensors().to_vec()),
            Self::Synthetic(config) => config.sensors(),
            Self::Kafka(topics) => Ok(topics.sensors()),
            Self::Own(feed) => Ok(feed.sensors()),
        }
    }

    /// What sensors of any name are like, where it may yield such.
    pub fn any(&self) -> Option<&Arc<Sensor>> {
        match self {
            Self::Zarr(_) | Self::Synthetic(_) | Self::Own(_) => None,
            Self::Kafka(topics) => topics.any(),
        }
    }

    /// How far a source that may lag behind is read: of the `topics` that it reads.
    pub fn lag(&self) -> Option<kafka::Lag> {
        match self {
            Self::Zarr(_) | Self::Synthetic(_) | Self::Own(_) => None,
            Self::Kafka(topics) => Some(topics.lag()),
        }
    }

    /// Its frames from where `resume` says, as fast as `pace` allows; those that are read for
    /// the windows alone are marked so.
    pub fn open<'scope>(
        &self,
        scope: Scope<'scope, u64>,
        resume: &Resume,
        pace: Pace,
    ) -> StreamVec<'scope, u64, Frame> {
        let frames = match self {
            Self::Zarr(archive) => zarr::source(scope, &[Arc::clone(archive)], resume, pace),
            Self::Synthetic(config) => synthetic::source(scope, config, resume, pace),
            Self::Kafka(topics) => kafka::source(scope, topics, resume, pace),
            Self::Own(feed) => own::source(scope, &**feed, resume, pace),
        };
        if resume.next.is_empty() && resume.scored.is_empty() {
            return frames;
        }
        let resume = resume.clone();
        frames.map(move |frame| {
            let position = frame.position();
            let (replay, scored) = (resume.replays(&position), resume.verified(&position));
            Frame { replay, scored, ..frame }
        })
    }
}
