//! Whether the job is alive and ready, by what its workers last did.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use physicnet_stream::Pace;

use super::events::now;
use super::job::Job;

/// A worker that does not step for so many milliseconds hangs.
const HANGS: u64 = 120_000;
/// An epoch that is open and not durable after so many milliseconds is stuck.
const STUCK: u64 = 60_000;
/// Windows are full again when no frame was read for them for so many milliseconds.
const REPLAYED: u64 = 2_000;

/// The pulse of the workers of this process. Times are milliseconds since 1970.
#[derive(Default)]
pub(super) struct Health {
    pulses: Mutex<Vec<Arc<Pulse>>>,
    failed: AtomicBool,
    /// The newest epoch that a frame was read in, and one more.
    opened: AtomicU64,
    /// The first epoch that is not durable.
    durable: AtomicU64,
    /// When that last changed, or there was nothing to wait for.
    moved: AtomicU64,
    /// When a frame was last read for a window alone.
    replayed: AtomicU64,
}

#[derive(Default)]
struct Pulse {
    stepped: AtomicU64,
    built: AtomicBool,
    ended: AtomicBool,
}

impl Health {
    fn worker(&self) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        pulse.stepped.store(now(), Relaxed);
        self.pulses().push(Arc::clone(&pulse));
        pulse
    }

    fn pulses(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Pulse>>> {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of this epoch was read.
    pub(super) fn open(&self, epoch: u64) {
        self.opened.fetch_max(epoch + 1, Relaxed);
    }

    /// A frame was read for a window alone.
    pub(super) fn replay(&self) {
        self.replayed.store(now(), Relaxed);
    }

    /// How many epochs with frames are not durable.
    pub(super) fn in_flight(&self) -> u64 {
        self.opened.load(Relaxed).saturating_sub(self.durable.load(Relaxed))
    }

    /// What keeps the job from being alive: for its supervisor, to start it anew.
    pub(super) fn dead(&self) -> Vec<String> {
        let now = now();
        let mut why = Vec::new();
        if self.failed.load(Relaxed) {
            why.push("the job has failed; its log says why".to_owned());
        }
        for (worker, pulse) in self.pulses().iter().enumerate() {
            let silent = now.saturating_sub(pulse.stepped.load(Relaxed));
            if silent > HANGS && !pulse.ended.load(Relaxed) {
                why.push(format!("worker {worker} has not stepped for {} s", silent / 1000));
            }
        }
        why
    }

    /// What keeps the job from being of use now, beside not being alive.
    pub(super) fn unready(&self, workers: usize) -> Vec<String> {
        let now = now();
        let mut why = Vec::new();
        let pulses = self.pulses();
        let built = pulses.iter().filter(|pulse| pulse.built.load(Relaxed)).count();
        if built < workers {
            why.push(format!(
                "{built} of {workers} workers have loaded the model and opened their inputs"
            ));
        }
        if !pulses.is_empty() && pulses.iter().all(|pulse| pulse.ended.load(Relaxed)) {
            why.push("the job has ended".to_owned());
        }
        drop(pulses);
        if now.saturating_sub(self.replayed.load(Relaxed)) < REPLAYED {
            why.push("windows are being filled with what was read before".to_owned());
        }
        let stuck = now.saturating_sub(self.moved.load(Relaxed));
        if built > 0 && stuck > STUCK && self.in_flight() > 0 {
            why.push(format!("nothing has become durable for {} s", stuck / 1000));
        }
        why
    }
}

/// One worker's pulse, felt by the step loop.
pub struct Beat(Option<(Arc<Job>, Arc<Pulse>)>);

impl Beat {
    pub(super) fn new(job: Option<&Arc<Job>>) -> Self {
        Self(job.map(|job| (Arc::clone(job), job.health.worker())))
    }

    /// The dataflow is built: the model is loaded and the inputs are open.
    pub fn built(&self) {
        if let Some((job, pulse)) = &self.0 {
            job.health.moved.store(now(), Relaxed);
            pulse.built.store(true, Relaxed);
        }
    }

    /// The worker is about to step.
    pub fn step(&self, pace: &Pace) {
        let Some((job, pulse)) = &self.0 else { return };
        let (now, health) = (now(), &job.health);
        pulse.stepped.store(now, Relaxed);
        let durable = pace.durable.with_frontier(|frontier| frontier.first().copied());
        let durable = durable.unwrap_or(u64::MAX);
        if health.durable.fetch_max(durable, Relaxed) < durable || health.in_flight() == 0 {
            health.moved.store(now, Relaxed);
        }
    }

    /// The worker has ended; `failed` if not because it was done.
    pub fn ended(&self, failed: bool) {
        if let Some((job, pulse)) = &self.0 {
            pulse.ended.store(true, Relaxed);
            job.health.failed.fetch_or(failed, Relaxed);
        }
    }
}
