//! Who meets whom: forecasts and observations of a sensor, until neither can change any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_stream::{Cadence, Forecast, Frame, SensorId, Time, route};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use super::ScoringConfig;

/// The observations of a sensor that are kept, by valid time.
pub(super) type Observations = BTreeMap<Time, Arc<Frame>>;

/// A forecast and a frame that it may be held against.
pub(super) struct Met<'a> {
    pub(super) forecast: &'a Forecast,
    pub(super) frame: &'a Frame,
    /// 1, or -1 where they have not met after all.
    pub(super) times: i64,
}

/// What becomes of a forecast and an observation that belong together.
pub(super) trait Meeting: 'static {
    /// What goes out.
    type Out: Clone + 'static;
    /// Whether it wants all forecasts to settle before the end.
    const WAITS: bool;

    /// How many observations before those that a forecast may meet are kept as well.
    fn past(&self) -> usize {
        0
    }

    /// These meet, or have not met after all.
    fn meet(&mut self, _all: &[Met], _epoch: u64, _out: &mut Vec<Self::Out>) {}

    /// Nothing that comes now can change what `forecast` has met, of `met`; `before` are older.
    fn settled(
        &mut self,
        _forecast: Forecast,
        _before: &Observations,
        _met: &Observations,
        _out: &mut Vec<Self::Out>,
    ) {
    }
}

/// Brings each sensor's forecasts and observations together. An epoch is joined once it is
/// complete, so neither workers nor batches can be seen in what comes out.
pub(super) fn meet<'scope, M: Meeting>(
    name: &str,
    forecasts: StreamVec<'scope, u64, Forecast>,
    observations: StreamVec<'scope, u64, Frame>,
    config: &ScoringConfig,
    mut meeting: M,
) -> StreamVec<'scope, u64, M::Out> {
    let forecast_owner = Exchange::new(|forecast: &Forecast| route(&forecast.sensor));
    let frame_owner = Exchange::new(|frame: &Frame| route(&frame.sensor));
    let config = config.clone();
    forecasts.binary_frontier(observations, forecast_owner, frame_owner, name, move |cap, _info| {
        let mut epochs = BTreeMap::new();
        let mut sensors = BTreeMap::<SensorId, Memory>::new();
        // What is still held when all is over settles under it.
        let mut own = M::WAITS.then_some(cap);
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
                let mut round =
                    Round { config: &config, epoch: time, meeting: &mut meeting, out: Vec::new() };
                for forecast in forecasts {
                    let memory = sensors.entry(forecast.sensor.clone()).or_default();
                    memory.forecast(forecast, &mut round);
                }
                for frame in frames {
                    let memory = sensors.entry(frame.sensor.clone()).or_default();
                    memory.observe(frame, &mut round);
                }
                output.session(&cap).give_iterator(round.out.into_iter());
            }
            let ahead = forecast_frontier.frontier();
            let ahead = ahead.iter().chain(frame_frontier.frontier().iter()).min().copied();
            let Some(cap) = &mut own else { return };
            match ahead {
                Some(ahead) if ahead > *cap.time() => cap.downgrade(&ahead),
                Some(_) => {}
                None => {
                    let mut out = Vec::new();
                    for mut memory in std::mem::take(&mut sensors).into_values() {
                        memory.settle(&mut meeting, &mut out);
                    }
                    output.session(&cap).give_iterator(out.into_iter());
                    own = None;
                }
            }
        }
    })
}

/// The joining of one epoch.
struct Round<'a, M: Meeting> {
    config: &'a ScoringConfig,
    epoch: u64,
    meeting: &'a mut M,
    out: Vec<M::Out>,
}

impl<M: Meeting> Round<'_, M> {
    fn meet(&mut self, all: &[Met]) {
        self.meeting.meet(all, self.epoch, &mut self.out);
    }
}

/// What is kept of one sensor.
#[derive(Default)]
struct Memory {
    /// That of the forecasts; without one there was nothing to be held against.
    cadence: Option<Cadence>,
    forecasts: BTreeMap<Time, Forecast>,
    observations: Observations,
    /// Observations that no forecast meets any more.
    before: Observations,
}

impl Memory {
    fn forecast<M: Meeting>(&mut self, forecast: Forecast, round: &mut Round<M>) {
        self.cadence = Some(forecast.cadence);
        self.jump(forecast.reference_time, round);
        if self.newest().is_some_and(|now| passed(&forecast, now, round.config)) {
            // What it could be held against may be gone, or counted already.
            return;
        }
        let previous = self.forecasts.remove(&forecast.reference_time);
        if !forecast.scored {
            let both = || previous.iter().map(|f| (f, -1)).chain([(&forecast, 1)]);
            let with = |frame| both().map(move |(forecast, times)| Met { forecast, frame, times });
            let all: Vec<Met> =
                self.observations.values().flat_map(|frame| with(&**frame)).collect();
            round.meet(&all);
        }
        self.forecasts.insert(forecast.reference_time, forecast);
    }

    fn observe<M: Meeting>(&mut self, frame: Frame, round: &mut Round<M>) {
        let now = frame.valid_time;
        self.jump(now, round);
        if let (Some(newest), Some(cadence)) = (self.newest(), self.cadence) {
            let old = cadence.steps(now, newest) > i64::from(round.config.correct_within);
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
            let both = previous.iter().map(|f| (&**f, -1)).chain([(&frame, 1)]);
            let with = |(frame, times)| {
                self.forecasts.values().map(move |forecast| Met { forecast, frame, times })
            };
            let all: Vec<Met> = both.flat_map(with).collect();
            round.meet(&all);
        }
        self.observations.insert(now, Arc::new(frame));
        self.forget(round);
    }

    fn newest(&self) -> Option<Time> {
        self.observations.last_key_value().map(|(&newest, _)| newest)
    }

    /// Begins anew behind a clock that was set: admission lets nothing else through from so far.
    fn jump<M: Meeting>(&mut self, to: Time, round: &mut Round<M>) {
        let steps = self.newest().zip(self.cadence).map(|(now, cadence)| cadence.steps(now, to));
        if let (Some(steps), Some(largest)) = (steps, round.config.largest_jump)
            && steps.abs() > i64::from(largest)
        {
            self.settle(round.meeting, &mut round.out);
            *self = Self { cadence: self.cadence, ..Self::default() };
        }
    }

    /// Lets go of what no frame or forecast can still meet.
    fn forget<M: Meeting>(&mut self, round: &mut Round<M>) {
        let Some(now) = self.newest() else { return };
        let passed = |_: &Time, forecast: &mut Forecast| passed(forecast, now, round.config);
        for (_, forecast) in self.forecasts.extract_if(.., passed) {
            round.meeting.settled(forecast, &self.before, &self.observations, &mut round.out);
        }
        // Without a forecast, only frames as late as a first one can meet one.
        let longest = self.forecasts.last_key_value();
        let (horizon, cadence) = longest
            .map_or((0, None), |(_, forecast)| (forecast.shape[0] as i64, Some(forecast.cadence)));
        let keep = horizon + i64::from(round.config.correct_within);
        match cadence {
            Some(cadence) => {
                let old = |at: &Time, _: &mut Arc<Frame>| cadence.steps(*at, now) > keep;
                self.before.extend(self.observations.extract_if(.., old));
            }
            None => {
                while self.observations.len() > keep as usize + 1 {
                    self.before.extend(self.observations.pop_first());
                }
            }
        }
        while self.before.len() > round.meeting.past() {
            self.before.pop_first();
        }
    }

    /// Lets go of all forecasts, the oldest first.
    fn settle<M: Meeting>(&mut self, meeting: &mut M, out: &mut Vec<M::Out>) {
        for forecast in std::mem::take(&mut self.forecasts).into_values() {
            meeting.settled(forecast, &self.before, &self.observations, out);
        }
    }
}

/// How many cadences after the reference time `at` lies, to the nearest.
pub(super) fn lead(forecast: &Forecast, at: Time) -> i64 {
    forecast.cadence.steps(forecast.reference_time, at)
}

/// Whether `now` is so far beyond the last lead that its observation is no longer corrected.
fn passed(forecast: &Forecast, now: Time, config: &ScoringConfig) -> bool {
    lead(forecast, now) > forecast.shape[0] as i64 + i64::from(config.correct_within)
}
