//! The producer behind the ledger: messages out, and whether they have arrived.

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

/// The first message that was not delivered, and why: without transactions nothing else tells.
#[derive(Default)]
pub(super) struct Deliveries(Mutex<Option<KafkaError>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, told: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = told {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.clone());
        }
    }
}

impl Deliveries {
    /// Takes it out.
    pub(super) fn take(&self) -> Option<KafkaError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Waits until nothing is on its way to the brokers. The flush of rdkafka looks every 100 ms: so
/// long would every transaction take.
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
pub(super) fn send<K, P>(producer: &Sender, record: BaseRecord<K, P>) -> Result<(), KafkaError>
where
    K: ToBytes + ?Sized,
    P: ToBytes + ?Sized,
{
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                serve(producer, producer.in_flight_count());
                record = same;
            }
            Err((error, _)) => return Err(error),
        }
    }
}
