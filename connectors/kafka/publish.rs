//! Frames into a topic, keyed by sensor, as fast as the brokers take them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Frame, Result, Sensor, Stop};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::Cluster;
use super::cluster::large;
use super::format::{self, Format};
use super::names;

/// How long to wait at a time: for room in the queue, or for the last frames to arrive.
const WAIT: Duration = Duration::from_millis(100);
/// How often trouble is told.
const TELL: Duration = Duration::from_secs(10);

/// What the brokers have acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// How many frames.
    pub frames: u64,
    /// The bytes of their messages.
    pub bytes: u64,
}

/// Sends frames to one topic. Those of a sensor go to one partition, in order, none twice.
pub struct Publisher {
    cluster: Cluster,
    topic: String,
    format: Format,
    producer: BaseProducer<Deliveries>,
    stop: Stop,
}

impl Publisher {
    /// A publisher to `topic`, which is made if it is not there: with `partitions`, by default 1.
    ///
    /// # Errors
    /// When no broker answers, no topic can be called so, or it cannot be made or has not as many
    /// partitions.
    pub fn open(
        cluster: &Cluster,
        topic: &str,
        format: Format,
        partitions: Option<i32>,
        stop: &Stop,
    ) -> Result<Self> {
        names::topic("topic", topic)?;
        let settings = [
            ("enable.idempotence", "true"),
            // Bounded, and larger than the largest message: that would never find room.
            ("queue.buffering.max.kbytes", "131072"),
        ];
        let deliveries = Deliveries { brokers: cluster.brokers.clone(), ..Deliveries::default() };
        let producer: Result<BaseProducer<_>, _> =
            cluster.client(&settings)?.create_with_context(deliveries);
        let producer = producer.map_err(|e| cluster.error("producer", e))?;
        match cluster.partitions(topic)? {
            None => {
                cluster.make(&[large(topic, Some(partitions.unwrap_or(1)))])?;
            }
            Some(there) => {
                if let Some(wanted) = partitions.filter(|wanted| *wanted as usize != there) {
                    let why = format!(
                        "is there already, with {there} partitions and not {wanted}; leave \
                         --partitions out, or name another topic"
                    );
                    return Err(Error::new(format!("topic {topic} at {}", cluster.brokers), why));
                }
            }
        }
        let (cluster, topic, stop) = (cluster.clone(), topic.to_owned(), stop.clone());
        Ok(Self { cluster, topic, format, producer, stop })
    }

    /// Puts a frame into the queue, waiting while it is full; whether it went in before the
    /// stop asked to end.
    ///
    /// # Errors
    /// When the frame does not fit its sensor, or one before it was not taken by the brokers.
    pub fn send(&self, frame: &Frame, sensor: &Sensor) -> Result<bool> {
        let payload = format::frame(self.format, frame, sensor)?;
        let mut record =
            BaseRecord::to(&self.topic).key(frame.sensor.as_str()).payload(payload.as_slice());
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                }
                Err((error, _)) => return Err(self.explain(error, payload.len())),
            }
            if self.stop.stopped() {
                return Ok(false);
            }
            self.producer.poll(WAIT);
            self.check()?;
        }
        self.producer.poll(Duration::ZERO);
        self.check().map(|()| true)
    }

    /// Keeps the connection alive for `span`, between frames.
    ///
    /// # Errors
    /// When the brokers did not take a frame.
    pub fn idle(&self, span: Duration) -> Result<()> {
        self.producer.poll(span);
        self.check()
    }

    /// What has been acknowledged so far.
    pub fn published(&self) -> Published {
        self.producer.context().tally().published
    }

    /// Waits until everything that was queued is acknowledged.
    ///
    /// # Errors
    /// When the brokers did not take a frame.
    pub fn finish(&self) -> Result<Published> {
        loop {
            match self.producer.flush(WAIT) {
                Ok(()) => break,
                Err(error) if error.rdkafka_error_code() == Some(TIMED_OUT) => self.check()?,
                Err(error) => return Err(self.cluster.error("sending", error)),
            }
        }
        self.check()?;
        Ok(self.published())
    }

    /// Whether all went well so far.
    fn check(&self) -> Result<()> {
        let failed = self.producer.context().tally().failed.take();
        failed.map_or(Ok(()), |(error, bytes)| Err(self.explain(error, bytes)))
    }

    fn explain(&self, error: KafkaError, bytes: usize) -> Error {
        let Self { cluster: Cluster { brokers, .. }, topic, .. } = self;
        let what = format!("topic {topic} at {brokers}");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let why = format!(
                    "a frame of {bytes} bytes is larger than it takes; raise its max.message.bytes"
                );
                Error::new(what, why)
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Error::new(what, "this user may not write to it; grant it, or name another")
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                Error::new(what, "the brokers took nothing for minutes; are they up?")
            }
            _ => Error::new(what, error),
        }
    }
}

const TIMED_OUT: RDKafkaErrorCode = RDKafkaErrorCode::OperationTimedOut;

#[derive(Default)]
struct Tally {
    published: Published,
    /// The first frame that was not taken, and its size.
    failed: Option<(KafkaError, usize)>,
    told: Option<Instant>,
}

/// Counts what is acknowledged, and tells when brokers are away.
#[derive(Default)]
struct Deliveries {
    brokers: String,
    tally: Mutex<Tally>,
}

impl Deliveries {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        let mut tally = self.tally();
        if tally.told.is_none_or(|told| told.elapsed() > TELL) {
            tally.told = Some(Instant::now());
            let code = error.rdkafka_error_code();
            tracing::warn!("Kafka at {}: {reason} ({code:?}); trying again", self.brokers);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, told: &DeliveryResult<'_>, (): ()) {
        let mut tally = self.tally();
        match told {
            Ok(message) => {
                tally.published.frames += 1;
                tally.published.bytes += message.payload_len() as u64;
            }
            Err((error, message)) => {
                let bytes = message.payload_len();
                tally.failed.get_or_insert_with(|| (error.clone(), bytes));
            }
        }
    }
}
