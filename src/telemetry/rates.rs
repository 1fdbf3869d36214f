//! What is going on just now: the difference between two looks at the counters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use physicnet_operators::scoring::Span;
use physicnet_stream::SensorId;
use serde::Serialize;

use super::events::{Events, Kind, now};
use super::histogram::Tally;
use super::job::{Job, Telemetry};
use super::rooms::Done;
use super::sensors::Standing;
use super::skill::{ENOUGH, skill};

/// Over how many looks rates are taken: as many seconds.
const LOOKS: usize = 10;
/// The forecasts are worse than persistence from this share of its error above it on, and no longer
/// worse below it: one that is as good does not ring again and again.
const WORSE: f64 = 0.02;

/// The last looks, and what they found amiss.
#[derive(Default)]
pub(super) struct Rates(Mutex<(VecDeque<Look>, Amiss)>);

#[derive(Clone)]
struct Look {
    at: Instant,
    frames: u64,
    forecasts: u64,
    latency: Tally,
    rooms: BTreeMap<(usize, String), Done>,
}

#[derive(Default)]
struct Amiss {
    silent: BTreeSet<SensorId>,
    stuck: bool,
    worse: bool,
    looks: usize,
}

/// What goes on.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rate {
    pub(super) frames_per_second: f64,
    pub(super) forecasts_per_second: f64,
    /// Seconds from a frame to its forecast: the mean, and what one in a hundred exceeds.
    pub(super) latency_seconds: Option<f64>,
    pub(super) latency_p99_seconds: Option<f64>,
    pub(super) rooms: Vec<RoomRate>,
}

/// What goes on in one room, over all workers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RoomRate {
    pub(super) name: String,
    pub(super) records: u64,
    pub(super) per_second: f64,
    /// The mean of what is looked at at once, and of the seconds that this takes.
    pub(super) batch: Option<f64>,
    pub(super) seconds: Option<f64>,
    /// The share of the time that each worker spends here.
    pub(super) busy: Vec<f64>,
}

impl Rates {
    /// The rates over the last looks.
    pub(super) fn read(&self) -> Rate {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (looks.0.front(), looks.0.back()) else {
            return Rate::default();
        };
        let (first, last) = (first.clone(), last.clone());
        drop(looks);
        let seconds = last.at.duration_since(first.at).as_secs_f64().max(1e-3);
        let latency = last.latency.since(&first.latency);
        let mut rooms = BTreeMap::<&str, (RoomRate, Tally, Tally)>::new();
        for ((worker, name), done) in &last.rooms {
            let before = first.rooms.get(&(*worker, name.clone())).cloned().unwrap_or_default();
            let (rate, took, batch) = rooms.entry(name).or_default();
            rate.name.clone_from(name);
            rate.records += done.records;
            rate.per_second += done.records.saturating_sub(before.records) as f64 / seconds;
            rate.busy.push(((done.busy - before.busy) / seconds).clamp(0.0, 1.0));
            took.add(&done.seconds.since(&before.seconds));
            batch.add(&done.batch.since(&before.batch));
        }
        let rooms = rooms.into_values().map(|(rate, took, batch)| RoomRate {
            seconds: took.mean(),
            batch: batch.mean(),
            ..rate
        });
        Rate {
            frames_per_second: last.frames.saturating_sub(first.frames) as f64 / seconds,
            forecasts_per_second: last.forecasts.saturating_sub(first.forecasts) as f64 / seconds,
            latency_seconds: latency.mean(),
            latency_p99_seconds: latency.quantile(0.99),
            rooms: rooms.collect(),
        }
    }
}

impl Telemetry {
    /// Looks at the counters, and tells what has gone amiss since the last time; once a second.
    pub fn look(&self) {
        let Some(job) = &self.0 else { return };
        job.views.forget();
        let look = Look {
            at: Instant::now(),
            frames: job.counts.frames(),
            forecasts: job.counts.forecasts(),
            latency: job.latency.read(),
            rooms: job.rooms.read(),
        };
        let mut rates = job.rates.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (looks, amiss) = &mut *rates;
        if looks.len() > LOOKS {
            looks.pop_front();
        }
        looks.push_back(look);
        amiss.tell(job);
    }
}

impl Amiss {
    /// Publishes what has become, or is no longer, amiss.
    fn tell(&mut self, job: &Job) {
        let (now, events) = (now(), &job.events);
        for (id, state) in job.sensors.all() {
            let Some(about) = job.sensors.about(&id) else { continue };
            let silent = state.standing(now, &about) == Standing::Silent;
            if silent && self.silent.insert(id.clone()) {
                let since = now.saturating_sub(state.frame_at.load(Relaxed)) / 1000;
                events.publish(Kind::Alarm, Some(&id), format!("no frame for {since} s"));
            } else if !silent && self.silent.remove(&id) {
                events.publish(Kind::Change, Some(&id), "frames come again");
            }
        }
        let unready = job.health.unready(now, job.about.workers);
        let stuck = unready.iter().find(|why| why.contains("durable"));
        if let (Some(why), false) = (stuck, self.stuck) {
            events.publish(Kind::Alarm, None, why.clone());
        }
        self.stuck = stuck.is_some();
        // Of all sensors this is a sum over many: seldomer than the rest.
        if self.looks.is_multiple_of(LOOKS) {
            let day = skill(&job.totals, None, Span::Day);
            self.judge(events, day.first().and_then(|day| day.over("persistence", ENOUGH)));
        }
        self.looks += 1;
    }

    /// Publishes that the forecasts have become, or are no longer, worse than persistence: `gain`
    /// is by how much their error lay below its over the last day, where that is known.
    fn judge(&mut self, events: &Events, gain: Option<f64>) {
        let Some(gain) = gain else { return };
        let percent = 100.0 * gain.abs();
        if !self.worse && gain < -WORSE {
            self.worse = true;
            let text = format!(
                "over the last day the forecasts are worse than persistence: their RMSE is \
                 {percent:.0} % above its"
            );
            events.publish(Kind::Alarm, None, text);
        } else if self.worse && gain > 0.0 {
            self.worse = false;
            let text = format!(
                "over the last day the forecasts are better than persistence again: their RMSE is \
                 {percent:.0} % below its"
            );
            events.publish(Kind::Change, None, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_as_good_as_persistence_does_not_ring_again_and_again() {
        let (events, mut amiss) = (Events::default(), Amiss::default());
        let told = |events: &Events| [Kind::Alarm, Kind::Change].map(|kind| events.count(kind));
        for (gain, expected) in [
            (None, [0, 0]),
            (Some(-0.01), [0, 0]),
            (Some(-0.03), [1, 0]),
            (None, [1, 0]),
            (Some(-0.01), [1, 0]),
            (Some(-0.05), [1, 0]),
            (Some(0.01), [1, 1]),
            (Some(-0.01), [1, 1]),
            (Some(-0.04), [2, 1]),
        ] {
            amiss.judge(&events, gain);
            assert_eq!(told(&events), expected, "{gain:?}");
        }
    }
}
