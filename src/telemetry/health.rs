//! Whether the job is alive and ready, by what its workers last did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use physicnet_stream::{Pace, Position, Resume, SensorId};

use super::events::now;
use super::job::Job;

/// A worker that does not step for so many milliseconds hangs.
const HANGS: u64 = 120_000;
/// An epoch that is open and not durable after so many milliseconds is stuck.
const STUCK: u64 = 60_000;
/// A frame of a window that was not read again after so many milliseconds is no longer there.
const GONE: u64 = 60_000;

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
    /// The sensors whose windows are to be filled again, and when they are; none before it is known
    /// where the job goes on.
    windows: Mutex<Option<BTreeMap<SensorId, Filled>>>,
    /// How many those are.
    unfilled: AtomicUsize,
    /// When a frame was last read again, or the job began.
    replayed: AtomicU64,
}

/// When a window is filled again.
enum Filled {
    /// When the frame of this offset was judged, or one that is not read again.
    At(u64),
    /// When a frame leads to a forecast: where the stores say how far the job has come, what is
    /// read again is not marked so.
    WithForecast,
}

#[derive(Default)]
struct Pulse {
    stepped: AtomicU64,
    built: AtomicBool,
    ended: AtomicBool,
}

impl Health {
    fn worker(&self, now: u64) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        pulse.stepped.store(now, Relaxed);
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

    /// The job goes on at `resume`: the windows of the sensors that are `ours` are to be filled again
    /// with what was read before. Each worker says so; the first one counts.
    fn resume(&self, resume: &Resume, ours: impl Fn(&SensorId) -> bool, now: u64) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.is_some() {
            return;
        }
        let filled = |(sensor, window): (&SensorId, &Vec<Position>)| {
            let last = window.iter().max_by_key(|position| position.offset)?;
            let filled = match resume.next.get(&last.log) {
                // A log of one sensor is read again up to where the job goes on; of one that it
                // shares it is known what its window held.
                Some(next) if *last.log == *sensor.as_str() => Filled::At(next.saturating_sub(1)),
                Some(_) => Filled::At(last.offset),
                // From its first frame on: it has no window yet.
                None if last.offset == 0 => return None,
                None => Filled::WithForecast,
            };
            ours(sensor).then(|| (sensor.clone(), filled))
        };
        let all: BTreeMap<_, _> = resume.windows.iter().filter_map(filled).collect();
        self.unfilled.store(all.len(), Relaxed);
        self.replayed.store(now, Relaxed);
        *windows = Some(all);
    }

    /// A frame of a sensor was judged, whether a `replay` or new, and whether it `leads` to a
    /// forecast.
    pub(super) fn judged(&self, sensor: &SensorId, offset: u64, replay: bool, leads: bool) {
        // Once all is filled this costs a worker nothing.
        if self.unfilled.load(Relaxed) > 0 {
            self.fill(sensor, offset, replay, leads, now());
        }
    }

    fn fill(&self, sensor: &SensorId, offset: u64, replay: bool, leads: bool, now: u64) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(windows) = windows.as_mut() else { return };
        let Some(filled) = windows.get(sensor) else { return };
        self.replayed.store(now, Relaxed);
        let full = match filled {
            Filled::At(last) => !replay || offset >= *last,
            Filled::WithForecast => leads,
        };
        if full {
            windows.remove(sensor);
        }
        self.unfilled.store(windows.len(), Relaxed);
    }

    /// How many epochs with frames are not durable.
    pub(super) fn in_flight(&self) -> u64 {
        self.opened.load(Relaxed).saturating_sub(self.durable.load(Relaxed))
    }

    /// A worker steps, and `durable` is the first epoch that is not durable.
    fn step(&self, pulse: &Pulse, durable: u64, now: u64) {
        pulse.stepped.store(now, Relaxed);
        if self.durable.fetch_max(durable, Relaxed) < durable || self.in_flight() == 0 {
            self.moved.store(now, Relaxed);
        }
    }

    /// What keeps the job from being alive: for its supervisor, to start it anew.
    pub(super) fn dead(&self, now: u64) -> Vec<String> {
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
    pub(super) fn unready(&self, now: u64, workers: usize) -> Vec<String> {
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
        let unfilled = self.unfilled.load(Relaxed);
        if unfilled > 0 && now.saturating_sub(self.replayed.load(Relaxed)) < GONE {
            why.push(format!(
                "sensors whose windows are being filled with what was read before: {unfilled}"
            ));
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
        Self(job.map(|job| (Arc::clone(job), job.health.worker(now()))))
    }

    /// The dataflow is built: the model is loaded and the inputs are open, to go on at `resume`.
    pub fn built(&self, resume: &Resume) {
        if let Some((job, pulse)) = &self.0 {
            let now = now();
            job.health.resume(resume, |sensor| job.sensors.ours(sensor), now);
            job.health.moved.store(now, Relaxed);
            pulse.built.store(true, Relaxed);
        }
    }

    /// The worker is about to step.
    pub fn step(&self, pace: &Pace) {
        let Some((job, pulse)) = &self.0 else { return };
        let durable = pace.durable.with_frontier(|frontier| frontier.first().copied());
        job.health.step(pulse, durable.unwrap_or(u64::MAX), now());
    }

    /// The worker has ended; `failed` if not because it was done.
    pub fn ended(&self, failed: bool) {
        if let Some((job, pulse)) = &self.0 {
            pulse.ended.store(true, Relaxed);
            job.health.failed.fetch_or(failed, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workers that are built and have stepped at `now`.
    fn built(now: u64) -> (Health, [Arc<Pulse>; 2]) {
        let health = Health::default();
        let pulses = [(); 2].map(|()| health.worker(now));
        pulses.iter().for_each(|pulse| {
            pulse.built.store(true, Relaxed);
            health.step(pulse, 0, now);
        });
        (health, pulses)
    }

    #[test]
    fn a_worker_that_hangs_or_a_job_that_failed_is_dead() {
        let (health, pulses) = built(1_000);
        assert!(health.dead(1_000 + HANGS).is_empty());
        health.step(&pulses[0], 0, 2_000);
        let why = health.dead(1_001 + HANGS);
        assert_eq!(why, ["worker 1 has not stepped for 120 s"]);
        // One that has ended may rest.
        pulses[1].ended.store(true, Relaxed);
        assert!(health.dead(1_001 + HANGS).is_empty());
        health.failed.store(true, Relaxed);
        assert_eq!(health.dead(2_000), ["the job has failed; its log says why"]);
    }

    #[test]
    fn a_job_is_ready_once_every_worker_is_built_and_until_all_have_ended() {
        let health = Health::default();
        let why = "0 of 2 workers have loaded the model and opened their inputs";
        assert_eq!(health.unready(1_000, 2), [why]);
        let (health, pulses) = built(1_000);
        assert!(health.unready(1_000, 2).is_empty());
        pulses[0].ended.store(true, Relaxed);
        assert!(health.unready(1_000, 2).is_empty());
        pulses[1].ended.store(true, Relaxed);
        assert_eq!(health.unready(1_000, 2), ["the job has ended"]);
    }

    #[test]
    fn what_waits_for_its_sinks_for_a_minute_is_stuck() {
        let (health, pulses) = built(1_000);
        // Nothing to wait for, for ever so long.
        assert!(health.unready(1_000 + 9 * STUCK, 2).is_empty());
        health.open(4);
        health.step(&pulses[0], 3, 2_000);
        assert!(health.unready(2_000 + STUCK, 2).is_empty());
        health.step(&pulses[0], 3, 2_000 + STUCK);
        assert_eq!(health.in_flight(), 2);
        let why = health.unready(2_001 + STUCK, 2);
        assert_eq!(why, ["nothing has become durable for 60 s"]);
        health.step(&pulses[1], 5, 2_002 + STUCK);
        assert!(health.unready(2_003 + STUCK, 2).is_empty());
    }

    #[test]
    fn windows_are_filled_when_what_they_held_was_read_again() {
        let at = |log: &str, offset: u64| Position { log: log.into(), offset };
        let resume = Resume {
            next: [("a".into(), 9), ("frames/0".into(), 50)].into(),
            windows: [
                ("a".into(), vec![at("a", 4), at("a", 5)]),
                ("b".into(), vec![at("frames/0", 40), at("frames/0", 44)]),
                ("gone".into(), vec![at("frames/0", 1)]),
                ("another's".into(), vec![at("frames/0", 2)]),
                ("stored".into(), vec![at("stored", 7)]),
                ("begins".into(), vec![at("begins", 0)]),
            ]
            .into(),
            ..Resume::default()
        };
        let (health, _) = built(1_000);
        health.resume(&resume, |sensor| sensor.as_str() != "another's", 1_000);
        let left = |now: u64| {
            let why = health.unready(now, 2);
            why.first().map(|why| why.rsplit(' ').next().unwrap().to_owned())
        };
        // Before the first frame is read again, and however long that takes.
        assert_eq!(left(1_000).as_deref(), Some("4"));
        assert_eq!(left(50_000).as_deref(), Some("4"));
        let fill = |sensor: &str, offset: u64, replay: bool, leads: bool, now: u64| {
            health.fill(&SensorId::from(sensor), offset, replay, leads, now);
        };
        fill("a", 5, true, true, 50_000);
        fill("b", 40, true, false, 50_000);
        fill("stored", 7, false, false, 50_000);
        assert_eq!(left(50_000).as_deref(), Some("4"), "frames that follow are to come");
        fill("a", 8, true, true, 50_000);
        fill("b", 44, true, true, 50_000);
        fill("stored", 8, false, true, 50_000);
        assert_eq!(left(100_000).as_deref(), Some("1"));
        // Another worker says the same a little later.
        health.resume(&resume, |_| true, 50_000);
        assert_eq!(left(100_000).as_deref(), Some("1"));
        // What does not come is no longer there, whatever else comes; a new frame begins without it.
        fill("a", 9, false, true, 100_000);
        assert_eq!(left(50_000 + GONE), None);
        fill("gone", 60, false, false, 90_000);
        assert_eq!(left(90_000), None);
        assert_eq!(health.unfilled.load(Relaxed), 0);
    }
}
