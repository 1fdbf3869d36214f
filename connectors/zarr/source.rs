//! Stores as streams: every sensor's frames in their order, all sensors side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Frame, Pace, Resume, format_time, parse_duration, route};
use timely::dataflow::operators::generic::source as operator;
use timely::dataflow::{Scope, StreamVec};

use super::Archive;
use super::store::Unread;

/// The most frames that one activation reads before others get their turn.
const BURST: usize = 16;
/// How soon to look again when nothing may be or is to be emitted.
const NAP: Duration = Duration::from_millis(1);

/// Streams the frames of `archives` from where `resume` says.
///
/// Every sensor is read by the one worker that [`route`] names, and its frames come in the order
/// of the store, whatever their times say: judging them is the admission's. Sensors keep step by
/// their cadences, as they would live: each epoch carries the frames that are due next. A frame
/// that cannot be decoded comes as one of shape `[0, 0, 0]`, and the log says why. One that the
/// store does not hand out is asked for again at the next `poll` where the store is followed;
/// elsewhere that is reported to `pace.failure`, and the stream then stands still.
///
/// The stream ends when every archive has ended, unless it is followed, or when `pace` says stop.
pub fn source<'scope>(
    scope: Scope<'scope, u64>,
    archives: &[Arc<Archive>],
    resume: &Resume,
    pace: Pace,
) -> StreamVec<'scope, u64, Frame> {
    let (index, peers) = (scope.index() as u64, scope.peers() as u64);
    let mut stores: Vec<_> = archives.iter().map(|a| Following::new(Arc::clone(a))).collect();
    let mut readers = Vec::new();
    for (store, archive) in archives.iter().enumerate() {
        for (sensor, known) in archive.sensors().iter().enumerate() {
            if route(&known.id) % peers == index {
                let from = resume.from(&known.id);
                readers.push(Reader::new(store, sensor, archive, from));
            }
        }
    }
    operator(scope, "Zarr", move |cap, info| {
        let activator = scope.activator_for(info.address);
        let mut cap = Some(cap);
        let start = Instant::now();
        move |output| {
            let Some(now) = cap.as_mut() else { return };
            // After a failure the capability stays: nothing may look complete.
            if pace.failure.failed() {
                return;
            }
            let mut read = 0;
            while !pace.stop.stopped() && read < BURST {
                let epoch = *now.time();
                if !pace.allows(epoch) {
                    activator.activate_after(NAP);
                    return;
                }
                let due = due(&readers, &stores, start.elapsed());
                if due.is_empty() {
                    readers.retain(|reader| !reader.ended(&stores));
                    if readers.is_empty() {
                        cap = None;
                        return;
                    }
                    // Epochs go on without frames, or this worker would hold back the others.
                    if !pace.durable.less_than(&epoch) {
                        now.downgrade(&(epoch + (pace.in_flight / 2).max(1)));
                    }
                    stores.iter_mut().for_each(Following::look);
                    activator.activate_after(NAP);
                    return;
                }
                read += due.len();
                let mut session = output.session(&*now);
                for reader in due {
                    let reader = &mut readers[reader];
                    let store = &mut stores[reader.store];
                    // What befell one sensor of the store befalls the others.
                    if store.rests() {
                        continue;
                    }
                    match reader.next(store) {
                        Ok(frame) => {
                            store.withheld = None;
                            session.give(frame);
                        }
                        Err(error) if store.follow => store.wait(&error),
                        Err(error) => return pace.failure.report(error),
                    }
                }
                drop(session);
                now.downgrade(&(epoch + 1));
            }
            if pace.stop.stopped() {
                cap = None;
            } else {
                activator.activate();
            }
        }
    })
}

/// The readers whose frames belong into the next epoch: those that a rate has made due, and of
/// the others those that are furthest behind.
fn due(readers: &[Reader], stores: &[Following], elapsed: Duration) -> Vec<usize> {
    let ready = |reader: &&Reader| !stores[reader.store].rests() && !reader.exhausted(stores);
    let free = |reader: &&Reader| stores[reader.store].rate.is_none();
    let earliest = readers.iter().filter(ready).filter(free).map(Reader::elapsed).min();
    let is_due = |reader: &Reader| match stores[reader.store].rate {
        Some(rate) => reader.emitted as f64 <= elapsed.as_secs_f64() * rate,
        None => Some(reader.elapsed()) <= earliest,
    };
    let ready = readers.iter().enumerate().filter(|(_, reader)| ready(reader));
    ready.filter(|(_, reader)| is_due(reader)).map(|(index, _)| index).collect()
}

/// Where one sensor is read.
struct Reader {
    store: usize,
    sensor: usize,
    /// The next frame.
    next: usize,
    emitted: u64,
    cadence: i64,
}

impl Reader {
    fn new(store: usize, sensor: usize, archive: &Archive, from: u64) -> Self {
        let offsets = (0..archive.times(sensor).len()).filter_map(|frame| archive.offset(frame));
        let next = offsets.take_while(|offset| *offset < from).count();
        let cadence = archive.sensors()[sensor].cadence.nanoseconds();
        Self { store, sensor, next, emitted: 0, cadence }
    }

    /// The span that its frames so far cover by its cadence: valid times may be wild.
    fn elapsed(&self) -> i128 {
        i128::from(self.emitted) * i128::from(self.cadence)
    }

    fn exhausted(&self, stores: &[Following]) -> bool {
        self.next >= stores[self.store].archive.times(self.sensor).len()
    }

    fn ended(&self, stores: &[Following]) -> bool {
        !stores[self.store].follow && self.exhausted(stores)
    }

    /// The next frame, which stays the next one where the store does not hand it out.
    fn next(&mut self, store: &Following) -> Result<Frame, Error> {
        let archive = &store.archive;
        let frame = self.next;
        let read = match archive.fetch(self.sensor, frame) {
            Ok(read) => read,
            Err(Unread::Withheld(error)) => return Err(error),
            Err(Unread::Corrupt(error)) => {
                let sensor = archive.sensors()[self.sensor].id.clone();
                let valid_time = archive.times(self.sensor)[frame];
                let time = format_time(valid_time);
                tracing::warn!(%sensor, %time, %error, "a frame cannot be decoded");
                let offset = archive.offset(frame).unwrap_or_default();
                Frame {
                    sensor,
                    valid_time,
                    offset,
                    shape: [0; 3],
                    data: Vec::new(),
                    replay: false,
                    scored: false,
                    record: None,
                }
            }
        };
        self.next += 1;
        self.emitted += 1;
        Ok(read)
    }
}

/// An archive, looked at again now and then where it grows.
struct Following {
    archive: Arc<Archive>,
    follow: bool,
    rate: Option<f64>,
    poll: Duration,
    looked: Instant,
    /// When it last did not hand out a frame that it tells of, until it does again.
    withheld: Option<Instant>,
    /// The last complaint, said once.
    trouble: String,
}

impl Following {
    fn new(archive: Arc<Archive>) -> Self {
        let config = archive.config();
        // Opening has checked it.
        let poll = Duration::from_nanos(parse_duration(&config.poll).unwrap_or(1) as u64);
        let (follow, rate) = (config.follow, config.rate);
        let (looked, withheld, trouble) = (Instant::now(), None, String::new());
        Self { archive, follow, rate, poll, looked, withheld, trouble }
    }

    /// Lets it rest until the next `poll`.
    fn wait(&mut self, error: &Error) {
        if self.withheld.replace(Instant::now()).is_none() {
            tracing::warn!(%error, "a frame of a store that is followed cannot be read; retrying");
        }
    }

    fn rests(&self) -> bool {
        self.withheld.is_some_and(|since| since.elapsed() < self.poll)
    }

    /// Opens the archive as it is now, if it is time to. A store that its writer is changing this
    /// very moment may not open: then it is tried again.
    fn look(&mut self) {
        if !self.follow || self.looked.elapsed() < self.poll {
            return;
        }
        self.looked = Instant::now();
        match self.archive.reopen() {
            Ok(None) => {}
            Ok(Some(archive)) => {
                self.trouble.clear();
                if archive.times(0).len() > self.archive.times(0).len() {
                    self.archive = Arc::new(archive);
                }
            }
            Err(error) => {
                let trouble = error.to_string();
                if trouble != self.trouble {
                    tracing::warn!(%error, "a store that is followed cannot be opened; retrying");
                }
                self.trouble = trouble;
            }
        }
    }
}
