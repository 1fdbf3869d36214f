//! A topic for people to look at: its messages as they come, whatever they hold.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use physicnet_stream::{Result, Time};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Cluster;
use super::config::{From, stamp};
use super::names;

/// How long brokers may take to say where a partition begins.
const ASK: Duration = Duration::from_secs(15);
/// How often trouble is told.
const TELL: Duration = Duration::from_secs(10);

/// A message as it lies in its topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The number of its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// When it was sent, where it says so.
    pub sent: Option<Time>,
    /// Its key; what is no text in it is replaced.
    pub key: Option<String>,
    /// Its headers; what is no text in them is replaced.
    pub headers: Vec<(String, String)>,
    /// Its value; none in a tombstone.
    pub payload: Option<Vec<u8>>,
}

impl Seen {
    /// The header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a look at a topic yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// The next message.
    Seen(Seen),
    /// None has come.
    Nothing,
    /// None any more: every partition has come to its end.
    End,
}

/// Reads the committed messages of a topic, and leaves no trace at the brokers.
pub struct Tail {
    cluster: Cluster,
    topic: String,
    consumer: BaseConsumer,
    partitions: usize,
    /// The partitions that have not come to their end.
    open: BTreeSet<i32>,
    follow: bool,
    told: Option<Instant>,
}

impl Tail {
    /// All partitions of `topic`, from `earliest`, `latest` or a time on, e.g.
    /// `2010-08-26T05:00`, UTC, by the brokers' timestamps; without `follow` to their end.
    /// `None` if the topic is not there.
    ///
    /// # Errors
    /// When no broker answers, no topic can be called so, or it may not be looked at.
    pub fn open(cluster: &Cluster, topic: &str, from: &str, follow: bool) -> Result<Option<Self>> {
        let from = From::parse(from)?;
        names::topic("topic", topic)?;
        let settings = [
            ("group.id", "physicnet.tail"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "earliest"),
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.message.max.bytes", "8388608"),
        ];
        let consumer: BaseConsumer =
            cluster.client(&settings)?.create().map_err(|e| cluster.error("consumer", e))?;
        let Some(partitions) = cluster.partitions(topic)? else {
            return Ok(None);
        };
        let failed = |e| cluster.error(&format!("asking for {topic}"), e);
        let place = |offset: &dyn Fn(i32) -> Offset| {
            let mut places = TopicPartitionList::new();
            for partition in 0..partitions as i32 {
                places.add_partition_offset(topic, partition, offset(partition))?;
            }
            Ok(places)
        };
        let places = match from {
            From::Earliest => place(&|_| Offset::Beginning),
            From::Latest => place(&|_| Offset::End),
            From::Time(time) => {
                let asked = place(&|_| Offset::Offset(stamp(time)));
                let told = asked.and_then(|asked| consumer.offsets_for_times(asked, ASK));
                let told = told.map_err(failed)?;
                place(&|partition| match told
                    .find_partition(topic, partition)
                    .map(|found| found.offset())
                {
                    Some(Offset::Offset(offset)) => Offset::Offset(offset),
                    _ => Offset::End,
                })
            }
        };
        places.and_then(|places| consumer.assign(&places)).map_err(failed)?;
        let (cluster, topic) = (cluster.clone(), topic.to_owned());
        let open = (0..partitions as i32).collect();
        Ok(Some(Self { cluster, topic, consumer, partitions, open, follow, told: None }))
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// The next message, waiting for it no longer than `wait`.
    ///
    /// # Errors
    /// When there is nothing to be had: the topic has gone, or may not be read.
    pub fn next(&mut self, wait: Duration) -> Result<Look> {
        use RDKafkaErrorCode::{
            GroupAuthorizationFailed, TopicAuthorizationFailed, UnknownTopicOrPartition,
        };
        if !self.follow && self.open.is_empty() {
            return Ok(Look::End);
        }
        match self.consumer.poll(wait) {
            None => {}
            Some(Ok(message)) => return Ok(Look::Seen(seen(&message))),
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = self.open.remove(&partition),
            Some(Err(error)) => {
                let lasting =
                    [GroupAuthorizationFailed, TopicAuthorizationFailed, UnknownTopicOrPartition];
                let told =
                    self.cluster.error(&format!("reading topic {}", self.topic), error.clone());
                if error.rdkafka_error_code().is_some_and(|code| lasting.contains(&code)) {
                    return Err(told);
                }
                if self.told.is_none_or(|told| told.elapsed() > TELL) {
                    self.told = Some(Instant::now());
                    tracing::warn!("{told}");
                }
            }
        }
        Ok(Look::Nothing)
    }
}

fn seen(message: &BorrowedMessage) -> Seen {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default())));
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        sent: message.timestamp().to_millis().map(|millis| millis.saturating_mul(1_000_000)),
        key: message.key().map(text),
        headers: headers.collect(),
        payload: message.payload().map(<[u8]>::to_vec),
    }
}
