//! Whether a newer instance of the job has taken over: each says in the progress that it starts.
//!
//! Brokers tell an instance that was fenced when it begins a transaction, which may be long in
//! coming, and one without transactions never. So each reads along what is written there.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use physicnet_stream::{Error, Failure, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Cluster;
use super::ledger::Names;
use super::progress::Author;

/// What brokers may gather before they answer, in milliseconds and in bytes: most of it is our own.
const GATHER: (&str, &str) = ("2000", "1048576");
/// How often to look whether the ledger has gone.
const LOOK: Duration = Duration::from_millis(500);

/// Watches for an instance that starts after `instance`, on a thread that ends when what is
/// returned is dropped, and reports it to `failure`.
///
/// # Errors
/// When there is no client or no thread to be had.
pub(super) fn watch(
    cluster: &Cluster,
    names: &Names,
    instance: u64,
    failure: Failure,
) -> Result<Sender<()>> {
    let config = cluster.client(&[
        ("group.id", "physicnet.fence"),
        ("enable.auto.commit", "false"),
        ("isolation.level", "read_committed"),
        ("auto.offset.reset", "earliest"),
        ("fetch.wait.max.ms", GATHER.0),
        ("fetch.min.bytes", GATHER.1),
    ])?;
    let consumer: BaseConsumer = config.create().map_err(|e| cluster.error("client", e))?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&names.progress, 0, Offset::Beginning)
        .and_then(|()| consumer.assign(&all))
        .map_err(|e| cluster.error(&names.progress, e))?;
    let (watch, ended) = channel();
    let (order, id) = (Order { own: instance, begun: false }, names.transactional_id.clone());
    let look = move || {
        if passed(&consumer, order, &ended) {
            failure.report(taken_over(&id));
        }
    };
    let started = std::thread::Builder::new().name("kafka-fence".to_owned()).spawn(look);
    started.map_err(|e| Error::new("thread kafka-fence", e))?;
    Ok(watch)
}

/// What an instance says that ends for another one.
pub(super) fn taken_over(transactional_id: &str) -> Error {
    let why = "another instance of this job has taken over, and this one ends; give the job \
               another `name` if both should run";
    Error::new(transactional_id, why)
}

/// Waits until a newer instance has started, or the other end of `ended` is dropped.
fn passed(consumer: &BaseConsumer, mut order: Order, ended: &Receiver<()>) -> bool {
    while ended.try_recv() != Err(TryRecvError::Disconnected) {
        match consumer.poll(LOOK) {
            Some(Ok(message)) if Author::of(&message).is_some_and(|who| order.passes(&who)) => {
                return true;
            }
            // Brokers that are away are the ledger's trouble.
            Some(Err(error)) => tracing::debug!("watching for other instances: {error}"),
            Some(Ok(_)) | None => {}
        }
    }
    false
}

/// Who came when, as the records of the progress tell in their order.
struct Order {
    own: u64,
    /// Whether what comes was written after the start of this instance.
    begun: bool,
}

impl Order {
    /// Whether `author` started after this instance. One that started before may still write.
    fn passes(&mut self, author: &Author) -> bool {
        let own = author.instance == self.own;
        self.begun |= own;
        self.begun && !own && author.transaction == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_start_goes_on() {
        // The third starts while the first still writes, which has not seen the second.
        let log = [(1, 0), (1, 1), (2, 0), (1, 2), (3, 0), (2, 1), (1, 3), (3, 1)];
        let passed_at = |own| {
            let mut order = Order { own, begun: false };
            log.iter().position(|(instance, number)| order.passes(&Author::new(*instance, *number)))
        };
        assert_eq!([1, 2, 3].map(passed_at), [Some(2), Some(4), None]);
    }
}
