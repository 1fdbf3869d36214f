//! The topic of a job's progress: compacted, one partition, keyed.
//!
//! ```text
//! job            {"version": 1, "instance": ID, "transaction": N}   who wrote last, and what
//! log/LOG        {"next": OFFSET}                                   where the log is read on
//! sensor/NAME    {"window": [[LOG, OFFSET], ...]}                   what rebuilds the window
//! ```
//!
//! Every transaction ends with the records that it changes, so that what is committed and what
//! is known of it are one thing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Position, Result, Resume, SensorId};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::Cluster;

/// The layout of the records; another one is not read.
const VERSION: u32 = 1;
/// The key of the record that says who wrote last.
const JOB: &str = "job";
/// How long the topic may be silent before reading it counts as failed.
const SILENCE: Duration = Duration::from_secs(30);

/// Who wrote the last transaction, and which of its own it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Author {
    version: u32,
    /// A random number for every start of a job.
    pub(super) instance: u64,
    /// Counted from 0 by the instance.
    pub(super) transaction: u64,
}

impl Author {
    pub(super) fn new(instance: u64, transaction: u64) -> Self {
        Self { version: VERSION, instance, transaction }
    }

    /// The one that a record of the progress names, if it does.
    pub(super) fn of(record: &impl Message) -> Option<Self> {
        let named = record.key() == Some(JOB.as_bytes());
        named.then(|| serde_json::from_slice(record.payload()?).ok()).flatten()
    }
}

#[derive(Serialize, Deserialize)]
struct Next {
    next: u64,
}

#[derive(Serialize, Deserialize)]
struct Window {
    window: Vec<(Arc<str>, u64)>,
}

/// What the topic says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Progress {
    pub(super) author: Option<Author>,
    pub(super) resume: Resume,
}

impl Progress {
    /// The records, key and value, that a transaction by `author` leaves of `changed`.
    pub(super) fn records(author: &Author, changed: &Resume) -> Result<Vec<(String, Vec<u8>)>> {
        fn value(value: &impl Serialize) -> Result<Vec<u8>> {
            serde_json::to_vec(value).map_err(|e| Error::new("progress", e))
        }
        // Windows first: where nothing binds the records, one that is newer than its offset only
        // makes known frames be read again.
        let mut records = Vec::new();
        for (sensor, window) in &changed.windows {
            let window = window.iter().map(|at| (Arc::clone(&at.log), at.offset)).collect();
            records.push((format!("sensor/{sensor}"), value(&Window { window })?));
        }
        for (log, next) in &changed.next {
            records.push((format!("log/{log}"), value(&Next { next: *next })?));
        }
        records.push((JOB.to_owned(), value(author)?));
        Ok(records)
    }

    /// Takes in one record.
    fn take(&mut self, key: &str, payload: &[u8]) -> Result<(), serde_json::Error> {
        if key == JOB {
            self.author = Some(serde_json::from_slice(payload)?);
        } else if let Some(log) = key.strip_prefix("log/") {
            let Next { next } = serde_json::from_slice(payload)?;
            self.resume.next.insert(log.into(), next);
        } else if let Some(sensor) = key.strip_prefix("sensor/") {
            let Window { window } = serde_json::from_slice(payload)?;
            let positions = window.into_iter().map(|(log, offset)| Position { log, offset });
            self.resume.windows.insert(SensorId::from(sensor), positions.collect());
        }
        Ok(())
    }

    /// Reads all that is committed in `topic`.
    ///
    /// # Errors
    /// When no broker answers, or the topic holds something else.
    pub(super) fn read(cluster: &Cluster, topic: &str) -> Result<Self> {
        let config = cluster.client(&[
            ("group.id", "physicnet.progress"),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            // The end is told when a fetch comes back empty.
            ("fetch.wait.max.ms", "20"),
        ])?;
        let consumer: BaseConsumer = config.create().map_err(|e| cluster.error("client", e))?;
        // A new leader tells its end only when it knows it whole (KIP-207); until then a fetch
        // could seem to have come to the end before the newest records.
        let begun = Instant::now();
        while let Err(error) = consumer.fetch_watermarks(topic, 0, SILENCE / 6) {
            if begun.elapsed() > SILENCE {
                return Err(cluster.error(topic, error));
            }
            std::thread::sleep(SILENCE / 100);
        }
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning)
            .and_then(|()| consumer.assign(&from))
            .map_err(|e| cluster.error(topic, e))?;
        let (mut progress, mut heard) = (Self::default(), Instant::now());
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let foreign = |why: &dyn std::fmt::Display| {
                        let what = format!("topic {topic}, offset {}", message.offset());
                        Error::new(what, format!("is no progress of a job ({why}); name another"))
                    };
                    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                    let key = key.ok_or_else(|| foreign(&"no key"))?;
                    let payload = message.payload().unwrap_or_default();
                    progress.take(key, payload).map_err(|e| foreign(&e))?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                // Brokers come and go; what stays away is told by the silence.
                Some(Err(error)) => tracing::debug!("reading {topic}: {error}"),
                None => {}
            }
            if heard.elapsed() > SILENCE {
                let why = "the brokers do not answer";
                return Err(Error::new(format!("topic {topic} at {}", cluster.brokers), why));
            }
        }
        match &progress.author {
            Some(author) if author.version != VERSION => {
                let why = format!(
                    "was written in version {}, this program reads {VERSION}; run a newer one",
                    author.version
                );
                Err(Error::new(format!("topic {topic}"), why))
            }
            _ => Ok(progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_the_progress() {
        let at = |offset| Position { log: "frames/3".into(), offset };
        let mut resume = Resume::default();
        resume.next.insert("frames/3".into(), 9);
        resume.windows.insert("a/b".into(), vec![at(5), at(8)]);
        let author = Author::new(7, 2);
        let records = Progress::records(&author, &resume).unwrap();
        // The layout is a promise: an older job is restarted by a newer program.
        let text: Vec<_> = records
            .iter()
            .map(|(key, value)| format!("{key} {}", String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(
            text,
            [
                r#"sensor/a/b {"window":[["frames/3",5],["frames/3",8]]}"#,
                r#"log/frames/3 {"next":9}"#,
                r#"job {"version":1,"instance":7,"transaction":2}"#,
            ]
        );
        let mut again = Progress::default();
        for (key, value) in &records {
            again.take(key, value).unwrap();
        }
        assert_eq!(again, Progress { author: Some(author), resume });
        assert!(again.take("log/x", b"{}").is_err());
    }
}
