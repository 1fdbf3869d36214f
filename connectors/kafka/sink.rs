//! Everything that a job says to Kafka: forecasts, dead letters and progress, epoch by epoch.
//!
//! ```text
//! forecasts ─► encoded ──┐
//! rejects ───► letters ──┼─► worker 0: complete epochs ─► a transaction (own thread) ─► durable
//! marks ─────────────────┘        ▲
//! other sinks ─► their durable ───┘
//! ```
//!
//! An epoch is committed when everything of it has come and all other sinks have it: a restart
//! from the progress then finds them at least as far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use physicnet_stream::{
    Catalogue, Error, Failure, Forecast, Mark, Pace, Reject, Result, Resume, Sensor, Stop,
};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Capability, Concatenate};

use super::cluster::{compacted, large};
use super::config::KafkaSink;
use super::format;
use super::ledger::{Claim, Entry, Letter, Names};
use super::mirror::Mirror;
use super::topics::Topics;
use crate::durable::{Empty, writer};

/// How long to gather what goes out after a transaction. Until the coordinator has written of all
/// partitions that one has ended, it refuses the next (CONCURRENT_TRANSACTIONS), and librdkafka asks
/// again only after 20 ms: better to begin a little later, and with what has come meanwhile.
const GATHER: Duration = Duration::from_millis(5);

/// What a job has to say.
pub struct Said<'scope> {
    /// Its forecasts.
    pub forecasts: StreamVec<'scope, u64, Forecast>,
    /// The frames that were not used.
    pub rejected: StreamVec<'scope, u64, Reject>,
    /// What the frames change in its progress.
    pub marks: StreamVec<'scope, u64, Mark>,
    /// What all other sinks say is durable.
    pub stored: StreamVec<'scope, u64, ()>,
}

/// The topics that a job writes.
#[derive(Clone)]
pub struct Ledger {
    config: KafkaSink,
    names: Names,
    sources: Vec<Arc<Topics>>,
}

impl Ledger {
    /// The ledger of `job`, whose offsets in `sources` it shows to the brokers; `series` are the
    /// sensors of its other sources.
    ///
    /// # Errors
    /// When the settings make no sense, or two logs of the job would go by one name.
    pub fn new(
        config: &KafkaSink,
        job: &str,
        sources: Vec<Arc<Topics>>,
        series: &[Arc<Sensor>],
    ) -> Result<Self> {
        config.cluster.client(&[])?;
        let names = Names::new(config, job);
        config.check(job)?;
        let mut all = vec![&names.dead_letters, &names.progress];
        all.extend(&config.topic);
        all.sort_unstable();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::new(format!("topic {}", pair[0]), "is named for two purposes"));
        }
        let mut read = BTreeSet::new();
        for topic in sources.iter().flat_map(|topics| &topics.config.topics) {
            let refused = |why| Err(Error::new(format!("topic {topic}"), why));
            if all.contains(&topic) {
                return refused("is read and written by the same job");
            }
            // The progress says of a partition its topic and number, and not its cluster.
            if !read.insert(&**topic) {
                return refused(
                    "is read twice by the job, which would take the partitions of one for those \
                     of the other; leave one out, or give it to a job of its own",
                );
            }
        }
        // And it knows a series by its sensor.
        let meets = |sensor: &&Arc<Sensor>| {
            let parts = sensor.id.as_str().rsplit_once('/');
            parts.is_some_and(|(topic, n)| read.contains(topic) && n.parse::<u32>().is_ok())
        };
        if let Some(Sensor { id, .. }) = series.iter().find(meets).map(|sensor| &**sensor) {
            let why = "is called like a partition of a topic that the job reads; give its source \
                       another `sensor` or `name`, or the topic to a job of its own";
            return Err(Error::new(format!("sensor {id}"), why));
        }
        Ok(Self { config: config.clone(), names, sources })
    }

    /// Makes the topics that are missing, fences any older instance of the job, and says where
    /// the job goes on. For the one worker that writes.
    ///
    /// # Errors
    /// When the brokers cannot be reached or refuse, or `stop` asks.
    pub fn claim(&self, stop: &Stop) -> Result<(Claim, Resume)> {
        let Self { config, names, sources } = self;
        let mut topics = vec![compacted(&names.progress), large(&names.dead_letters, None)];
        topics.extend(config.topic.iter().map(|topic| large(topic, None)));
        config.cluster.make(&topics)?;
        // Its order is that of one partition.
        if let Some(count) = config.cluster.partitions(&names.progress)?.filter(|n| *n != 1) {
            let why = format!("has {count} partitions and must have one; make it anew, compacted");
            return Err(Error::new(format!("topic {}", names.progress), why));
        }
        Claim::new(config, names, sources, Mirror::new(sources)?, stop)
    }

    /// Writes what comes, on worker 0; the frontier of what it returns is what is committed,
    /// here and by the sinks behind `stored`. `claim` is worker 0's; others have none.
    pub fn write<'scope>(
        &self,
        said: Said<'scope>,
        catalogue: &Catalogue,
        claim: Option<Claim>,
        pace: &Pace,
    ) -> StreamVec<'scope, u64, ()> {
        let Self { config, names, .. } = self.clone();
        let Said { forecasts, rejected, marks, stored } = said;
        let scope = forecasts.scope();
        let failure = pace.failure.clone();
        let letters = match config.topic.clone() {
            Some(topic) => {
                let (known, report) = (catalogue.clone(), failure.clone());
                let format = config.format;
                forecasts.flat_map(move |forecast| {
                    let letter = forecast_letter(&topic, format, &known, &forecast);
                    letter.map_err(|error| report.report(error)).ok()
                })
            }
            None => forecasts.flat_map(|_| None),
        };
        let (known, report) = (catalogue.clone(), failure.clone());
        let dead = rejected.flat_map(move |reject| {
            let letter = dead_letter(&names.dead_letters, config.format, &known, reject);
            letter.map_err(|error| report.report(error)).ok()
        });
        let entries = scope.concatenate([
            letters.map(Entry::Letter),
            dead.map(Entry::Letter),
            marks.map(Entry::Mark),
        ]);
        commit(entries, stored, claim, failure)
    }
}

/// Commits complete epochs, oldest first, as many at a time as have become complete.
fn commit<'scope>(
    entries: StreamVec<'scope, u64, Entry>,
    stored: StreamVec<'scope, u64, ()>,
    claim: Option<Claim>,
    failure: Failure,
) -> StreamVec<'scope, u64, ()> {
    let scope = entries.scope();
    let one = Exchange::new(|_: &Entry| 0);
    entries.binary_frontier::<_, Empty, _, _, _, _>(
        stored,
        one,
        Pipeline,
        "KafkaSink",
        move |_cap, info| {
            let wake = scope.worker().sync_activator_for(info.address.to_vec());
            let again = scope.activator_for(info.address);
            // Only one worker has a claim, and only to it does anything come.
            let mut written = claim.map(|mut claim| {
                if let Err(error) = claim.watch(&failure) {
                    failure.report(error);
                }
                writer("KafkaSink", move |entries| claim.commit(entries), wake, &failure)
            });
            let mut open = BTreeMap::<u64, (Capability<u64>, Vec<Entry>)>::new();
            let mut writing: Option<Vec<Capability<u64>>> = None;
            let mut due: Option<Instant> = None;
            let mut lost = false;
            move |(entries, entry_frontier), (_stored, stored_frontier), output| {
                entries.for_each_stamp(|cap, batches| {
                    let Some(cap) = cap.retain_least(output.output_index()) else { return };
                    let (_, open) = open.entry(*cap.time()).or_insert((cap, Vec::new()));
                    open.extend(batches.flat_map(|batch| batch.drain(..)));
                });
                let Some(writer) = &mut written else { return };
                match writer.results.try_recv() {
                    Ok(Ok(())) => {
                        writing = None;
                        due = Some(Instant::now() + GATHER);
                    }
                    Ok(Err(error)) => {
                        failure.report(error);
                        lost = true;
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => lost |= writing.is_some(),
                }
                // After a failure the capabilities stay: nothing more is ever called durable.
                if writing.is_some() || lost || failure.failed() {
                    return;
                }
                let complete = |epoch: &u64| {
                    !entry_frontier.less_equal(epoch) && !stored_frontier.less_equal(epoch)
                };
                if open.first_key_value().is_some_and(|(epoch, _)| complete(epoch)) {
                    let left = due.map_or(Duration::ZERO, |due| due - Instant::now());
                    if !left.is_zero() {
                        again.activate_after(left);
                        return;
                    }
                    let (mut caps, mut batch) = (Vec::new(), Vec::new());
                    while let Some(first) = open.first_entry().filter(|first| complete(first.key()))
                    {
                        let (cap, mut entries) = first.remove();
                        caps.push(cap);
                        batch.append(&mut entries);
                    }
                    let sent =
                        writer.jobs.as_ref().is_some_and(|jobs| jobs.try_send(batch).is_ok());
                    if !sent {
                        failure.report(Error::new("KafkaSink", "its thread has ended"));
                    }
                    writing = Some(caps);
                } else if entry_frontier.is_empty() && stored_frontier.is_empty() {
                    // All is said: the claim ends before the process does.
                    writer.end();
                    written = None;
                }
            }
        },
    )
}

fn forecast_letter(
    topic: &str,
    format: format::Format,
    catalogue: &Catalogue,
    forecast: &Forecast,
) -> Result<Letter> {
    let stranger = || Error::new(&forecast.sensor, "is not in the catalogue");
    let sensor = catalogue.get(&forecast.sensor).ok_or_else(stranger)?;
    Ok(Letter {
        topic: topic.to_owned(),
        key: Some(forecast.sensor.as_str().into()),
        payload: Some(format::forecast(format, forecast, &sensor)?),
        headers: Vec::new(),
        reference_time: Some(forecast.reference_time),
    })
}

/// The message as it came, or the frame as a message; in headers why, and where it was read.
fn dead_letter(
    topic: &str,
    format: format::Format,
    catalogue: &Catalogue,
    reject: Reject,
) -> Result<Letter> {
    let Reject { frame, reason } = reject;
    let position = frame.position();
    let (log, partition) = position.log.rsplit_once('/').unwrap_or((&position.log, "0"));
    let header = |name: &str, value: String| (name.to_owned(), value);
    let mut headers =
        vec![header("reason", reason.label().to_owned()), header("detail", reason.to_string())];
    if !frame.sensor.as_str().is_empty() {
        headers.push(header("sensor", frame.sensor.to_string()));
    }
    let (key, payload) = if let Some(record) = frame.record {
        headers.push(header("topic", log.to_owned()));
        headers.push(header("partition", partition.to_owned()));
        let value = record.value(&frame.data);
        (record.key, value)
    } else {
        // A frame of a store has no bytes of its own; one without pixels is but its reason.
        let known = catalogue.get(&frame.sensor).filter(|s| s.grid.shape() == frame.shape);
        let payload = known.map(|sensor| format::frame(format, &frame, &sensor)).transpose()?;
        (Some(frame.sensor.as_str().into()), payload)
    };
    headers.push(header("offset", position.offset.to_string()));
    Ok(Letter { topic: topic.to_owned(), key, payload, headers, reference_time: None })
}

#[cfg(test)]
mod tests {
    use super::super::KafkaSource;
    use super::*;

    fn topics(brokers: &str, names: &[&str]) -> Arc<Topics> {
        let text = format!(
            r#"{{"cluster": {{"brokers": "{brokers}"}}, "topics": {names:?}, "cadence": "5min",
                "grid": {{"variables": [{{"name": "r"}}], "y": {{"count": 2}}, "x": {{"count": 2}}}}}}"#
        );
        let config: KafkaSource = serde_json::from_str(&text).unwrap();
        Arc::new(Topics::with(&config, "job", |_| Ok(2)).unwrap())
    }

    #[test]
    fn every_log_of_a_job_has_a_name_of_its_own() {
        let sink = KafkaSink::new("a:1", "out");
        let ledger = |sources, series: &[&str]| {
            let like = topics("a:1", &["like"]);
            let sensor = |id: &&str| {
                let like = Sensor::clone(like.any().unwrap());
                Arc::new(Sensor { id: (*id).into(), ..like })
            };
            let series: Vec<_> = series.iter().map(sensor).collect();
            Ledger::new(&sink, "job", sources, &series).map(drop)
        };
        let (here, there) = (topics("a:1", &["frames", "more"]), topics("b:1", &["frames"]));
        let other = topics("b:1", &["others"]);
        ledger(vec![Arc::clone(&here), other], &["frames", "flow/0", "frames/a", "f/frames/x"])
            .unwrap();
        let told = ledger(vec![Arc::clone(&here), there], &[]).unwrap_err().to_string();
        assert!(told.starts_with("topic frames: is read twice"), "{told}");
        let told = ledger(vec![Arc::clone(&here), here], &[]).unwrap_err().to_string();
        assert!(told.starts_with("topic frames: is read twice"), "{told}");
        let told = ledger(vec![topics("a:1", &["frames"])], &["frames/7"]).unwrap_err();
        assert!(told.to_string().starts_with("sensor frames/7: is called like a partition"));
    }
}
