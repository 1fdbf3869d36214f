//! What each stage does, from timely's own log: regions bear the names of the rooms.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use super::histogram::{Histogram, Tally};

/// Operators outside of a region, and the rooms they belong to.
const AT_HOME: [(&str, &str); 13] = [
    ("Synthetic", "sources"),
    ("Zarr", "sources"),
    ("Kafka", "sources"),
    ("Admit", "admission"),
    ("Drift", "drift"),
    ("Learn", "learning"),
    ("Score", "scoring"),
    ("Scores", "scoring"),
    ("Total", "scoring"),
    ("Rejects", "rejects"),
    ("Behind", "sinks"),
    ("ZarrSink", "sinks"),
    ("KafkaSink", "sinks"),
];
/// Operators that only pass on what they get.
const PLUMBING: [&str; 9] = [
    "Concatenate",
    "Exchange",
    "Inspect",
    "Filter",
    "FlatMap",
    "Map",
    "Probe",
    "Feedback",
    "Broadcast",
];
/// The room where everything begins: what counts there is what goes out by the first output.
const SOURCES: &str = "sources";

/// Bounds of the time that a stage takes for what has arrived.
pub(super) const SECONDS: [f64; 12] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
/// Bounds of how much that is.
pub(super) const BATCH: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// What one worker has done in one room.
pub(super) struct Work {
    /// What came in; at the sources, what went out.
    records: AtomicU64,
    /// Nanoseconds spent.
    busy: AtomicU64,
    /// Seconds for what had arrived.
    seconds: Histogram,
    /// How much had arrived.
    batch: Histogram,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            records: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            seconds: Histogram::new(&SECONDS),
            batch: Histogram::new(&BATCH),
        }
    }
}

/// What one worker had done in one room at one moment.
#[derive(Clone, Default)]
pub(super) struct Done {
    pub(super) records: u64,
    pub(super) busy: f64,
    pub(super) seconds: Tally,
    pub(super) batch: Tally,
}

/// From one room to the next.
pub(super) type Edges = BTreeSet<(String, String)>;

/// The rooms of all workers of this process.
#[derive(Default)]
pub(super) struct Rooms {
    work: Mutex<BTreeMap<(usize, String), Arc<Work>>>,
    edges: Mutex<Edges>,
}

impl Rooms {
    /// Listens to what `worker` logs of dataflows that are built from now on.
    pub(super) fn listen(self: &Arc<Self>, worker: &Worker) {
        let Some(mut register) = worker.log_register() else { return };
        let mut log = Log::new(Arc::clone(self), worker.index());
        register.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            for (time, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                log.hear(time, event);
            }
        });
    }

    /// What has been done so far, by worker and room.
    pub(super) fn read(&self) -> BTreeMap<(usize, String), Done> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let done = |work: Arc<Work>| Done {
            records: work.records.load(Relaxed),
            busy: work.busy.load(Relaxed) as f64 / 1e9,
            seconds: work.seconds.read(),
            batch: work.batch.read(),
        };
        work.into_iter().map(|(key, work)| (key, done(work))).collect()
    }

    /// The picture of the dataflow: which room hands on to which.
    pub(super) fn edges(&self) -> Edges {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn work(&self, worker: usize, room: &str) -> Arc<Work> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(work.entry((worker, room.to_owned())).or_default())
    }
}

/// What is heard from one worker. The operators of interest are those right below the dataflow:
/// a region counts as one, with all that is in it.
struct Log {
    rooms: Arc<Rooms>,
    worker: usize,
    /// The operator at each place below the dataflow.
    operators: HashMap<usize, Operator>,
    /// Which place an operator's number stands for.
    places: HashMap<usize, usize>,
    channels: HashMap<usize, Channel>,
    drawn: bool,
}

struct Operator {
    room: Option<(String, Arc<Work>)>,
    /// What has arrived and was not looked at.
    waiting: u64,
    /// Whether it has sent anything since it last rested.
    sent: bool,
    /// The time spent so far on what arrived last: a stage may put off a part of it.
    spent: Option<Duration>,
    since: Duration,
}

#[derive(Clone, Copy)]
struct Channel {
    from: usize,
    by: usize,
    to: usize,
    port: usize,
}

impl Log {
    fn new(rooms: Arc<Rooms>, worker: usize) -> Self {
        let (operators, places, channels) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { rooms, worker, operators, places, channels, drawn: false }
    }

    fn hear(&mut self, time: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(operates) => {
                let [_dataflow, place] = operates.addr[..] else { return };
                let room = room(&operates.name);
                let room = room.map(|room| (room.to_owned(), self.rooms.work(self.worker, room)));
                self.places.insert(operates.id, place);
                self.operators.insert(
                    place,
                    Operator { room, waiting: 0, sent: false, spent: None, since: time },
                );
            }
            TimelyEvent::Channels(channel) if channel.scope_addr.len() == 1 => {
                let ((from, by), (to, port)) = (channel.source, channel.target);
                self.channels.insert(channel.id, Channel { from, by, to, port });
            }
            TimelyEvent::Messages(message) => {
                let Some(&channel) = self.channels.get(&message.channel) else { return };
                let records = message.record_count.unsigned_abs();
                if message.is_send {
                    if let Some(operator) = self.operators.get_mut(&channel.from) {
                        operator.sent = true;
                    }
                    match self.room(channel.from) {
                        Some((room, work)) if room == SOURCES && channel.by == 0 => {
                            work.records.fetch_add(records, Relaxed);
                        }
                        _ => {}
                    }
                    return;
                }
                let within = self.room(channel.from).map(|(room, _)| room)
                    == self.room(channel.to).map(|(room, _)| room);
                let Some(operator) = self.operators.get_mut(&channel.to) else { return };
                let Some((room, work)) = &operator.room else { return };
                if channel.port == 0 && !within && room != SOURCES {
                    work.records.fetch_add(records, Relaxed);
                    operator.waiting += records;
                }
            }
            TimelyEvent::Schedule(schedule) => {
                let Some(place) = self.places.get(&schedule.id) else { return };
                let Some(operator) = self.operators.get_mut(place) else { return };
                if schedule.start_stop == StartStop::Start {
                    operator.since = time;
                    return;
                }
                operator.stopped(time);
                if !self.drawn {
                    self.drawn = true;
                    self.draw();
                }
            }
            _ => {}
        }
    }

    fn room(&self, place: usize) -> Option<&(String, Arc<Work>)> {
        self.operators.get(&place)?.room.as_ref()
    }

    /// Keeps which room hands on to which, across what only passes on.
    fn draw(&self) {
        let mut edges = Edges::new();
        for (&place, operator) in &self.operators {
            let Some((from, _)) = &operator.room else { continue };
            let (mut ahead, mut seen) = (vec![place], BTreeSet::from([place]));
            while let Some(at) = ahead.pop() {
                for channel in self.channels.values().filter(|channel| channel.from == at) {
                    match self.room(channel.to) {
                        Some((to, _)) if to != from => _ = edges.insert((from.clone(), to.clone())),
                        Some(_) => {}
                        None if seen.insert(channel.to) => ahead.push(channel.to),
                        None => {}
                    }
                }
            }
        }
        *self.rooms.edges.lock().unwrap_or_else(PoisonError::into_inner) = edges;
    }
}

impl Operator {
    fn stopped(&mut self, time: Duration) {
        let Some((_, work)) = &self.room else { return };
        let took = time.saturating_sub(self.since);
        work.busy.fetch_add(took.as_nanos() as u64, Relaxed);
        let (batch, sent) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.sent));
        if batch > 0 {
            work.batch.add(batch as f64);
            if let Some(spent) = self.spent.replace(took) {
                work.seconds.add(spent.as_secs_f64());
            }
        } else if let Some(spent) = self.spent.as_mut().filter(|_| sent) {
            // What was put off; looking in vain does not count.
            *spent += took;
        }
    }
}

/// The room of an operator right below the dataflow: a region has its name, and what is new
/// stands for itself.
fn room(name: &str) -> Option<&str> {
    if PLUMBING.contains(&name) {
        return None;
    }
    let at_home = AT_HOME.iter().find(|(operator, _)| *operator == name);
    Some(at_home.map_or(name, |(_, room)| room))
}
