//! Topics, opened: which partitions there are, and how a message becomes a frame.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use physicnet_stream::{Error, Frame, Reason, Record, Result, Resume, Sensor, SensorId, route};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use super::config::{KafkaSource, SensorFrom};
use super::format::{Expected, Measured, decode, source_name};
use super::lag::Lag;
use super::names;

/// Topics whose partitions are known.
pub struct Topics {
    pub(super) config: KafkaSource,
    /// Consumer group of the job: where its offsets are shown to lag tools.
    pub(super) group: String,
    /// The logs `topic/partition`, by topic and partition.
    pub(super) partitions: BTreeMap<(String, i32), Arc<str>>,
    template: Arc<Sensor>,
    pub(super) lag: Lag,
}

impl Topics {
    /// Asks the brokers for the partitions.
    ///
    /// # Errors
    /// When the settings make no sense, no broker answers, or a topic is not there.
    pub fn open(config: &KafkaSource, job: &str) -> Result<Self> {
        Self::with(config, job, |name| config.partitions(name))
    }

    /// The same, where `count` says how many partitions a topic has.
    pub(super) fn with(
        config: &KafkaSource,
        job: &str,
        count: impl Fn(&str) -> Result<i32>,
    ) -> Result<Self> {
        config.validate()?;
        let template = config.template()?;
        let mut partitions = BTreeMap::new();
        for name in &config.topics {
            for partition in 0..count(name)? {
                let log = Arc::from(format!("{name}/{partition}"));
                partitions.insert((name.clone(), partition), log);
            }
        }
        let group = format!("physicnet.{job}");
        Ok(Self { config: config.clone(), group, partitions, template, lag: Lag::default() })
    }

    /// The settings.
    pub fn config(&self) -> &KafkaSource {
        &self.config
    }

    /// How far the partitions of this process are read; asked for before they are opened, it is
    /// attended to.
    pub fn lag(&self) -> Lag {
        self.lag.wanted()
    }

    /// The sensors that the settings name.
    pub fn sensors(&self) -> Vec<Arc<Sensor>> {
        let named = |id: &SensorId| Sensor { id: id.clone(), ..Sensor::clone(&self.template) };
        self.config.sensors.iter().flatten().map(|id| Arc::new(named(id))).collect()
    }

    /// What any sensor is like, where the settings name none.
    pub fn any(&self) -> Option<&Arc<Sensor>> {
        self.config.sensors.is_none().then_some(&self.template)
    }

    /// The bytes of a frame's pixels as we hold them: a message has about as many.
    pub(super) fn frame_bytes(&self) -> usize {
        let pixels = self.template.grid.shape().into_iter().fold(1, usize::saturating_mul);
        pixels.saturating_mul(size_of::<f32>())
    }

    /// The partitions of worker `index` of `peers`. It does not depend on what other topics
    /// and partitions there are: processes that saw different ones never read one twice.
    pub(super) fn share(&self, index: usize, peers: usize) -> Vec<(String, i32)> {
        let mine = |(topic, partition): &&(String, i32)| {
            let spread = route(&SensorId::from(topic)).wrapping_add(*partition as u64);
            spread % peers as u64 == index as u64
        };
        self.partitions.keys().filter(mine).cloned().collect()
    }
}

impl KafkaSource {
    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When no broker answers, or the topic is not there.
    pub(super) fn partitions(&self, name: &str) -> Result<i32> {
        let brokers = &self.cluster.brokers;
        let count = self.cluster.partitions(name)?.ok_or_else(|| {
            let why = format!("is not at {brokers}; make it, or name another");
            Error::new(format!("topic {name}"), why)
        })?;
        Ok(count as i32)
    }

    /// Why brokers do not say what was asked of a partition: first of all, that its topic has gone.
    pub(super) fn unanswered(&self, topic: &str, partition: i32, error: KafkaError) -> Error {
        let doing = format!("asking for topic {topic}, partition {partition}");
        self.partitions(topic).err().unwrap_or_else(|| self.cluster.error(&doing, error))
    }
}

/// Makes frames of messages, on one worker.
pub(super) struct Decoder {
    pub(super) topics: Arc<Topics>,
    /// The names in each log so far, where the settings name none. A log has one order, whatever
    /// worker reads it and whatever dies: who comes too late does not depend on them.
    names: HashMap<Arc<str>, HashSet<SensorId>>,
}

impl Decoder {
    /// A decoder that goes on from `resume`, whose sensors have their places.
    pub(super) fn new(topics: &Arc<Topics>, resume: &Resume) -> Self {
        let mut names = HashMap::<_, HashSet<_>>::new();
        if topics.config.sensors.is_none() {
            for (sensor, window) in &resume.windows {
                for at in window {
                    names.entry(Arc::clone(&at.log)).or_default().insert(sensor.clone());
                }
            }
        }
        Self { topics: Arc::clone(topics), names }
    }

    /// The frame of a message: without pixels, and with the reason, where it has none.
    pub(super) fn frame(&mut self, message: &impl Message) -> Frame {
        let topics = Arc::clone(&self.topics);
        let place = (message.topic().to_owned(), message.partition());
        let log = topics.partitions.get(&place).map(Arc::clone);
        let log = log.unwrap_or_else(|| Arc::from(format!("{}/{}", place.0, place.1)));
        let stamp = message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000_000);
        let mut record = Record {
            log,
            key: message.key().map(<[u8]>::to_vec),
            payload: None,
            cut: None,
            unfit: None,
        };
        let decoded = self.decode(message, &record.log);
        let (sensor, measured) = decoded.unwrap_or_else(|Unfit { sensor, reason }| {
            record.unfit = Some(reason);
            let sensor = sensor.unwrap_or_else(|| "".into());
            let (source_name, shape, data) = (String::new(), [0; 3], Vec::new());
            let verbatim = None;
            (sensor, Measured { source_name, valid_time: stamp, shape, data, verbatim })
        });
        let Measured { valid_time, shape, data, verbatim, .. } = measured;
        record.payload = message.payload().map(|payload| match &verbatim {
            Some(pixels) => [&payload[..pixels.start], &payload[pixels.end..]].concat(),
            None => payload.to_vec(),
        });
        record.cut = verbatim.map(|pixels| pixels.start);
        let (offset, record) = (message.offset() as u64, Some(Box::new(record)));
        Frame { sensor, valid_time, offset, shape, data, replay: false, scored: false, record }
    }

    fn decode(
        &mut self,
        message: &impl Message,
        log: &Arc<str>,
    ) -> Result<(SensorId, Measured), Unfit> {
        let Topics { config, template, .. } = &*self.topics;
        let named = match config.sensor {
            SensorFrom::Key => keyed(message).map(Some),
            SensorFrom::SourceName => Ok(None),
        };
        let known = named.clone().ok().flatten();
        let unfit = |why| Unfit { sensor: known.clone(), reason: Reason::Undecodable { why } };
        let payload = message.payload();
        let payload =
            payload.ok_or_else(|| unfit("the message has no value: a tombstone".to_owned()))?;
        if payload.len() > config.largest_message_mib << 20 {
            let why = format!("{} bytes, more than largest_message_mib allows", payload.len());
            return Err(unfit(why));
        }
        let named = named.map_err(unfit)?;
        let expected = Expected { grid: &template.grid, time: &config.time };
        let measured = decode(config.format, payload, &expected).map_err(|reason| {
            let own = || names::sensor(&source_name(config.format, payload)?).ok();
            Unfit { sensor: named.clone().or_else(own), reason }
        })?;
        let sensor = match named {
            Some(sensor) => sensor,
            None => names::sensor(&measured.source_name).map_err(unfit)?,
        };
        if config.sensors.is_none() {
            let (names, most) =
                (self.names.entry(Arc::clone(log)).or_default(), config.most_sensors);
            if names.len() >= most && !names.contains(&sensor) {
                let why = format!("its partition has the {most} sensors that most_sensors allows");
                return Err(Unfit { sensor: Some(sensor), reason: Reason::Undecodable { why } });
            }
            if !names.contains(&sensor) {
                names.insert(sensor.clone());
            }
        }
        Ok((sensor, measured))
    }
}

/// Why a message is no frame, and whose it would be, if that is known.
struct Unfit {
    sensor: Option<SensorId>,
    reason: Reason,
}

/// Whose a message is by its key.
fn keyed(message: &impl Message) -> Result<SensorId, String> {
    let key = message.key().filter(|key| !key.is_empty());
    let key = key.ok_or("the message has no key to name its sensor")?;
    names::sensor(std::str::from_utf8(key).map_err(|_| "the key is not UTF-8 text")?)
}

#[cfg(test)]
mod tests {
    use physicnet_stream::Position;
    use rdkafka::message::{OwnedMessage, Timestamp};

    use super::*;

    #[test]
    fn who_finds_a_place_depends_on_its_partition_alone() {
        let text = r#"{"cluster": {"brokers": "a:1"}, "topics": ["t"], "cadence": "5min",
            "format": "json", "most_sensors": 2, "grid":
            {"variables": [{"name": "r"}], "y": {"count": 1}, "x": {"count": 2}}}"#;
        let config: KafkaSource = serde_json::from_str(text).unwrap();
        let topics = Arc::new(Topics::with(&config, "job", |_| Ok(2)).unwrap());
        let payload = br#"{"source_name": "s", "timestamp": 0,
            "variables": {"signal": {"data": [[1, 2]]}}}"#;
        let fits = |decoder: &mut Decoder, partition, key: &str| {
            let (value, key) = (Some(payload.to_vec()), Some(key.as_bytes().to_vec()));
            let now = Timestamp::CreateTime(0);
            let message = OwnedMessage::new(value, key, "t".into(), now, partition, 9, None);
            decoder.frame(&message).record.unwrap().unfit.is_none()
        };
        // One decoder for both partitions, or one for each.
        let mut both = Decoder::new(&topics, &Resume::default());
        let told = [(0, "a"), (1, "c"), (0, "b"), (1, "d"), (0, "e"), (1, "a"), (0, "a")]
            .map(|(partition, key)| fits(&mut both, partition, key));
        assert_eq!(told, [true, true, true, true, false, false, true]);
        // After a restart those that had a place have it still.
        let mut resume = Resume::default();
        for sensor in ["a", "b"] {
            let at = Position { log: "t/0".into(), offset: 5 };
            resume.windows.insert(sensor.into(), vec![at]);
        }
        let mut again = Decoder::new(&topics, &resume);
        let told = ["e", "b", "a"].map(|key| fits(&mut again, 0, key));
        assert_eq!(told, [false, true, true]);
    }
}
