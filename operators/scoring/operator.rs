//! The join of forecasts with what then came, incrementally.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use differential_dataflow::difference::Semigroup;
use differential_dataflow::{AsCollection, VecCollection};
use physicnet_stream::{Cadence, Forecast, Frame, SensorId, Time, route};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use super::{Metrics, Sums};

/// By how many cadences a correction may come late: as many longer pairs are kept.
const CORRECTABLE: i64 = 1;

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

/// The running totals of this process: complete where worker 0 runs.
pub type Totals = Arc<Mutex<BTreeMap<Key, Sums>>>;

/// Extension trait: verifies forecasts.
pub trait Score<'scope>: Sized {
    /// The sums of every pair of a forecast lead and the observation of its valid time, as the
    /// differences of a collection of [`Key`]s.
    ///
    /// An observation belongs to lead k where it lies within half a cadence of its valid time.
    /// A second observation of the same valid time, or a second forecast of the same reference
    /// time, replaces the first: its sums are taken away again, exactly. An epoch is joined once
    /// it is complete, so neither workers nor batches nor the order of arrival can be seen in the
    /// result. Kept are, per sensor, what that needs: forecasts until a cadence after their last
    /// lead, and the observations of `horizon + 1` cadences; corrections reach no further back.
    fn verify(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
    ) -> VecCollection<'scope, u64, Key, Sums>;

    /// [`verify`](Score::verify) into running `totals`; the stream's frontier says what they hold.
    fn score(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
        totals: &Totals,
    ) -> StreamVec<'scope, u64, ()>;
}

impl<'scope> Score<'scope> for StreamVec<'scope, u64, Forecast> {
    fn verify(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
    ) -> VecCollection<'scope, u64, Key, Sums> {
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
                        let updates = updates.into_iter().map(|(key, sums)| (key, time, sums));
                        output.session(&cap).give_iterator(updates);
                    }
                }
            },
        )
        .as_collection()
    }

    fn score(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
        totals: &Totals,
    ) -> StreamVec<'scope, u64, ()> {
        total_into(self.verify(observations, config), totals)
    }
}

/// Adds a collection's differences into `totals` on worker 0.
pub fn total_into<'scope>(
    sums: VecCollection<'scope, u64, Key, Sums>,
    totals: &Totals,
) -> StreamVec<'scope, u64, ()> {
    let totals = Arc::clone(totals);
    let to_first = Exchange::new(|_: &(Key, u64, Sums)| 0);
    sums.inner.unary(to_first, "Total", move |_cap, _info| {
        move |input, output| {
            input.for_each_stamp(|cap, batches| {
                let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                for (key, _, sums) in batches.flat_map(|batch| batch.drain(..)) {
                    totals.entry(key).or_default().plus_equals(&sums);
                }
                // Says nothing; it names the container of the output.
                output.session(&cap).give_iterator(std::iter::empty::<()>());
            });
        }
    })
}

/// What is kept of one sensor.
#[derive(Default)]
struct Memory {
    forecasts: BTreeMap<Time, Forecast>,
    observations: BTreeMap<Time, Frame>,
}

type Updates = Vec<(Key, Sums)>;

impl Memory {
    fn forecast(&mut self, forecast: Forecast, config: &ScoringConfig, updates: &mut Updates) {
        if self.observations.keys().next_back().is_some_and(|&now| passed(&forecast, now)) {
            // What it could be held against may be gone, or counted already.
            return;
        }
        let previous = self.forecasts.remove(&forecast.reference_time);
        for frame in self.observations.values() {
            for (forecast, times) in previous.iter().map(|f| (f, -1)).chain([(&forecast, 1)]) {
                pair(forecast, frame, times, config, updates);
            }
        }
        self.forecasts.insert(forecast.reference_time, forecast);
    }

    fn observe(&mut self, frame: Frame, config: &ScoringConfig, updates: &mut Updates) {
        let previous = self.observations.remove(&frame.valid_time);
        for forecast in self.forecasts.values() {
            for (frame, times) in previous.iter().map(|f| (f, -1)).chain([(&frame, 1)]) {
                pair(forecast, frame, times, config, updates);
            }
        }
        let now = frame.valid_time;
        self.observations.insert(now, frame);
        self.forget();
    }

    /// Lets go of what no frame or forecast in the order of time can still meet.
    fn forget(&mut self) {
        let Some((&now, _)) = self.observations.last_key_value() else { return };
        self.forecasts.retain(|_, forecast| !passed(forecast, now));
        let longest = |forecast: &Forecast| (forecast.shape[0], forecast.cadence);
        let (horizon, cadence) = match self.forecasts.last_key_value() {
            Some((_, forecast)) => longest(forecast),
            // With no forecast waiting, only the newest frame can meet one that comes late.
            None => (0, Cadence::new(1).expect("positive")),
        };
        self.observations.retain(|&at, _| cadence.steps(at, now) < horizon as i64 + CORRECTABLE);
    }
}

/// How many cadences after the reference time `at` lies, to the nearest.
fn lead(forecast: &Forecast, at: Time) -> i64 {
    forecast.cadence.steps(forecast.reference_time, at)
}

/// Whether `now` is so far beyond the last lead that its observation is no longer corrected.
fn passed(forecast: &Forecast, now: Time) -> bool {
    lead(forecast, now) > forecast.shape[0] as i64 + CORRECTABLE
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
            let sums = Sums::of(p, o, width, metrics).times(times);
            let key = Key {
                sensor: forecast.sensor.clone(),
                product: Arc::clone(&product.name),
                lead: lead as u32,
                channel: channel as u32,
            };
            updates.push((key, sums));
        }
    }
}
