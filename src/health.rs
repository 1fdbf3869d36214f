//! How each sensor is: what is watched of it while the job runs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use physicnet_operators::admission::Admitted;
use physicnet_operators::learning::Learnt;
use physicnet_operators::quantization::Drift;
use physicnet_stream::{Forecast, Reject, SensorId, Serving, Time, format_time};

use crate::telemetry::{Events, Kind, Telemetry};

/// What is known of one sensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SensorHealth {
    /// Its drift at its newest frame.
    pub drift: Option<Drift>,
    /// The largest distance from the training data so far.
    pub furthest: Option<f64>,
    /// How many alarms began.
    pub alarms: u64,
    /// What its gate lets through, if its forecasts learn.
    pub gate: Option<Serving>,
    /// Its forecasts by what was served, if they learn.
    pub served: BTreeMap<&'static str, u64>,
    /// Its frames that were refused, by reason: `late` and the others.
    pub rejects: BTreeMap<&'static str, u64>,
}

/// The sensors of this process, for everything that looks at a running job.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<SensorId, SensorHealth>>>);

impl Health {
    /// Every sensor as it is now.
    pub fn sensors(&self) -> BTreeMap<SensorId, SensorHealth> {
        self.lock().clone()
    }

    /// The sensors that had an alarm, each with the furthest that it was from the training data.
    pub fn drifted(&self) -> Vec<String> {
        let sensors = self.lock();
        let alarmed = sensors.iter().filter(|(_, health)| health.alarms > 0);
        let furthest = |health: &SensorHealth| health.furthest.unwrap_or_default();
        alarmed.map(|(sensor, health)| format!("{sensor} {:.3}", furthest(health))).collect()
    }

    /// Says when a sensor's frames begin to hold missing pixels alone, when measured ones are
    /// back, and when its window begins anew after too long a gap.
    pub(crate) fn frames(&self, events: Events) -> impl FnMut(&Admitted) + 'static {
        // The newest frame of each sensor, and whether all of it is missing.
        let mut sensors = BTreeMap::<SensorId, (Time, bool)>::new();
        move |frame| {
            let Some(plan) = &frame.plan else { return };
            let (sensor, at) = (&frame.sensor, || format_time(frame.valid_time));
            if let Some(after) = plan.after.map(format_time) {
                let text = format!(
                    "no frame that could be used between {after} and {}, and more are missing \
                     than are filled: its window begins anew",
                    at()
                );
                tracing::info!(target: "physicnet::admission", "{sensor}: {text}");
                events.publish(Kind::Change, Some(sensor), text);
            }
            if !sensors.contains_key(sensor) {
                sensors.insert(sensor.clone(), (Time::MIN, false));
            }
            let Some((newest, blind)) = sensors.get_mut(sensor) else { return };
            // What comes late says nothing of now; a clock that was set back begins anew.
            if frame.valid_time < *newest && !plan.restart {
                return;
            }
            *newest = frame.valid_time;
            let before = std::mem::replace(blind, !frame.data.iter().any(|x| x.is_finite()));
            if *blind && !before {
                let text = format!("all pixels of its frames are missing since {}", at());
                tracing::warn!(target: "physicnet::admission", "{sensor}: {text}");
                events.publish(Kind::Alarm, Some(sensor), text);
            } else if before && !*blind {
                let text = format!("its frames are measured again since {}", at());
                tracing::info!(target: "physicnet::admission", "{sensor}: {text}");
                events.publish(Kind::Change, Some(sensor), text);
            }
        }
    }

    /// Takes note of a sensor's drift, and says when an alarm begins or ends.
    pub(crate) fn drift(&self) -> impl FnMut(&Drift) + 'static {
        let health = self.clone();
        move |drift| {
            let mut sensors = health.lock();
            let known = sensors.entry(drift.sensor.clone()).or_default();
            let before = known.drift.replace(drift.clone()).is_some_and(|drift| drift.alarm);
            let both = known.furthest.into_iter().chain(drift.distance);
            known.furthest = both.reduce(f64::max);
            known.alarms += u64::from(drift.alarm && !before);
            // The log may be slow, and other sensors should not wait for it.
            drop(sensors);
            if drift.alarm != before {
                tell(drift);
            }
        }
    }

    /// Takes note of what a sensor's gate lets through, and says when that changes. One that was
    /// closed `before` the start has been told of.
    pub(crate) fn serving(
        &self,
        before: &BTreeMap<SensorId, Learnt>,
        watch: &Telemetry,
    ) -> impl FnMut(&(SensorId, Learnt)) + 'static {
        let (health, watch, events) = (self.clone(), watch.clone(), watch.events());
        let known = before.iter().map(|(sensor, learnt)| (sensor.clone(), learnt.standing().0));
        let mut start: BTreeMap<SensorId, Serving> = known.collect();
        move |(sensor, learnt)| {
            let (gate, errors) = learnt.standing();
            let mut sensors = health.lock();
            let known = sensors.entry(sensor.clone()).or_default();
            let before = known.gate.replace(gate).or_else(|| start.remove(sensor));
            let before = before.unwrap_or(Serving::Blend);
            let closed = before == Serving::Blend && gate != before;
            drop(sensors);
            if gate != before {
                let text = turned(gate, errors);
                if closed {
                    if let Some(state) = watch.sensor(sensor) {
                        state.gate_closed.fetch_add(1, Relaxed);
                    }
                    tracing::warn!(target: "physicnet::learning", "{sensor}: {text}");
                } else {
                    tracing::info!(target: "physicnet::learning", "{sensor}: {text}");
                }
                let kind = if closed { Kind::Alarm } else { Kind::Change };
                events.publish(kind, Some(sensor), text);
            }
        }
    }

    /// Counts a forecast by what is served.
    pub(crate) fn served(&self) -> impl FnMut(&Forecast) + 'static {
        let health = self.clone();
        move |forecast| {
            let Some(serving) = forecast.serving.filter(|_| !forecast.replay) else { return };
            let mut sensors = health.lock();
            let known = sensors.entry(forecast.sensor.clone()).or_default();
            *known.served.entry(serving.label()).or_default() += 1;
        }
    }

    /// Forecasts by what was served, over all sensors of this process.
    pub fn servings(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for (label, count) in self.lock().values().flat_map(|health| &health.served) {
            *all.entry(*label).or_default() += count;
        }
        all
    }

    /// Counts a refused frame under its sensor.
    pub(crate) fn reject(&self) -> impl FnMut(&Reject) + 'static {
        let health = self.clone();
        move |reject| {
            let mut sensors = health.lock();
            if !reject.is_stranger() || sensors.contains_key(&reject.frame.sensor) {
                let known = sensors.entry(reject.frame.sensor.clone()).or_default();
                *known.rejects.entry(reject.reason.label()).or_default() += 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SensorId, SensorHealth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the gate now lets through, and why.
fn turned(gate: Serving, [network, advection, persistence]: [f64; 3]) -> String {
    let served = match gate {
        Serving::Physicnet | Serving::Blend => "the network is served again",
        Serving::Advection => "advection is served in the network's place",
        Serving::Persistence => "persistence is served in the network's place",
    };
    format!(
        "{served}; squared errors of late, beside the mean of the baselines': network {network:.3}, \
         advection {advection:.3}, persistence {persistence:.3}"
    )
}

/// Says that an alarm has begun or ended.
fn tell(drift: &Drift) {
    let Drift { sensor, valid_time, distance, missing, limit, alarm, .. } = drift;
    let time = format_time(*valid_time);
    if distance.is_none() && !alarm {
        // Another network's codes are others: nobody knows whether the alarm still holds.
        let why = "drift is counted anew: another model serves";
        return tracing::info!(target: "physicnet::drift", %time, "{sensor}: {why}");
    }
    let distance = distance.map_or("unknown".to_owned(), |distance| format!("{distance:.3}"));
    let (limit, missing) = (format!("{limit:.3}"), format!("{:.1} %", 100.0 * missing));
    if *alarm {
        tracing::warn!(
            target: "physicnet::drift",
            %time, %distance, %limit, %missing,
            "{sensor} has drifted from the training data, and its forecasts may be worse than \
             their scores were: look at its frames and units; if this is how it is now, train \
             with it"
        );
    } else {
        tracing::info!(
            target: "physicnet::drift",
            %time, %distance, %limit, %missing,
            "{sensor} is like the training data again"
        );
    }
}
