//! How far the reading of each partition lies behind its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How often brokers are asked where partitions end.
const EVERY: Duration = Duration::from_secs(5);
/// How long they may take to say so.
const ASK: Duration = Duration::from_secs(10);

/// How far the partitions of a source are read; clones share it. Nobody is asked before somebody
/// wants to know.
#[derive(Clone, Default)]
pub struct Lag(Arc<Shared>);

#[derive(Default)]
struct Shared {
    wanted: AtomicBool,
    /// By topic and partition.
    known: Mutex<BTreeMap<(String, i32), Reach>>,
}

/// Offsets of a partition.
#[derive(Clone, Copy, Default)]
struct Reach {
    /// What is read next.
    next: i64,
    /// Behind the last message that is committed, once a broker has said.
    end: Option<i64>,
}

impl Lag {
    /// The same, which readers that are opened from now on attend to.
    pub(super) fn wanted(&self) -> Self {
        self.0.wanted.store(true, Relaxed);
        self.clone()
    }

    /// By topic and partition, how many messages there are that were not read when brokers last
    /// said, at most some seconds ago. What a transaction writes at its end counts as one, until a
    /// message behind it is read.
    pub fn messages(&self) -> BTreeMap<(String, i32), u64> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let told = known.iter().filter_map(|(place, reach)| {
            let behind = reach.end?.saturating_sub(reach.next);
            Some((place.clone(), behind.max(0) as u64))
        });
        told.collect()
    }

    /// Asks, in a thread, where the partitions of `consumer` end, as long as what it returns is
    /// held; `from` is where they are read from. Nothing where nobody wants to know.
    pub(super) fn attend(
        &self,
        consumer: &Arc<BaseConsumer>,
        from: &TopicPartitionList,
    ) -> Option<Attending> {
        if !self.0.wanted.load(Relaxed) {
            return None;
        }
        let mut ends = TopicPartitionList::new();
        for element in from.elements() {
            let place = (element.topic().to_owned(), element.partition());
            let next = element.offset().to_raw().unwrap_or(0);
            self.note(place, |reach| reach.next = next);
            // As the brokers' timestamp this asks for the end.
            ends.add_partition_offset(element.topic(), element.partition(), Offset::End).ok()?;
        }
        let (held, gone) = channel::<()>();
        let (lag, consumer) = (self.clone(), Arc::downgrade(consumer));
        let ask = move || {
            loop {
                if !lag.ask(&consumer, &ends) {
                    return;
                }
                if gone.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("Lag".to_owned());
        if let Err(error) = thread.spawn(ask) {
            tracing::warn!("how far reading is behind is not told, for want of a thread: {error}");
        }
        Some(Attending { lag: self.clone(), _held: held })
    }

    /// Whether there still is somebody to ask for.
    fn ask(&self, consumer: &Weak<BaseConsumer>, ends: &TopicPartitionList) -> bool {
        let Some(consumer) = consumer.upgrade() else { return false };
        match consumer.offsets_for_times(ends.clone(), ASK) {
            Ok(told) => {
                for element in told.elements() {
                    if let (Ok(()), Offset::Offset(end)) = (element.error(), element.offset()) {
                        let place = (element.topic().to_owned(), element.partition());
                        self.note(place, |reach| reach.end = Some(end));
                    }
                }
            }
            // The reader tells of brokers that are away.
            Err(error) => tracing::debug!("asking where partitions end: {error}"),
        }
        true
    }

    fn note(&self, place: (String, i32), what: impl FnOnce(&mut Reach)) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        what(known.entry(place).or_default());
    }
}

/// The partitions of one reader.
pub(super) struct Attending {
    lag: Lag,
    /// Gone, the thread ends.
    _held: Sender<()>,
}

impl Attending {
    /// The next message of a partition is that of offset `next`.
    pub(super) fn read(&self, place: &(String, i32), next: i64) {
        let mut known = self.lag.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reach) = known.get_mut(place) {
            reach.next = next;
        }
    }
}
