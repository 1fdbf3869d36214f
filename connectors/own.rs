//! A source of one's own: what a program says to have its frames streamed like any other's.

use std::sync::Arc;
use std::time::Duration;

use physicnet_stream::{Frame, Pace, Result, Resume, Sensor, route};
use timely::dataflow::operators::generic::source as operator;
use timely::dataflow::{Scope, StreamVec};

/// The most epochs of one activation: the rest of the worker wants its turn too.
const TURN: usize = 8;
/// How soon to look again when nothing may be, or is to be, emitted.
const NAP: Duration = Duration::from_millis(1);

/// What is next of a sensor.
pub enum Next {
    /// A frame, whose offset is larger than that of the frame before it.
    Frame(Frame),
    /// Nothing yet: ask again.
    Later,
    /// Nothing any more.
    End,
}

/// Reads one sensor: every call yields what is next, without waiting for it.
pub type Reader = Box<dyn FnMut() -> Result<Next>>;

/// Where frames of one's own come from.
pub trait Feed: Send + Sync {
    /// The sensors; the same for every worker and process.
    fn sensors(&self) -> Vec<Arc<Sensor>>;

    /// Begins to read `sensor` with the frame of offset `from`: 0, or where a restart goes on. It
    /// is called on the one worker that is to have the sensor's frames.
    ///
    /// # Errors
    /// When there is nothing to read from, naming it and what to do.
    fn open(&self, sensor: &Sensor, from: u64) -> Result<Reader>;
}

/// The frames of this worker's share of the sensors. An epoch holds at most one of each.
///
/// The stream ends after the last reader has ended, or when `pace.stop` asks. What a reader
/// cannot read it reports to `pace.failure`, and the stream then stands still.
pub(crate) fn source<'scope>(
    scope: Scope<'scope, u64>,
    feed: &dyn Feed,
    resume: &Resume,
    pace: Pace,
) -> StreamVec<'scope, u64, Frame> {
    let (index, peers) = (scope.index() as u64, scope.peers() as u64);
    let sensors = feed.sensors().into_iter().filter(|s| route(&s.id) % peers == index);
    let readers = sensors.map(|sensor| feed.open(&sensor, resume.from(&sensor.id)));
    let readers: Result<Vec<Reader>> = readers.collect();
    operator(scope, "Own", move |cap, info| {
        let activator = scope.activator_for(info.address);
        let mut readers = readers.map_err(|error| pace.failure.report(error)).ok();
        let mut cap = Some(cap);
        move |output| {
            // After a failure the capability stays: nothing may look complete.
            let (Some(all), Some(now)) = (&mut readers, &mut cap) else { return };
            for _ in 0..TURN {
                if all.is_empty() || pace.stop.stopped() {
                    cap = None;
                    return;
                }
                let epoch = *now.time();
                if !pace.allows(epoch) {
                    break;
                }
                match round(all) {
                    Ok(frames) if frames.is_empty() => {
                        // Epochs go on without frames, or this source would hold back others.
                        if !pace.durable.less_than(&epoch) {
                            now.downgrade(&(epoch + (pace.in_flight / 2).max(1)));
                        }
                        break;
                    }
                    Ok(frames) => {
                        output.session(&*now).give_iterator(frames.into_iter());
                        now.downgrade(&(epoch + 1));
                    }
                    Err(error) => {
                        pace.failure.report(error);
                        readers = None;
                        return;
                    }
                }
            }
            activator.activate_after(NAP);
        }
    })
}

/// What every reader has to say now; those that have ended go.
fn round(readers: &mut Vec<Reader>) -> Result<Vec<Frame>> {
    let (mut frames, mut failed) = (Vec::new(), None);
    readers.retain_mut(|read| match read() {
        Ok(Next::Frame(frame)) => {
            frames.push(frame);
            true
        }
        Ok(Next::Later) => true,
        Ok(Next::End) => false,
        Err(error) => {
            failed.get_or_insert(error);
            true
        }
    });
    failed.map_or(Ok(frames), Err)
}
