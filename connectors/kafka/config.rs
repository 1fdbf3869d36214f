//! What a job file says about topics.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use physicnet_stream::{Cadence, Error, Result, Sensor, SensorId, Time, parse_duration, with_unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format::{Format, TimeFrom};
use super::ledger::Names;
use super::{Cluster, GridSection, names, property};
use crate::zarr::{Archive, ZarrSource, parse_time};

/// Topics of frames.
///
/// ```yaml
/// cluster: {brokers: "localhost:9092"}
/// topics: [radar.frames]
/// like: radar.zarr
/// cadence: 5min
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSource {
    /// Where the topics are.
    pub cluster: Cluster,
    /// Their names. All partitions are read, whoever else reads them.
    pub topics: Vec<String>,
    /// How frames are written in a message.
    #[serde(default)]
    pub format: Format,
    /// Where the name of the sensor is.
    #[serde(default)]
    pub sensor: SensorFrom,
    /// The sensors of the job; absent: whatever sensors the topics have.
    #[serde(default)]
    pub sensors: Option<Vec<SensorId>>,
    /// The most sensors of a partition, where `sensors` does not name them: every new name takes
    /// memory.
    #[serde(default = "ten_thousand")]
    pub most_sensors: usize,
    /// Where the valid time is.
    #[serde(default)]
    pub time: TimeFrom,
    /// The grid of every frame, unless `like` tells it.
    #[serde(default)]
    pub grid: Option<GridSection>,
    /// A Zarr store whose grid the frames have: variables, units and axes.
    #[serde(default)]
    pub like: Option<PathBuf>,
    /// Which variables of that store, in the order of the channels; empty: all.
    #[serde(default)]
    pub variables: Vec<String>,
    /// The step between valid times, e.g. `5min`; by default that of the store `like`.
    #[serde(default, deserialize_with = "with_unit")]
    pub cadence: Option<String>,
    /// Where a partition is read from that the job has not read before: `earliest`, `latest`,
    /// or a time, e.g. `2010-08-26T05:00`, UTC, by the brokers' timestamps.
    #[serde(default = "earliest")]
    pub from: String,
    /// Whether to wait for more at the end of the partitions; `false` ends the source there.
    #[serde(default = "yes")]
    pub follow: bool,
    /// The largest message that is decoded, in MiB.
    #[serde(default = "sixteen")]
    pub largest_message_mib: usize,
}

fn ten_thousand() -> usize {
    10_000
}

fn earliest() -> String {
    "earliest".to_owned()
}

fn yes() -> bool {
    true
}

fn sixteen() -> usize {
    16
}

/// Where a message says whose frame it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SensorFrom {
    /// The key, as text.
    #[default]
    Key,
    /// The `source_name` within the message.
    SourceName,
}

/// Where a partition is read from for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Earliest,
    Latest,
    Time(Time),
}

impl From {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => parse_time(time)
                .map(Self::Time)
                .map_err(|e| Error::new("from", format!("write earliest, latest or a time: {e}"))),
        }
    }
}

/// The brokers' timestamp of a time, in milliseconds: they know none before 1970.
pub(super) fn stamp(time: Time) -> i64 {
    time.div_euclid(1_000_000).max(0)
}

impl KafkaSource {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// When a setting makes no sense, naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.topics.is_empty() {
            return Err(Error::new("topics", "name at least one"));
        }
        self.topics.iter().try_for_each(|topic| names::topic("topics", topic))?;
        property::check(&self.cluster.properties)?;
        once("topics", self.topics.iter().map(String::as_str))?;
        if let Some(sensors) = &self.sensors {
            if sensors.is_empty() {
                let why = "names none; leave it out to take whatever sensors the topics have";
                return Err(Error::new("sensors", why));
            }
            for sensor in sensors {
                let refused =
                    |why| Error::new("sensors", format!("{:?} is {why}", sensor.as_str()));
                names::sensor(sensor.as_str()).map_err(refused)?;
            }
            once("sensors", sensors.iter().map(SensorId::as_str))?;
        }
        if self.most_sensors == 0 {
            let why = "0 would take no sensor at all; write at least 1, or name the `sensors`";
            return Err(Error::new("most_sensors", why));
        }
        if self.largest_message_mib == 0 || self.largest_message_mib > 1024 {
            return Err(Error::new("largest_message_mib", "lies between 1 and 1024"));
        }
        if !self.follow && self.topics.len() > 1 {
            let why = "false ends one topic; give each topic a source of its own";
            return Err(Error::new("follow", why));
        }
        self.start().map(drop)
    }

    pub(super) fn start(&self) -> Result<From> {
        From::parse(&self.from)
    }

    /// What its sensors are like: the grid and the cadence that the settings tell, under no name.
    pub(super) fn template(&self) -> Result<Arc<Sensor>> {
        let (grid, usual) = match (&self.grid, &self.like) {
            (Some(grid), None) => (grid.grid()?, None),
            (None, Some(path)) => {
                let variables = self.variables.clone();
                let archive = Archive::open(&ZarrSource { variables, ..ZarrSource::new(path) })?;
                let sensor = &archive.sensors()[0];
                (sensor.grid.clone(), Some(sensor.cadence))
            }
            _ => {
                let why = "say what the frames are like: `grid`, or `like` a Zarr store";
                return Err(Error::new("grid", why));
            }
        };
        // A pixel takes a byte at the least.
        let [channels, height, width] = grid.shape();
        let pixels = channels.saturating_mul(height).saturating_mul(width);
        if pixels > self.largest_message_mib << 20 {
            let why = format!(
                "{} MiB hold no frame of {channels} x {height} x {width} pixels; raise it, or \
                 describe a smaller grid",
                self.largest_message_mib
            );
            return Err(Error::new("largest_message_mib", why));
        }
        let cadence = match (&self.cadence, usual) {
            (Some(text), _) => {
                parse_duration(text).and_then(Cadence::new).map_err(|e| Error::new("cadence", e))?
            }
            (None, Some(usual)) => usual,
            (None, None) => return Err(Error::new("cadence", "say it, e.g. 5min")),
        };
        Ok(Arc::new(Sensor { id: "".into(), grid, cadence }))
    }
}

/// What comes out of a transaction that fails halfway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Nothing: forecasts, dead letters and progress are one transaction.
    #[default]
    ExactlyOnce,
    /// What was sent; after a restart it is sent again. For brokers without transactions.
    AtLeastOnce,
}

/// Topics of forecasts, of dead letters, and of the job's progress.
///
/// ```yaml
/// cluster: {brokers: "localhost:9092"}
/// topic: radar.forecasts
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSink {
    /// Where the topics are.
    pub cluster: Cluster,
    /// The topic of the forecasts; absent, only progress and dead letters are kept here.
    #[serde(default)]
    pub topic: Option<String>,
    /// How forecasts are written in a message.
    #[serde(default)]
    pub format: Format,
    /// Whether a crash can leave a forecast twice.
    #[serde(default)]
    pub delivery: Delivery,
    /// The topic of what could not be used; by default `physicnet.JOB.dead-letters`.
    #[serde(default)]
    pub dead_letters: Option<String>,
    /// The compacted topic of the job's progress; by default `physicnet.JOB.progress`.
    #[serde(default)]
    pub progress: Option<String>,
}

impl KafkaSink {
    /// Forecasts into `topic` at `brokers`, exactly once.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            cluster: Cluster::new(brokers),
            topic: Some(topic.into()),
            format: Format::default(),
            delivery: Delivery::default(),
            dead_letters: None,
            progress: None,
        }
    }

    /// Checks the names of what `job` writes.
    ///
    /// # Errors
    /// When brokers take no topic of one of them, naming the key.
    pub(super) fn check(&self, job: &str) -> Result<()> {
        names::topic("name", job)?;
        property::check(&self.cluster.properties)?;
        let Names { dead_letters, progress, .. } = Names::new(self, job);
        let own = |key, said: &Option<String>| if said.is_some() { key } else { "name" };
        names::topic(own("dead_letters", &self.dead_letters), &dead_letters)?;
        names::topic(own("progress", &self.progress), &progress)?;
        self.topic.iter().try_for_each(|topic| names::topic("topic", topic))
    }
}

/// Checks that what the settings have at `key` names nothing twice.
fn once<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(Error::new(key, format!("{name} is named twice; leave one out")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> KafkaSource {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_grid_is_said_in_the_job() {
        let source = parse(
            r#"{"cluster": {"brokers": "a:1"}, "topics": ["t"], "cadence": "5min", "grid":
               {"variables": [{"name": "r"}], "y": {"count": 3, "first": 4, "step": -2},
                "x": {"values": [1, 2, 4], "units": "km", "name": "lon"}}}"#,
        );
        source.validate().unwrap();
        let sensor = source.template().unwrap();
        assert_eq!(sensor.grid.y.values, [4.0, 2.0, 0.0]);
        assert_eq!((&*sensor.grid.y.name, &*sensor.grid.x.name), ("y", "lon"));
        assert_eq!(sensor.grid.shape(), [1, 3, 3]);
    }

    #[test]
    fn a_time_before_1970_is_the_first() {
        assert_eq!([-1, 0, 1_999_999, i64::MIN].map(stamp), [0, 0, 1, 0]);
        let early = From::parse("1960-01-01T00:00").unwrap();
        assert!(matches!(early, From::Time(..0)), "{early:?}");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let base = r#""cluster": {"brokers": "a:1"}, "topics": ["t"]"#;
        for (more, key) in [
            (r#""from": "yesterday""#, "from"),
            (r#""largest_message_mib": 0"#, "largest_message_mib"),
            (r#""topics": []"#, "topics"),
            (r#""topics": [""]"#, "topics"),
            (r#""topics": ["f 1"]"#, "topics"),
            (r#""topics": [".."]"#, "topics"),
            (r#""topics": ["t", "u", "t"]"#, "topics"),
            (r#""most_sensors": 0"#, "most_sensors"),
            (r#""sensors": []"#, "sensors"),
            (r#""sensors": ["a", "b", "a"]"#, "sensors"),
            (r#""sensors": ["a", "../b"]"#, "sensors"),
        ] {
            let base =
                if more.contains("topics") { r#""cluster": {"brokers": "a:1"}"# } else { base };
            let error = parse(&format!("{{{base}, {more}}}")).validate().unwrap_err();
            assert_eq!(error.what, key, "{error}");
        }
        for (more, key) in [
            (r#""cadence": "5min""#, "grid"),
            (r#""grid": {"variables": [{"name": "r"}], "y": {}, "x": {"count": 2}}"#, "grid.y"),
            (
                r#""grid": {"variables": [{"name": "r"}], "y": {"count": 2}, "x": {"count": 2}}"#,
                "cadence",
            ),
            (
                r#""grid": {"variables": [{"name": "r"}], "y": {"count": 4096}, "x": {"count": 4097}}"#,
                "largest_message_mib",
            ),
        ] {
            let error = parse(&format!("{{{base}, {more}}}")).template().unwrap_err();
            assert_eq!(error.what, key, "{error}");
        }
    }

    #[test]
    fn what_a_job_writes_has_names_that_brokers_take() {
        let sink = KafkaSink::new("a:1", "out");
        sink.check("job").unwrap();
        let of = |name: &str| Some(name.to_owned());
        let long = "j".repeat(240);
        for (sink, job, key) in [
            (sink.clone(), "a job", "name"),
            (sink.clone(), "", "name"),
            // What is derived of it is longer than itself.
            (sink.clone(), &*long, "name"),
            (KafkaSink { progress: of("p"), ..sink.clone() }, &*long, "name"),
            (KafkaSink { topic: of("a/b"), ..sink.clone() }, "job", "topic"),
            (KafkaSink { dead_letters: of(""), ..sink.clone() }, "job", "dead_letters"),
            (KafkaSink { progress: of("."), ..sink.clone() }, "job", "progress"),
        ] {
            let told = sink.check(job).unwrap_err();
            assert_eq!(told.what, key, "{told}");
        }
        let named = KafkaSink { dead_letters: of("d"), progress: of("p"), ..sink };
        named.check(&long).unwrap();
    }
}
