//! What a worker's sensors learn from their frames, behind fusion.

use std::collections::{BTreeMap, HashMap};

use physicnet_stream::{Forecast, SensorId, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::{LearnConfig, Learner, Learnt};
use crate::admission::Admitted;

/// What learns of one sensor.
pub(crate) trait Pupil: 'static {
    /// What it has learnt: with it a restart goes on.
    type Known: Clone + 'static;

    /// One epoch of the sensor: `frame`, which teaches, and the forecasts that it led to, which get
    /// what is known.
    fn epoch(&mut self, frame: &Admitted, forecasts: &mut [Forecast]);

    /// What is known by now.
    fn known(&self) -> &Self::Known;
}

/// Whether a frame teaches, where `newest` is the valid time of the last one that did: it is newer, or
/// the first after a clock that was set.
pub(crate) fn teaches(newest: &mut Option<Time>, frame: &Admitted) -> bool {
    let jumped = frame.plan.as_ref().is_some_and(|plan| plan.restart);
    let teaches = jumped || newest.is_none_or(|newest| newest < frame.valid_time);
    if teaches {
        *newest = Some(frame.valid_time);
    }
    teaches
}

/// Forecasts, made of what has been learnt.
pub struct Taught<'scope, K: Clone + 'static> {
    /// The forecasts.
    pub forecasts: StreamVec<'scope, u64, Forecast>,
    /// What is known of a sensor after each of its new frames.
    pub learnt: StreamVec<'scope, u64, (SensorId, K)>,
}

/// Forecasts as they are served.
pub type Learning<'scope> = Taught<'scope, Learnt>;

/// Extension trait: serves what has been the best of late.
pub trait Learn<'scope> {
    /// Each forecast, with its first product made of what its sensor's frames have taught. Both
    /// inputs must lie on the worker of the sensor; the forecasts have the products `advection`
    /// and `persistence`. `before` is what was known at the start.
    fn learn(
        self,
        admitted: StreamVec<'scope, u64, Admitted>,
        config: LearnConfig,
        before: &BTreeMap<SensorId, Learnt>,
    ) -> Learning<'scope>;
}

impl<'scope> Learn<'scope> for StreamVec<'scope, u64, Forecast> {
    fn learn(
        self,
        admitted: StreamVec<'scope, u64, Admitted>,
        config: LearnConfig,
        before: &BTreeMap<SensorId, Learnt>,
    ) -> Learning<'scope> {
        let mut before = before.clone();
        teach(self, admitted, "Learn", move |sensor| {
            Learner::new(config, before.remove(sensor).unwrap_or_default())
        })
    }
}

/// Gives each sensor's frames and forecasts to the pupil that `enrol` makes for it, epoch by epoch:
/// the frame teaches first, then the forecasts that it led to are made of what is known.
pub(crate) fn teach<'scope, P: Pupil>(
    forecasts: StreamVec<'scope, u64, Forecast>,
    admitted: StreamVec<'scope, u64, Admitted>,
    name: &str,
    mut enrol: impl FnMut(&SensorId) -> P + 'static,
) -> Taught<'scope, P::Known> {
    let mut builder = OperatorBuilder::new(name.to_owned(), forecasts.scope());
    let mut forecasts = builder.new_input(forecasts, Pipeline);
    let mut frames = builder.new_input(admitted, Pipeline);
    let (served, served_stream) = builder.new_output();
    let (learnt, learnt_stream) = builder.new_output();
    let mut served = OutputBuilder::<_, CapacityContainerBuilder<Vec<Forecast>>>::from(served);
    let mut learnt =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<(SensorId, P::Known)>>>::from(learnt);

    builder.build(move |_caps| {
        let mut epochs = BTreeMap::new();
        let mut pupils = HashMap::<SensorId, P>::new();
        move |frontiers| {
            forecasts.for_each_stamp(|cap, batches| {
                let caps = [0, 1].map(|output| cap.retain_least(output));
                let [Some(served), Some(learnt)] = caps else { return };
                let time = *served.time();
                let (_, made) =
                    epochs.entry(time).or_insert_with(|| ([served, learnt], Epoch::new()));
                for forecast in batches.flat_map(|batch| batch.drain(..)) {
                    made.entry(forecast.sensor.clone()).or_default().1.push(forecast);
                }
            });
            frames.for_each_stamp(|cap, batches| {
                let caps = [0, 1].map(|output| cap.retain_least(output));
                let [Some(served), Some(learnt)] = caps else { return };
                let time = *served.time();
                let (_, made) =
                    epochs.entry(time).or_insert_with(|| ([served, learnt], Epoch::new()));
                let measured = |frame: &Admitted| !frame.filled();
                for frame in batches.flat_map(|batch| batch.drain(..)).filter(measured) {
                    let sensor = frame.sensor.clone();
                    made.entry(sensor).or_default().0 = Some(frame);
                }
            });
            let (mut served, mut learnt) = (served.activate(), learnt.activate());
            while let Some(epoch) = epochs.first_entry() {
                let time = *epoch.key();
                // Not before all of it has come: the frame teaches first, then it is served.
                if frontiers.iter().any(|frontier| frontier.less_equal(&time)) {
                    break;
                }
                let ([serve_cap, learnt_cap], made) = epoch.remove();
                for (sensor, (frame, mut forecasts)) in made {
                    // A forecast starts from a frame of its epoch.
                    let Some(frame) = frame else { continue };
                    // Within an epoch nothing is said of their order.
                    forecasts.sort_by_key(|forecast| forecast.reference_time);
                    let pupil = pupils.entry(sensor.clone()).or_insert_with(|| enrol(&sensor));
                    pupil.epoch(&frame, &mut forecasts);
                    served.session(&serve_cap).give_iterator(forecasts.into_iter());
                    if !frame.scored {
                        let known = pupil.known().clone();
                        learnt.session(&learnt_cap).give((sensor, known));
                    }
                }
            }
        }
    });
    Taught { forecasts: served_stream, learnt: learnt_stream }
}

/// By sensor, the frame of an epoch that was measured and the forecasts that it led to.
type Epoch = BTreeMap<SensorId, (Option<Admitted>, Vec<Forecast>)>;
