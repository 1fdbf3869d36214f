//! Topics as a stream: what has come since the last look, a frame of each sensor an epoch.
//!
//! ```text
//!            ┌──────────────── ticks, to every worker ◄─┐
//!            ▼                                          │
//! brokers ─► consumer of this worker's partitions ─► epoch ─► frames
//! ```
//!
//! A worker without frames would hold back the others' epochs: it follows their ticks.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use physicnet_stream::{Frame, Pace, Result, Resume, SensorId};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Feedback;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Capability, ConnectLoop};
use timely::dataflow::{Scope, StreamVec};

use super::read::{Reader, replay};
use super::topics::Topics;

/// The most frames of an epoch.
const BURST: usize = 256;
/// About the most bytes of an epoch, past its first frame: forecasts are many times as large as
/// their frames, and as many epochs of them as may be in flight lie in memory.
const BYTES: usize = 4 << 20;
/// What one activation reads, to the end of an epoch: then the stages have their turn, while the
/// pixels are in the caches, and what they free is used for the next.
const TURN: usize = 1 << 20;
/// How soon to look again when no epoch may be opened, at first.
const NAP: Duration = Duration::from_millis(1);
/// How often to look again at once before that.
const HASTE: u32 = 8;
/// How soon to look again when nothing comes: whether to stop, or whom it holds back.
const LOOK: Duration = Duration::from_millis(100);

/// Streams the frames of `topics` from where `resume` says: first those of the windows, marked
/// as replayed, then whatever comes. A message that is no frame comes as one without pixels.
///
/// A partition is read by one worker, and its frames come in the order of their offsets. The
/// stream ends when `pace` says stop, or at the end of the partitions if they are not followed.
/// What cannot be read at all is reported to `pace.failure`.
pub fn source<'scope>(
    scope: Scope<'scope, u64>,
    topics: &Arc<Topics>,
    resume: &Resume,
    pace: Pace,
) -> StreamVec<'scope, u64, Frame> {
    let share = topics.share(scope.index(), scope.peers());
    let (topics, resume) = (Arc::clone(topics), resume.clone());
    let (handle, heard) = scope.feedback::<Vec<u64>>(1);
    let mut builder = OperatorBuilder::new("Kafka".to_owned(), scope);
    // A tick moves this worker's own capabilities; nothing is sent under its own.
    let mut heard = builder.new_input_connection(heard, Pipeline, []);
    let (frames, frame_stream) = builder.new_output_connection([]);
    let (ticks, tick_stream) = builder.new_output_connection([]);
    let mut frames = OutputBuilder::<_, CapacityContainerBuilder<Vec<Frame>>>::from(frames);
    let mut ticks = OutputBuilder::<_, CapacityContainerBuilder<Vec<u64>>>::from(ticks);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(Rc::clone(&address));
    let wake = scope.worker().sync_activator_for(address.to_vec());

    builder.build(move |caps| {
        let mut caps = Some(caps);
        let mut coming = None;
        let mut wake = Some(wake);
        let mut held = None;
        // Every timer leads to another one: two would never become one again.
        let mut due = None;
        let mut look = move |after: Duration| {
            let now = Instant::now();
            if after.is_zero() {
                activator.activate();
            } else if due.is_none_or(|due| due <= now || due > now + after) {
                due = Some(now + after);
                activator.activate_after(after);
            }
        };
        move |_frontiers| {
            let mut latest = 0;
            heard.for_each_stamp(|_cap, batches| {
                latest = batches.flat_map(|batch| batch.drain(..)).fold(latest, u64::max);
            });
            let Some(now) = caps.as_mut() else { return };
            advance(now, latest);
            if pace.failure.failed() {
                return; // and the capabilities stay: nothing may look complete
            }
            if let Some(wake) = wake.take() {
                // A worker that has gone needs no waking.
                let wake = Arc::new(wake);
                let wake = move || _ = wake.activate();
                let opened = replay(&topics, &share, &resume, &pace.stop).and_then(|again| {
                    let reader = Reader::open(&topics, &share, &resume, &pace.stop, wake)?;
                    Ok(Coming { replayed: again.into(), reader, first: 0 })
                });
                match opened {
                    Ok(opened) => coming = Some(opened),
                    Err(_) if pace.stop.stopped() => {}
                    Err(error) => return pace.failure.report(error),
                }
            }
            let Some(coming) = coming.as_mut().filter(|_| !pace.stop.stopped()) else {
                caps = None;
                return;
            };
            let mut read = 0;
            while read < TURN {
                let epoch = *now[0].time();
                if !pace.allows(epoch) {
                    // What is in flight may be a step or two from its end, or far from it.
                    let (looks, since) = held.get_or_insert_with(|| (0, Instant::now()));
                    *looks += 1;
                    look(if *looks < HASTE { Duration::ZERO } else { nap(since.elapsed()) });
                    return;
                }
                held = None;
                let mut output = frames.activate();
                let mut session = output.session(&now[0]);
                let told = coming.epoch(|frame| session.give(frame));
                drop(session);
                match told {
                    Err(error) => return pace.failure.report(error),
                    Ok(None) if coming.reader.ended() => {
                        caps = None;
                        return;
                    }
                    Ok(None) => {
                        // Only this epoch is open: another source may wait for a new one.
                        if !pace.durable.less_than(&epoch) {
                            advance(now, epoch + (pace.in_flight / 2).max(1));
                        }
                        look(LOOK);
                        return;
                    }
                    Ok(Some(bytes)) => {
                        // What carries no pixels takes time as well.
                        read += bytes + TURN / BURST;
                        ticks.activate().session(&now[1]).give(epoch + 1);
                        advance(now, epoch + 1);
                    }
                }
            }
            look(Duration::ZERO);
        }
    });
    tick_stream.broadcast().connect_loop(handle);
    frame_stream
}

/// What is still to be emitted, in its order.
struct Coming {
    replayed: VecDeque<Frame>,
    reader: Reader,
    /// Which partition an epoch begins with.
    first: usize,
}

impl Coming {
    /// Gives out what belongs into one epoch, at most one frame of a sensor: within an epoch
    /// there is no order. The bytes that they hold, if there were any.
    ///
    /// All partitions give to an epoch: one that has many frames of one sensor would fill one
    /// epoch after another alone.
    fn epoch(&mut self, mut give: impl FnMut(Frame)) -> Result<Option<usize>> {
        let mut filling = Filling::default();
        // What is read again comes before all that is new.
        while filling.has_room()
            && let Some(frame) = self.replayed.pop_front_if(|frame| filling.takes(frame))
        {
            give(frame);
        }
        if !self.replayed.is_empty() || !filling.sensors.is_empty() {
            return Ok(Some(filling.bytes));
        }
        self.reader.attend()?;
        let partitions = self.reader.partitions();
        self.first = (self.first + 1) % partitions.max(1);
        for partition in (0..partitions).map(|at| (self.first + at) % partitions) {
            while filling.has_room() {
                let Some(frame) = self.reader.next(partition)? else { break };
                if !filling.takes(&frame) {
                    self.reader.hold(partition, frame);
                    break;
                }
                give(frame);
            }
        }
        Ok((!filling.sensors.is_empty()).then_some(filling.bytes))
    }
}

/// What an epoch has so far.
#[derive(Default)]
struct Filling {
    sensors: HashSet<SensorId>,
    bytes: usize,
}

impl Filling {
    fn has_room(&self) -> bool {
        self.sensors.len() < BURST && self.bytes < BYTES
    }

    /// Counts a frame in, unless its sensor has one already. A message that is no frame has no
    /// pixels, and is there byte for byte all the same.
    fn takes(&mut self, frame: &Frame) -> bool {
        let new = self.sensors.insert(frame.sensor.clone());
        if new {
            let message = frame.record.as_ref().and_then(|record| record.payload.as_ref());
            self.bytes += size_of_val(&*frame.data) + message.map_or(0, Vec::len);
        }
        new
    }
}

/// How soon to look again after having waited so long: brokers may be away for hours, and what is
/// lost by a nap is then little beside the wait.
fn nap(waited: Duration) -> Duration {
    (waited / 16).clamp(NAP, LOOK)
}

fn advance(caps: &mut [Capability<u64>], epoch: u64) {
    caps.iter_mut().filter(|cap| *cap.time() < epoch).for_each(|cap| cap.downgrade(&epoch));
}

#[cfg(test)]
mod tests {
    use physicnet_stream::Record;

    use super::*;

    #[test]
    fn naps_grow_with_the_wait() {
        let millis = Duration::from_millis;
        assert_eq!(
            [0, 16, 320, 60_000].map(|waited| nap(millis(waited))),
            [NAP, NAP, millis(20), LOOK]
        );
    }

    #[test]
    fn an_epoch_counts_the_bytes_of_messages_that_are_no_frames() {
        let message = |number: usize, pixels: usize, payload: usize| {
            let record = Record {
                log: "t/0".into(),
                key: None,
                payload: Some(vec![0; payload]),
                cut: None,
                unfit: None,
            };
            let (sensor, shape) = (format!("s{number}").into(), [1, 1, pixels]);
            let frame = Frame::new(sensor, 0, number as u64, shape, vec![0.0; pixels]);
            Frame { record: Some(Box::new(record)), ..frame }
        };
        let held = |pixels, payload| {
            let mut filling = Filling::default();
            while filling.has_room() {
                assert!(filling.takes(&message(filling.sensors.len(), pixels, payload)));
            }
            assert!(!filling.takes(&message(0, pixels, payload)), "one of each sensor");
            filling.sensors.len()
        };
        assert_eq!(held(0, 1 << 20), BYTES >> 20);
        assert_eq!(held(1 << 18, 0), BYTES >> 20);
        assert_eq!(held(1, 1), BURST);
    }
}
