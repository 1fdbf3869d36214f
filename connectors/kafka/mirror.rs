//! Offsets shown to the brokers, so that lag tools see how far the job is. Nothing reads them
//! back: the truth is in the progress.

use std::sync::Arc;

use physicnet_stream::{Result, Resume};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::topics::Topics;

/// A consumer for each source that consumes nothing.
pub(super) struct Mirror {
    consumers: Vec<(Arc<Topics>, BaseConsumer)>,
}

impl Mirror {
    pub(super) fn new(sources: &[Arc<Topics>]) -> Result<Self> {
        let consumer = |topics: &Arc<Topics>| {
            let cluster = &topics.config.cluster;
            let settings = [("group.id", &*topics.group), ("enable.auto.commit", "false")];
            let made = cluster.client(&settings)?.create();
            Ok((Arc::clone(topics), made.map_err(|e| cluster.error("consumer", e))?))
        };
        Ok(Self { consumers: sources.iter().map(consumer).collect::<Result<_>>()? })
    }

    /// Shows what has changed. A broker that refuses loses nothing but a figure.
    pub(super) fn commit(&self, changed: &Resume) {
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
                && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
            {
                tracing::debug!("offsets of {}: {error}", topics.group);
            }
            // Serves what the brokers have answered.
            while consumer.poll(std::time::Duration::ZERO).is_some() {}
        }
    }
}
