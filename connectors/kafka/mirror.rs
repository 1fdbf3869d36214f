//! What lag tools and people look at: offsets shown to the brokers, and whether there are
//! partitions that the job does not know. Nothing reads the offsets back: the truth is in the
//! progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use physicnet_stream::{Error, Result, Resume};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::topics::Topics;

/// The property that says how often metadata are asked for anew, and what it is by default here.
const REFRESH: (&str, &str) = ("topic.metadata.refresh.interval.ms", "60000");
/// How long brokers may take to say what partitions there are.
const ASK: Duration = Duration::from_secs(15);

/// A consumer for each source that consumes nothing.
pub(super) struct Mirror {
    consumers: Vec<(Arc<Topics>, Arc<BaseConsumer>)>,
    /// What it has shown so far.
    shown: Resume,
    /// Dropped, it ends the thread that looks for new partitions.
    _watch: Sender<()>,
}

impl Mirror {
    pub(super) fn new(sources: &[Arc<Topics>]) -> Result<Self> {
        let (watch, ended) = channel();
        let (mut consumers, mut interval) = (Vec::new(), Duration::MAX);
        for topics in sources {
            let cluster = &topics.config.cluster;
            let config = cluster.client(&[
                ("group.id", &*topics.group),
                ("enable.auto.commit", "false"),
                REFRESH,
            ])?;
            let often = config.get(REFRESH.0).and_then(|text| text.parse().ok());
            // Below zero it means never.
            interval =
                interval.min(often.map_or(interval, |ms: u64| Duration::from_millis(ms.max(1000))));
            let consumer = config.create().map_err(|e| cluster.error("consumer", e))?;
            consumers.push((Arc::clone(topics), Arc::new(consumer)));
        }
        if interval < Duration::MAX {
            let watched = consumers.clone();
            std::thread::Builder::new()
                .name("kafka-partitions".to_owned())
                .spawn(move || look(&watched, interval, &ended))
                .map_err(|e| Error::new("thread kafka-partitions", e))?;
        }
        Ok(Self { consumers, shown: Resume::default(), _watch: watch })
    }

    /// Shows what has changed. A broker that refuses loses nothing but a figure.
    pub(super) fn commit(&mut self, changed: &Resume) {
        let next = changed.next.iter().map(|(log, next)| (Arc::clone(log), *next));
        self.shown.next.extend(next);
        self.show(changed, CommitMode::Async);
    }

    fn show(&self, changed: &Resume, mode: CommitMode) {
        for (topics, consumer) in &self.consumers {
            let mut offsets = TopicPartitionList::new();
            for ((topic, partition), log) in &topics.partitions {
                if let Some(next) = changed.next.get(log) {
                    let next = Offset::Offset(*next as i64);
                    // Only an offset that is none could be refused.
                    let _ = offsets.add_partition_offset(topic, *partition, next);
                }
            }
            if offsets.count() > 0
                && let Err(error) = consumer.commit(&offsets, mode)
            {
                tracing::debug!("offsets of {}: {error}", topics.group);
            }
            // Serves what the brokers have answered.
            while consumer.poll(std::time::Duration::ZERO).is_some() {}
        }
    }
}

impl Drop for Mirror {
    /// What was shown last may still be on its way when the process ends.
    fn drop(&mut self) {
        self.show(&self.shown, CommitMode::Sync);
    }
}

/// Tells, once, of partitions that have been added to the topics.
fn look(consumers: &[(Arc<Topics>, Arc<BaseConsumer>)], interval: Duration, ended: &Receiver<()>) {
    let mut told = BTreeMap::<&str, usize>::new();
    while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        for (topics, consumer) in consumers {
            for name in &topics.config.topics {
                // Brokers that are away are the reader's trouble.
                let Ok(metadata) = consumer.fetch_metadata(Some(name), ASK) else { continue };
                let read = topics.partitions.keys().filter(|(topic, _)| topic == name).count();
                let known = told.entry(name).or_insert(read);
                let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
                if count > *known {
                    *known = count;
                    tracing::warn!(
                        "topic {name} has {count} partitions by now, and {read} of them are read: \
                         restart the job to read the others"
                    );
                }
            }
        }
    }
}
