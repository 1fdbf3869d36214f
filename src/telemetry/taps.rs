//! What the dataflow shows of itself as it runs, stream by stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use physicnet_operators::admission::Admitted;
use physicnet_operators::experts::Consulted;
use physicnet_operators::quantization::{Coded, Drift};
use physicnet_stream::{Forecast, Frame, Reason, Reject, SensorId, Serving, Time};
use timely::progress::Stamp;

use super::events::{Kind, now};
use super::job::{Job, Telemetry};
use super::sensors::{SensorState, THUMB, Thumb};
use super::view::{Codes, Field, Made, SIDE, put};

/// Arrows along the longer side of a field.
const ARROWS: usize = 16;
/// A small picture is made anew after so many milliseconds.
const FRESH: u64 = 1_000;
/// The same while nobody looks: who then comes sees at once what there was.
const RARE: u64 = 30_000;
/// How many frames of a sensor may be under way before their latency is no longer known.
const UNDER_WAY: usize = 64;

/// What happens on the stream of frames: frames under their epochs, or a frontier that advances.
type Happens<'a, 'b, 'c> = Result<(&'a Stamp<u64>, &'b Vec<Frame>), &'c [u64]>;

/// A worker's own way to the sensors that it meets.
struct Known {
    job: Arc<Job>,
    states: HashMap<SensorId, Option<Arc<SensorState>>>,
}

impl Known {
    fn new(job: &Arc<Job>) -> Self {
        Self { job: Arc::clone(job), states: HashMap::new() }
    }

    fn get(&mut self, id: &SensorId) -> Option<&SensorState> {
        if !self.states.contains_key(id) {
            let state = self.job.sensors.get(id);
            if state.is_none() && self.states.len() > 10_000 {
                return None;
            }
            self.states.insert(id.clone(), state);
        }
        self.states[id].as_deref()
    }
}

impl Telemetry {
    /// Frames as the sources read them.
    pub(crate) fn frames(&self) -> impl FnMut(Happens<'_, '_, '_>) + 'static {
        let mut known = self.0.as_ref().map(Known::new);
        move |event| {
            let (Some(known), Ok((stamp, frames))) = (&mut known, event) else { return };
            for epoch in stamp.iter() {
                known.job.health.open(*epoch);
            }
            for frame in frames {
                // What cannot be decoded may bear any name: it makes no state.
                if frame.record.as_ref().is_some_and(|record| record.unfit.is_some()) {
                    continue;
                }
                let Some(state) = known.get(&frame.sensor) else { continue };
                if let Ok(mut arrivals) = state.arrivals.try_lock() {
                    arrivals.push_back((frame.valid_time, Instant::now()));
                    if arrivals.len() > UNDER_WAY {
                        arrivals.pop_front();
                    }
                }
            }
        }
    }

    /// Frames that were judged and not used, those among them that are read again after a restart.
    pub(crate) fn refused(&self) -> impl FnMut(&Reject) + 'static {
        let job = self.0.clone();
        move |Reject { frame, .. }| {
            let Some(job) = &job else { return };
            job.health.judged(&frame.sensor, frame.offset, frame.replay, false);
        }
    }

    /// Frames that were not used.
    pub(crate) fn rejects(&self) -> impl FnMut(&Reject) + 'static {
        let mut known = self.0.as_ref().map(Known::new);
        move |reject| {
            let Some(known) = &mut known else { return };
            let sensor = &reject.frame.sensor;
            if (!reject.is_stranger() || known.job.sensors.has(sensor))
                && let Some(state) = known.get(sensor)
            {
                state.refused(matches!(reject.reason, Reason::Late { .. }));
            }
            // A repeat is no news.
            if reject.reason == Reason::Duplicate {
                return;
            }
            let whose = Some(sensor).filter(|sensor| !sensor.as_str().is_empty());
            known.job.events.publish(Kind::Reject, whose, reject.to_string());
        }
    }

    /// Frames on their way to a window: what forecasts will be held against.
    pub(crate) fn admitted(&self) -> impl FnMut(&Admitted) + 'static {
        let mut known = self.0.as_ref().map(Known::new);
        move |frame| {
            let Some(known) = &mut known else { return };
            let [_, height, width] = frame.shape;
            let plane =
                |channel: usize| frame.data.chunks_exact((height * width).max(1)).nth(channel);
            let job = Arc::clone(&known.job);
            if let Some(state) = known.get(&frame.sensor) {
                if frame.filled() {
                    state.missing.fetch_add(1, Relaxed);
                } else {
                    let anew = frame.plan.as_ref().is_some_and(|plan| plan.restart);
                    state.used(frame.valid_time, anew, frame.replay);
                }
                if let (false, Some(plane)) = (frame.filled(), plane(0)) {
                    let fresh = if job.views.looked() { FRESH } else { RARE };
                    thumb(state, plane, [height, width], fresh);
                }
            }
            if frame.filled() {
                return;
            }
            let leads = frame.plan.as_ref().is_some_and(|plan| !plan.windows.is_empty());
            job.health.judged(&frame.sensor, frame.offset, frame.replay, leads);
            job.views.begin(&frame.sensor);
            let make = |channel| Some(Field::little(plane(channel)?, [height, width], SIDE));
            let at = frame.valid_time;
            job.views.keep(&frame.sensor, make, |kept, field| put(&mut kept.frames, at, field));
        }
    }

    /// Code maps.
    pub(crate) fn coded(&self) -> impl FnMut(&Coded) + 'static {
        let job = self.0.clone();
        move |coded| {
            let (Some(job), Some((codes, shape)), false) =
                (&job, coded.map(), coded.seat.candidate)
            else {
                return;
            };
            let head = &coded.frame.head;
            let make = |_| Some(Codes { shape, codes: codes.into() });
            let at = head.valid_time;
            job.views.keep(&head.sensor, make, |kept, codes| put(&mut kept.codes, at, codes));
        }
    }

    /// How far forecasts move things, lead by lead.
    pub(crate) fn consulted(&self) -> impl FnMut(&Consulted) + 'static {
        let job = self.0.clone();
        move |consulted| {
            let (Some(job), false) = (&job, consulted.window.seat.candidate) else { return };
            let frame = &consulted.window.newest().coded.frame;
            let extent = frame.extent;
            let make = |_| {
                let own = consulted.window.seat.net.config.horizon;
                let leads = (1..=own).map(|lead| consulted.motion(lead));
                let planes = leads.collect::<Result<Vec<_>, _>>().ok()?.concat();
                Some(Field::little(&planes, [extent.height, extent.width], ARROWS))
            };
            let (sensor, at) = (&frame.head.sensor, frame.head.valid_time);
            job.views.keep(sensor, make, |kept, flow| put(&mut kept.flows, at, flow));
        }
    }

    /// How far each sensor is from the training data.
    pub(crate) fn drift(&self) -> impl FnMut(&Drift) + 'static {
        let mut known = self.0.as_ref().map(Known::new);
        let mut alarmed = HashSet::new();
        move |drift| {
            let Some(known) = &mut known else { return };
            let Drift { sensor, distance, frames, missing, limit, alarm, .. } = drift;
            if let Some(state) = known.get(sensor) {
                state.drift.set(*distance);
                state.drift_limit.set(drift.comparable.then_some(*limit));
                state.drifted.store(*alarm, Relaxed);
                state.missing_pixels.set(Some(*missing));
                state.set_usage(*frames, if drift.comparable { drift.window } else { 0 });
            }
            let events = &known.job.events;
            let far = distance.unwrap_or_default();
            if *alarm && alarmed.insert(sensor.clone()) {
                let text = format!(
                    "has drifted from the training data: distance {far:.3}, limit {limit:.3}"
                );
                events.publish(Kind::Alarm, Some(sensor), text);
            } else if !alarm && alarmed.remove(sensor) {
                let text = match distance {
                    Some(_) => "is like the training data again",
                    None => "drift is counted anew: another model serves",
                };
                events.publish(Kind::Change, Some(sensor), text);
            }
        }
    }

    /// Forecasts.
    pub(crate) fn forecasts(&self) -> impl FnMut(&Forecast) + 'static {
        let mut known = self.0.as_ref().map(Known::new);
        move |forecast| {
            let Some(known) = &mut known else { return };
            let job = Arc::clone(&known.job);
            // Where nothing is learnt, what is served is what the network says.
            let serving = forecast.serving.unwrap_or(Serving::Physicnet);
            for (known, count) in Serving::ALL.iter().zip(&job.served) {
                count.fetch_add(u64::from(*known == serving), Relaxed);
            }
            if let Some(state) = known.get(&forecast.sensor) {
                state.forecasts.fetch_add(1, Relaxed);
                state.forecast_at.store(now(), Relaxed);
                state.set_serving(serving);
                if forecast.revision > 0 {
                    state.revisions.fetch_add(1, Relaxed);
                }
                if let Ok(mut arrivals) = state.arrivals.try_lock() {
                    let of = |(at, _): &(Time, Instant)| *at == forecast.reference_time;
                    let arrived = arrivals.iter().position(of);
                    if let Some((_, at)) = arrived.and_then(|at| arrivals.remove(at)) {
                        job.latency.add(at.elapsed().as_secs_f64());
                    }
                }
            }
            if forecast.revision > 0 {
                job.revisions.fetch_add(1, Relaxed);
                let at = physicnet_stream::format_time(forecast.reference_time);
                let text = format!("forecast of {at} issued again, revision {}", forecast.revision);
                job.events.publish(Kind::Revision, Some(&forecast.sensor), text);
            }
            let [leads, channels, height, width] = forecast.shape;
            let make = |channel: usize| {
                let planes = forecast.served().data.chunks_exact((height * width).max(1));
                if channel >= channels {
                    return None;
                }
                let mut of_channel = Vec::with_capacity(leads * height * width);
                planes.skip(channel).step_by(channels).for_each(|p| of_channel.extend(p));
                Some(Made {
                    reference_time: forecast.reference_time,
                    cadence: forecast.cadence,
                    revision: forecast.revision,
                    missing: forecast.missing,
                    model: Arc::clone(&forecast.model),
                    fields: Field::little(&of_channel, [height, width], SIDE),
                })
            };
            let at = forecast.reference_time;
            job.views.keep(&forecast.sensor, make, |kept, made| put(&mut kept.made, at, made));
        }
    }
}

/// Makes the small picture anew, if it is older than `fresh`.
fn thumb(state: &SensorState, plane: &[f32], size: [usize; 2], fresh: u64) {
    let Ok(mut thumb) = state.thumb.try_lock() else { return };
    let made = now();
    if thumb.as_ref().is_some_and(|thumb| made.saturating_sub(thumb.made) < fresh) {
        return;
    }
    let little = Field::little(plane, size, THUMB);
    let finite = little.values.iter().filter(|value| value.is_finite());
    let (lo, hi) =
        finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let scale = if hi > lo { 254.0 / (hi - lo) } else { 0.0 };
    let [_, rows, columns] = little.shape;
    let mut pixels = [255; THUMB * THUMB];
    for (at, &value) in little.values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        pixels[at / columns * THUMB + at % columns] = ((value - lo) * scale) as u8;
    }
    *thumb = Some(Thumb { pixels, made, rows, columns });
}
