//! The join of forecasts with what then came, incrementally.

use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::{AsCollection, VecCollection};
use physicnet_stream::{Cadence, Forecast, Frame, SensorId, Time, route};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use super::{Metrics, Sums};

/// What is verified, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoringConfig {
    /// What is scored of every channel, in order; channels beyond the list get the moments alone.
    pub channels: Vec<Metrics>,
    /// The first reference time that is scored; absent, there is no first.
    pub from: Option<Time>,
    /// The last reference time that is scored; absent, there is no last.
    pub to: Option<Time>,
    /// Of the reference times from `from` on (or from the epoch), every how manieth; 0 is 1.
    pub stride: u64,
    /// A step of more cadences than this, either way, is a clock that was set: what was held before
    /// it meets nothing any more. Absent, there is no such step.
    pub largest_jump: Option<u32>,
    /// Frames and forecasts that come late, or again, count while they are at most so many
    /// cadences behind the newest frame. As many longer all of it is kept.
    pub correct_within: u32,
}

impl ScoringConfig {
    fn takes(&self, forecast: &Forecast) -> bool {
        let at = forecast.reference_time;
        let step = forecast.cadence.steps(self.from.unwrap_or(0), at);
        self.from.is_none_or(|from| from <= at)
            && self.to.is_none_or(|to| at <= to)
            && step.rem_euclid(self.stride.max(1) as i64) == 0
    }
}

/// Whose scores some sums are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The sensor.
    pub sensor: SensorId,
    /// The product: a model or a reference forecast.
    pub product: Arc<str>,
    /// The lead, counted from 1.
    pub lead: u32,
    /// The channel, counted from 0.
    pub channel: u32,
}

/// A verified pair: whose scores it adds to, and when it was observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// Whose scores.
    pub key: Key,
    /// The valid time of the observation.
    pub valid_time: Time,
}

/// Extension trait: verifies forecasts.
pub trait Score<'scope>: Sized {
    /// The sums of every pair of a forecast lead and the observation of its valid time, as the
    /// differences of a collection of [`Pair`]s.
    ///
    /// An observation belongs to lead k where it lies within half a cadence of its valid time; of
    /// two closer than half a cadence the first to come counts. A second observation of the same valid
    /// time, or a second forecast of the same reference time, replaces the first: its sums are
    /// taken away again, exactly. An epoch is joined once it is complete, so neither workers nor
    /// batches can be seen in the result, nor the order of arrival as far as `correct_within`
    /// reaches. Kept are, per sensor, what that needs: the forecasts of `horizon +
    /// correct_within` cadences, and as many observations.
    fn verify(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
    ) -> VecCollection<'scope, u64, Pair, Sums>;
}

impl<'scope> Score<'scope> for StreamVec<'scope, u64, Forecast> {
    fn verify(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
    ) -> VecCollection<'scope, u64, Pair, Sums> {
        let forecast_owner = Exchange::new(|forecast: &Forecast| route(&forecast.sensor));
        let frame_owner = Exchange::new(|frame: &Frame| route(&frame.sensor));
        let config = config.clone();
        self.binary_frontier(
            observations,
            forecast_owner,
            frame_owner,
            "Score",
            move |_cap, _info| {
                let mut epochs = BTreeMap::new();
                let mut sensors = BTreeMap::<SensorId, Memory>::new();
                move |(forecasts, forecast_frontier), (frames, frame_frontier), output| {
                    let port = output.output_index();
                    forecasts.for_each_stamp(|cap, batches| {
                        let Some(cap) = cap.retain_least(port) else { return };
                        let (_, forecasts, _) =
                            epochs.entry(*cap.time()).or_insert((cap, Vec::new(), Vec::new()));
                        let items = batches.flat_map(|batch| batch.drain(..));
                        forecasts.extend(items.filter(|forecast| config.takes(forecast)));
                    });
                    frames.for_each_stamp(|cap, batches| {
                        let Some(cap) = cap.retain_least(port) else { return };
                        let (_, _, frames) =
                            epochs.entry(*cap.time()).or_insert((cap, Vec::new(), Vec::new()));
                        frames.extend(batches.flat_map(|batch| batch.drain(..)));
                    });
                    while let Some(epoch) = epochs.first_entry() {
                        let time = *epoch.key();
                        if forecast_frontier.less_equal(&time) || frame_frontier.less_equal(&time) {
                            break;
                        }
                        let (cap, forecasts, frames) = epoch.remove();
                        let mut updates = Vec::new();
                        for forecast in forecasts {
                            let memory = sensors.entry(forecast.sensor.clone()).or_default();
                            memory.forecast(forecast, &config, &mut updates);
                        }
                        for frame in frames {
                            let memory = sensors.entry(frame.sensor.clone()).or_default();
                            memory.observe(frame, &config, &mut updates);
                        }
                        let updates = updates.into_iter().map(|(pair, sums)| (pair, time, sums));
                        output.session(&cap).give_iterator(updates);
                    }
                }
            },
        )
        .as_collection()
    }
}

/// What is kept of one sensor.
#[derive(Default)]
struct Memory {
    /// That of the forecasts; without one there was nothing to be held against.
    cadence: Option<Cadence>,
    forecasts: BTreeMap<Time, Forecast>,
    observations: BTreeMap<Time, Frame>,
}

type Updates = Vec<(Pair, Sums)>;

impl Memory {
    fn forecast(&mut self, forecast: Forecast, config: &ScoringConfig, updates: &mut Updates) {
        self.cadence = Some(forecast.cadence);
        self.jump(forecast.reference_time, config);
        if self.newest().is_some_and(|now| passed(&forecast, now, config)) {
            // What it could be held against may be gone, or counted already.
            return;
        }
        let previous = self.forecasts.remove(&forecast.reference_time);
        if !forecast.scored {
            for frame in self.observations.values() {
                for (forecast, times) in previous.iter().map(|f| (f, -1)).chain([(&forecast, 1)]) {
                    pair(forecast, frame, times, config, updates);
                }
            }
        }
        self.forecasts.insert(forecast.reference_time, forecast);
    }

    fn observe(&mut self, frame: Frame, config: &ScoringConfig, updates: &mut Updates) {
        let now = frame.valid_time;
        self.jump(now, config);
        if let (Some(newest), Some(cadence)) = (self.newest(), self.cadence) {
            let old = cadence.steps(now, newest) > i64::from(config.correct_within);
            let before = self.observations.range(..now).next_back();
            let after = self.observations.range(now..).next().filter(|(at, _)| **at != now);
            let taken = !self.observations.contains_key(&now)
                && (before.is_some_and(|(at, _)| cadence.steps(*at, now) < 1)
                    || after.is_some_and(|(at, _)| cadence.steps(now, *at) < 1));
            if old || taken {
                return;
            }
        }
        let previous = self.observations.remove(&now);
        if !frame.scored {
            for forecast in self.forecasts.values() {
                for (frame, times) in previous.iter().map(|f| (f, -1)).chain([(&frame, 1)]) {
                    pair(forecast, frame, times, config, updates);
                }
            }
        }
        self.observations.insert(now, frame);
        self.forget(config);
    }

    fn newest(&self) -> Option<Time> {
        self.observations.last_key_value().map(|(&newest, _)| newest)
    }

    /// Begins anew behind a clock that was set: admission lets nothing else through from so far.
    fn jump(&mut self, to: Time, config: &ScoringConfig) {
        let steps = self.newest().zip(self.cadence).map(|(now, cadence)| cadence.steps(now, to));
        if let (Some(steps), Some(largest)) = (steps, config.largest_jump)
            && steps.abs() > i64::from(largest)
        {
            *self = Self { cadence: self.cadence, ..Self::default() };
        }
    }

    /// Lets go of what no frame or forecast can still meet.
    fn forget(&mut self, config: &ScoringConfig) {
        let Some(now) = self.newest() else { return };
        self.forecasts.retain(|_, forecast| !passed(forecast, now, config));
        // Without a forecast, only frames as late as a first one can meet one.
        let longest = self.forecasts.last_key_value();
        let (horizon, cadence) = longest
            .map_or((0, None), |(_, forecast)| (forecast.shape[0] as i64, Some(forecast.cadence)));
        let keep = horizon + i64::from(config.correct_within);
        match cadence {
            Some(cadence) => self.observations.retain(|&at, _| cadence.steps(at, now) <= keep),
            None => {
                while self.observations.len() > keep as usize + 1 {
                    self.observations.pop_first();
                }
            }
        }
    }
}

/// How many cadences after the reference time `at` lies, to the nearest.
fn lead(forecast: &Forecast, at: Time) -> i64 {
    forecast.cadence.steps(forecast.reference_time, at)
}

/// Whether `now` is so far beyond the last lead that its observation is no longer corrected.
fn passed(forecast: &Forecast, now: Time, config: &ScoringConfig) -> bool {
    lead(forecast, now) > forecast.shape[0] as i64 + i64::from(config.correct_within)
}

/// The sums of every product and channel of `forecast` at the lead that `frame` verifies.
fn pair(
    forecast: &Forecast,
    frame: &Frame,
    times: i64,
    config: &ScoringConfig,
    updates: &mut Updates,
) {
    let [leads, channels, height, width] = forecast.shape;
    let lead = lead(forecast, frame.valid_time);
    if lead < 1 || lead > leads as i64 || frame.shape != [channels, height, width] {
        return;
    }
    let (pixels, usual) = (height * width, Metrics::default());
    for product in &forecast.products {
        let fields = product.data.chunks_exact(pixels.max(1)).skip((lead as usize - 1) * channels);
        let observed = frame.data.chunks_exact(pixels.max(1));
        for (channel, (p, o)) in fields.zip(observed).enumerate() {
            let metrics = config.channels.get(channel).unwrap_or(&usual);
            let sums = Sums::of(p, o, width, metrics);
            let sums = if times == 1 { sums } else { sums.times(times) };
            let key = Key {
                sensor: forecast.sensor.clone(),
                product: Arc::clone(&product.name),
                lead: lead as u32,
                channel: channel as u32,
            };
            updates.push((Pair { key, valid_time: frame.valid_time }, sums));
        }
    }
}
