//! Frames from a topic to the stages, and no further: as the engine reads them, and as bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use physicnet_connectors::kafka::{KafkaSource, Topics, source};
use physicnet_operators::admission::{AdmissionConfig, Admit, Memory};
use physicnet_stream::{Catalogue, Failure, Pace, Resume, Stop};
use rdkafka::error::KafkaError;
use serde_json::{Map, Value, json};
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::vec::Filter;
use timely::dataflow::operators::{Inspect, Probe};

use crate::topic::{Sender, Topic};
use crate::{Asked, header, row, say};

/// What a topic holds.
const BYTES: usize = 512 << 20;

pub(crate) fn ingest(asked: &Asked) -> Result<Value> {
    say("\nIngest without a model, MB/s of payload, one worker\n")?;
    header("librdkafka")?;
    let mut told = Map::new();
    for (side, name) in [(128, "64 KiB"), (512, "1 MiB")] {
        for (sensors, partitions) in [(1, 1), (8, 4)] {
            let label = format!("{name}, {sensors} sensors, {partitions} partitions");
            let topic = format!("ingest-{side}-{sensors}-{}", std::process::id());
            let topic = Topic::make(&asked.brokers, &topic, partitions, &[])?;
            let mut sender = Sender::new(&asked.brokers, side, sensors)?;
            let steps = BYTES / (side * side * 4) / sensors;
            for _ in 0..steps {
                sender.send(&topic)?;
            }
            sender.flush()?;
            let frames = (steps * sensors) as u64;
            let (mut ours, mut plain) = (Vec::new(), Vec::new());
            // The first pair warms the broker's page cache and is not counted.
            for pair in 0..=asked.pairs {
                // Neither is always the first.
                let first = if pair % 2 == 0 { Some(bytes(&topic, frames)?) } else { None };
                let engine = engine(asked, &topic, side, frames)?;
                let yardstick = first.map_or_else(|| bytes(&topic, frames), Ok)?;
                if pair > 0 {
                    ours.push(engine);
                    plain.push(yardstick);
                }
            }
            told.insert(label.clone(), row(&label, &ours, &plain)?);
        }
    }
    Ok(Value::Object(told))
}

/// MB/s, from the first message to the last, of a loop that looks at nothing but their length.
fn bytes(topic: &Topic, frames: u64) -> Result<f64> {
    let ahead = ((64 << 10) / topic.partitions).to_string();
    let consumer = topic.read(&[("queued.max.messages.kbytes", &ahead)])?;
    let (mut bytes, mut count, mut begun) = (0, 0, None);
    // The end of a partition is told half a second after its last message.
    while count < frames {
        match consumer.poll(Duration::from_secs(10)).context("nothing comes")? {
            Ok(message) => {
                begun.get_or_insert_with(Instant::now);
                (bytes, count) = (bytes + message.payload_len(), count + 1);
            }
            Err(KafkaError::PartitionEOF(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let seconds = begun.context("no message")?.elapsed().as_secs_f64();
    Ok(bytes as f64 / seconds / 1e6)
}

/// MB/s of the source and admission, as a job has them, from the first frame to the last.
fn engine(asked: &Asked, topic: &Topic, side: usize, frames: u64) -> Result<f64> {
    let config = json!({
        "cluster": {"brokers": asked.brokers},
        "topics": [topic.name],
        "grid": {"variables": [{"name": "vorticity", "units": "1"}],
                 "y": {"count": side}, "x": {"count": side}},
        "cadence": "300s",
        "follow": false,
    });
    let config: KafkaSource = serde_json::from_value(config)?;
    let [count, bytes, nanos] = [0; 3].map(|none| Arc::new(AtomicU64::new(none)));
    let topics = Arc::new(Topics::open(&config, "ingest")?);
    let failure = Failure::default();
    let (counted, summed, reported) = (Arc::clone(&count), Arc::clone(&bytes), failure.clone());
    let took = Arc::clone(&nanos);
    timely::execute(timely::Config::thread(), move |worker| {
        let durable = ProbeHandle::new();
        let stop = Stop::default();
        let failure = failure.clone();
        let pace = Pace { durable: durable.clone(), in_flight: 8, stop, failure: failure.clone() };
        let (counted, summed) = (Arc::clone(&counted), Arc::clone(&summed));
        let took = Arc::clone(&took);
        let mut catalogue = Catalogue::default();
        topics.any().into_iter().for_each(|any| _ = catalogue.insert_any(Arc::clone(any)));
        worker.dataflow::<u64, _, _>(|scope| {
            let frames = source(scope, &topics, &Resume::default(), pace);
            let judged = frames.admit(&AdmissionConfig::default(), &catalogue, Memory::of(2));
            judged.marks.filter(|_| false).probe_with(&durable);
            let mut begun = None;
            let count = move |frame: &physicnet_operators::admission::Admitted| {
                let begun = begun.get_or_insert_with(Instant::now);
                counted.fetch_add(1, Ordering::Relaxed);
                summed.fetch_add(4 * frame.data.len() as u64, Ordering::Relaxed);
                took.store(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
            };
            judged.admitted.inspect(count).probe_with(&durable);
        });
        while !durable.done() && !failure.failed() {
            worker.step_or_park(Some(Duration::from_millis(20)));
        }
    })
    .map_err(|error| anyhow!(error))?
    .join()
    .into_iter()
    .try_for_each(|outcome| outcome.map_err(|error| anyhow!(error)))?;
    let rate = 1e3 * bytes.load(Ordering::Relaxed) as f64 / nanos.load(Ordering::Relaxed) as f64;
    if let Some(error) = reported.take() {
        return Err(error.into());
    }
    let count = count.load(Ordering::Relaxed);
    ensure!(count == frames, "{count} frames of {frames}");
    Ok(rate)
}
