//! Topics of frames: made, filled, read, removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use physicnet_connectors::kafka::format::{self, Format};
use physicnet_stream::{Axis, Cadence, Frame, Grid, Sensor, Variable};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const CADENCE: i64 = 300_000_000_000;

/// A topic that is removed when it is done with.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    brokers: String,
}

impl Topic {
    /// A new topic, whose timestamps are the broker's.
    pub(crate) fn make(
        brokers: &str,
        name: &str,
        partitions: i32,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let own = Self { name: name.to_owned(), partitions, brokers: brokers.to_owned() };
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("max.message.bytes", "67108864");
        for (key, value) in more {
            topic = topic.set(key, value);
        }
        let topics = [topic];
        // The client must outlive the answer.
        let admin = own.admin()?;
        let made = admin.create_topics(&topics, &AdminOptions::new());
        for told in futures_executor::block_on(made)? {
            told.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        // Metadata of a new topic takes a moment to be everywhere.
        std::thread::sleep(Duration::from_millis(300));
        Ok(own)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?)
    }

    /// Reads all its partitions from the start.
    pub(crate) fn read(&self, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "8388608");
        settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
        let consumer: BaseConsumer = config.create()?;
        let mut from = TopicPartitionList::new();
        for partition in 0..self.partitions {
            let (low, _) =
                consumer.fetch_watermarks(&self.name, partition, Duration::from_secs(15))?;
            from.add_partition_offset(&self.name, partition, Offset::Offset(low))?;
        }
        consumer.assign(&from)?;
        Ok(consumer)
    }

    /// The brokers' timestamps in milliseconds of all that is there, by key.
    pub(crate) fn stamps(&self) -> Result<BTreeMap<Vec<u8>, Vec<i64>>> {
        let (consumer, mut open) = (self.read(&[])?, self.partitions);
        let mut stamps = BTreeMap::<_, Vec<_>>::new();
        while open > 0 {
            match consumer.poll(Duration::from_secs(10)).context("nothing comes")? {
                Ok(message) => {
                    let key = message.key().unwrap_or_default().to_vec();
                    let stamp = message.timestamp().to_millis().context("no timestamp")?;
                    stamps.entry(key).or_default().push(stamp);
                }
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(stamps)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if let Ok(admin) = self.admin() {
            // What is left goes with the broker.
            let _ = futures_executor::block_on(
                admin.delete_topics(&[&self.name], &AdminOptions::new()),
            );
        }
    }
}

/// What the frames of a topic are like: one channel on a square.
pub(crate) fn sensor(side: usize) -> Result<Sensor> {
    let variables = vec![Variable { name: "vorticity".into(), units: "1".into() }];
    let grid = Grid { variables, y: Axis::index("y", side), x: Axis::index("x", side) };
    Ok(Sensor { id: "".into(), grid, cadence: Cadence::new(CADENCE)? })
}

/// Sends frames of several sensors, sensor by partition in turn.
pub(crate) struct Sender {
    producer: BaseProducer,
    like: Sensor,
    sensors: usize,
    /// The next step of all sensors.
    step: i64,
    /// Some frames of a drifting pattern, sent again and again under new times.
    fields: Vec<Vec<f32>>,
}

impl Sender {
    pub(crate) fn new(brokers: &str, side: usize, sensors: usize) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("message.max.bytes", "67108864")
            .set("linger.ms", "0")
            .create()?;
        let field = |step: usize| {
            let value = |at: usize| {
                let (y, x) = ((at / side) as f32, (at % side) as f32 - 1.5 * step as f32);
                (0.21 * x).sin() + (0.17 * y + 0.05 * x).cos() + 0.3 * (0.53 * x - 0.31 * y).sin()
            };
            (0..side * side).map(value).collect()
        };
        let fields = (0..32).map(field).collect();
        Ok(Self { producer, like: sensor(side)?, sensors, step: 0, fields })
    }

    pub(crate) fn sensors(&self) -> usize {
        self.sensors
    }

    /// Sends the next frame of every sensor.
    pub(crate) fn send(&mut self, topic: &Topic) -> Result<()> {
        // There and back: the pattern never jumps.
        let phase = (self.step % 62) as usize;
        let field = &self.fields[if phase < 32 { phase } else { 62 - phase }];
        for at in 0..self.sensors {
            let id = format!("s{at}");
            let frame = Frame {
                sensor: (&*id).into(),
                valid_time: 1_700_000_100_000_000_000 + self.step * CADENCE,
                offset: 0,
                shape: [1, self.like.grid.y.values.len(), self.like.grid.x.values.len()],
                data: field.clone(),
                replay: false,
                scored: false,
                record: None,
            };
            let named = Sensor { id: frame.sensor.clone(), ..self.like.clone() };
            let bytes = format::frame(Format::Da00, &frame, &named)?;
            let partition = at as i32 % topic.partitions;
            let mut record =
                BaseRecord::to(&topic.name).partition(partition).key(&id).payload(&bytes);
            while let Err((error, same)) = self.producer.send(record) {
                let full = RDKafkaErrorCode::QueueFull;
                ensure!(error.rdkafka_error_code() == Some(full), "{error}");
                self.producer.poll(Duration::from_millis(5));
                record = same;
            }
        }
        self.producer.poll(Duration::ZERO);
        self.step += 1;
        Ok(())
    }

    /// Waits until all is with the brokers.
    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(Duration::from_secs(120))?)
    }
}

/// Sees what is committed to a topic, as it comes.
pub(crate) struct Observer {
    consumer: BaseConsumer,
    /// Milliseconds since 1970 of every message, by key.
    pub(crate) seen: BTreeMap<Vec<u8>, Vec<i64>>,
    pub(crate) count: usize,
}

impl Observer {
    pub(crate) fn new(topic: &Topic) -> Result<Self> {
        let consumer = topic.read(&[("enable.partition.eof", "false")])?;
        Ok(Self { consumer, seen: BTreeMap::new(), count: 0 })
    }

    /// Waits for `count` messages in all.
    pub(crate) fn wait(&mut self, count: usize, most: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.count < count {
            let waited = begun.elapsed();
            ensure!(waited < most, "{} of {count} messages after {waited:?}", self.count);
            self.look(Duration::from_millis(50))?;
        }
        ensure!(self.count == count, "{} messages where {count} were due", self.count);
        Ok(())
    }

    pub(crate) fn look(&mut self, patience: Duration) -> Result<()> {
        match self.consumer.poll(patience) {
            Some(Ok(message)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
                let key = message.key().unwrap_or_default().to_vec();
                self.seen.entry(key).or_default().push(now);
                self.count += 1;
            }
            Some(Err(error)) => {
                let code = error.rdkafka_error_code();
                // The topic is new, or the machine so busy that connections broke: they come back.
                let passes = [
                    RDKafkaErrorCode::UnknownTopicOrPartition,
                    RDKafkaErrorCode::AllBrokersDown,
                    RDKafkaErrorCode::BrokerTransportFailure,
                ];
                ensure!(code.is_some_and(|code| passes.contains(&code)), "{error}");
            }
            None => {}
        }
        Ok(())
    }
}
