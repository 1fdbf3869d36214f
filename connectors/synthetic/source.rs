//! Simulated sensors as a timely source.

use std::time::{Duration, Instant};

use physicnet_stream::{Frame, Pace, Result, Resume};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::source as operator;
use timely::dataflow::{Scope, StreamVec};

use super::{Recording, SyntheticSource};

/// Frames made, or passed over, in one activation: the rest of the worker wants its turn too.
const TURN: u64 = 8;
/// How often to ask whether the pace allows another epoch: a probe wakes nobody.
const ASK: Duration = Duration::from_millis(1);
/// How often to look at the stop flag, and let epochs pass, while waiting for the clock.
const LOOK: Duration = Duration::from_millis(10);
/// No sensor is slower than this, in seconds a frame.
const SLOWEST: f64 = 1e6;

/// The frames of this worker's share of the sensors: those whose index leaves its own index
/// when divided by the number of workers.
///
/// An epoch is one frame of each, or empty while the clock is waited for. The stream ends
/// after the last frame, or when `pace.stop` asks; what cannot be simulated is reported to
/// `pace.failure`, and the stream then stands still.
pub fn source<'scope>(
    scope: Scope<'scope, u64>,
    config: &SyntheticSource,
    resume: &Resume,
    pace: Pace,
) -> StreamVec<'scope, u64, Frame> {
    let share = share(config, resume, scope.index(), scope.peers());
    let rate = config.rate;
    operator(scope, "Synthetic", move |cap, info| {
        let activator = scope.activator_for(info.address);
        let mut share = share.map_err(|error| pace.failure.report(error)).ok();
        let mut live = Some(Live { cap, turn: 0, due: Instant::now() });

        move |output| {
            // After a failure the capability stays: nothing may look complete.
            let Some(recordings) = share.as_mut() else { return };
            let Some(mut now) = live.take() else { return };
            if now.turn == 0 {
                recordings.retain(|recording| !recording.ended());
            }
            if recordings.is_empty() || pace.stop.stopped() {
                return; // and the capability goes
            }
            let wait = now.wait(&pace);
            if wait.is_zero() {
                let epoch = now.cap.clone();
                let mut session = output.session(&epoch);
                if let Err(error) = now.go(recordings, rate, |frame| session.give(frame)) {
                    pace.failure.report(error);
                    share = None;
                }
                activator.activate();
            } else {
                activator.activate_after(wait);
            }
            live = Some(now);
        }
    })
}

fn share(
    config: &SyntheticSource,
    resume: &Resume,
    index: usize,
    peers: usize,
) -> Result<Vec<Recording>> {
    let sensors = config.sensors()?.into_iter().enumerate().skip(index).step_by(peers);
    sensors
        .map(|(number, sensor)| {
            let mut recording = Recording::of(config, number, sensor)?;
            recording.seek(resume.from(&recording.sensor().id));
            Ok(recording)
        })
        .collect()
}

/// Where in the stream a source is.
struct Live {
    /// Its time is the epoch that is being emitted.
    cap: Capability<u64>,
    /// The recording whose turn it is within the epoch.
    turn: usize,
    /// When the epoch may go out.
    due: Instant,
}

impl Live {
    /// How long to wait before emitting anything; an epoch once begun is finished.
    fn wait(&mut self, pace: &Pace) -> Duration {
        let epoch = *self.cap.time();
        if self.turn > 0 {
            return Duration::ZERO;
        }
        if !pace.allows(epoch) {
            return ASK;
        }
        let wait = self.due.saturating_duration_since(Instant::now()).min(LOOK);
        // Only this epoch is open: without a new one a slow clock would hold back other sources.
        if !wait.is_zero() && !pace.durable.less_than(&epoch) {
            self.cap.downgrade(&(epoch + (pace.in_flight / 2).max(1)));
        }
        wait
    }

    /// Emits the next frames of the epoch, and opens the next epoch after the last of them.
    fn go(
        &mut self,
        recordings: &mut [Recording],
        rate: Option<f64>,
        mut give: impl FnMut(Frame),
    ) -> Result<()> {
        for _ in 0..TURN {
            let recording = &mut recordings[self.turn];
            if !recording.approach(TURN)? {
                return Ok(()); // still on the way to where it resumes
            }
            recording.next_frame()?.into_iter().for_each(&mut give);
            self.turn += 1;
            if self.turn == recordings.len() {
                self.turn = 0;
                self.cap.downgrade(&(*self.cap.time() + 1));
                if let Some(rate) = rate {
                    self.due += Duration::from_secs_f64((1.0 / rate).min(SLOWEST));
                }
                return Ok(());
            }
        }
        Ok(())
    }
}
