//! The producer behind the ledger: messages out, and whether they have arrived.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use physicnet_stream::Result;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::config::{Delivery, KafkaSink};
use super::ledger::Names;

/// How long the brokers take a transaction to be alive; bounds how long a killed one blocks.
const TRANSACTION_TIMEOUT: &str = "60000";
/// How often to look what has been delivered.
const TICK: Duration = Duration::from_millis(1);

/// A producer for the topics of the job that goes by `names`.
pub(super) fn producer(config: &KafkaSink, names: &Names) -> Result<Sender> {
    let mut settings = vec![
        ("enable.idempotence", "true"),
        // What a transaction holds is sent at once; waiting for more is of no use.
        ("linger.ms", "0"),
        ("queue.buffering.max.kbytes", "262144"),
    ];
    if config.delivery == Delivery::ExactlyOnce {
        settings.push(("transactional.id", &names.transactional_id));
        settings.push(("transaction.timeout.ms", TRANSACTION_TIMEOUT));
    }
    let client = config.cluster.client(&settings)?;
    let made = client.create_with_context(Deliveries::default());
    made.map_err(|e| config.cluster.error("producer", e))
}

pub(super) type Sender = BaseProducer<Deliveries>;

/// What has become of the messages. Each is counted by its number in the attempt.
#[derive(Default)]
pub(super) struct Deliveries {
    lost: Mutex<Lost>,
    /// The bytes that are under way.
    under_way: AtomicUsize,
}

/// The messages that were not delivered: without transactions nothing else tells.
#[derive(Default)]
pub(super) struct Lost {
    /// Why the first was not.
    pub(super) first: Option<KafkaError>,
    /// Those whose batch was too large for the topic.
    pub(super) too_large: BTreeSet<usize>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, told: &DeliveryResult<'_>, number: usize) {
        let message = match told {
            Ok(message) => message,
            Err((error, message)) => {
                self.lose(error, number);
                message
            }
        };
        self.under_way.fetch_sub(message.payload_len(), Ordering::Relaxed);
    }
}

impl Deliveries {
    /// Takes out what was lost.
    pub(super) fn take(&self) -> Lost {
        std::mem::take(&mut self.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lose(&self, error: &KafkaError, number: usize) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.first.get_or_insert_with(|| error.clone());
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            lost.too_large.insert(number);
        }
    }

    fn first(&self) -> Option<KafkaError> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).first.clone()
    }
}

/// Waits until no more than `bytes` are under way, at 0 until nothing is, or a message is lost.
pub(super) fn arrived(
    producer: &Sender,
    bytes: usize,
    patience: Duration,
) -> Result<(), KafkaError> {
    let begun = Instant::now();
    loop {
        let (left, context) = (producer.in_flight_count(), producer.context());
        if let Some(error) = context.first() {
            return Err(error);
        }
        if left == 0 || bytes > 0 && context.under_way.load(Ordering::Relaxed) <= bytes {
            return Ok(());
        }
        if begun.elapsed() > patience {
            return producer.flush(Duration::ZERO);
        }
        serve(producer, left);
    }
}

/// Waits until nothing is on its way to the brokers, lost or not. The flush of rdkafka looks every
/// 100 ms: so long would every transaction take.
pub(super) fn settle(producer: &Sender, patience: Duration) -> Result<(), KafkaError> {
    let begun = Instant::now();
    loop {
        let left = producer.in_flight_count();
        if left == 0 || begun.elapsed() > patience {
            return producer.flush(Duration::ZERO);
        }
        serve(producer, left);
    }
}

/// Takes in what brokers have answered, or waits a moment if that is nothing: a poll that waits
/// itself spins through its last millisecond.
fn serve(producer: &Sender, left: i32) {
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() == left {
        std::thread::sleep(TICK);
    }
}

/// Hands a message to the producer, waiting where its queue is full.
pub(super) fn send<K, P>(
    producer: &Sender,
    record: BaseRecord<K, P, usize>,
) -> Result<(), KafkaError>
where
    K: ToBytes + ?Sized,
    P: ToBytes + ?Sized,
{
    let (number, mut record) = (record.delivery_opaque, record);
    let bytes = record.payload.map_or(0, |payload| payload.to_bytes().len());
    let context = producer.context();
    context.under_way.fetch_add(bytes, Ordering::Relaxed);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                serve(producer, producer.in_flight_count());
                record = same;
            }
            Err((error, _)) => {
                context.under_way.fetch_sub(bytes, Ordering::Relaxed);
                context.lose(&error, number);
                return Err(error);
            }
        }
    }
}
