//! Drift: whether a sensor still shows what the model was trained on.

use std::collections::BTreeMap;
use std::rc::Rc;

use physicnet_stream::{Failure, SensorId, Time};
use serde::Serialize;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

use crate::model::PhysicNet;
use crate::quantization::{Coded, Ring, Tally, distance};
use crate::stage::stage;

/// An alarm ends below this share of the distance at which it began: a sensor at the edge does
/// not ring with every frame.
const CALM: f64 = 0.9;

/// What drift is measured against, and over what.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftConfig {
    /// How often training used each code; where it is not known, no distance is.
    pub training: Option<Vec<u64>>,
    /// The frames of a sensor that are compared with it.
    pub window: usize,
    /// The distance above which there is an alarm.
    pub alarm: f64,
}

/// How far a sensor's last frames are from the training data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Whose frames they are.
    pub sensor: SensorId,
    /// The valid time of the newest of them.
    pub valid_time: Time,
    /// The Jensen-Shannon distance of their codes from training's, 0 to 1; `None` before there
    /// are enough frames, or where the model has no codes to compare.
    pub distance: Option<f64>,
    /// The share of missing pixels among them, 0 to 1.
    pub missing: f64,
    /// Whether the distance is alarming.
    pub alarm: bool,
}

/// Extension trait: watches what codes each sensor's frames have.
pub trait Watch<'scope> {
    /// The drift at each measured frame. Frames read again after a restart are counted and say
    /// nothing; frames made up for a gap are passed over.
    fn drift(
        self,
        net: &Rc<PhysicNet>,
        config: &DriftConfig,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Drift>;
}

impl<'scope> Watch<'scope> for StreamVec<'scope, u64, Coded> {
    fn drift(
        self,
        net: &Rc<PhysicNet>,
        config: &DriftConfig,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Drift> {
        let (stride, codes) = (net.config.stride(), net.config.codes);
        let config = config.clone();
        let mut sensors = BTreeMap::<SensorId, (Ring, bool)>::new();
        let mut watch = move |coded: Coded| {
            let head = &coded.frame.head;
            if head.filled() {
                return None;
            }
            let fresh = || (Ring::new(config.window, codes), false);
            let (ring, alarm) = sensors.entry(head.sensor.clone()).or_insert_with(fresh);
            ring.push(Tally::of(&coded.frame, coded.codes.as_deref().unwrap_or_default(), stride));
            let counts = ring.counts().zip(config.training.as_deref());
            let distance = counts.and_then(|(counts, training)| distance(counts, training));
            let limit = if *alarm { CALM * config.alarm } else { config.alarm };
            *alarm = distance.is_some_and(|distance| distance > limit);
            (!head.replay).then(|| Drift {
                sensor: head.sensor.clone(),
                valid_time: head.valid_time,
                distance,
                missing: ring.missing(),
                alarm: *alarm,
            })
        };
        let each = move |frames: Vec<Coded>| Ok(frames.into_iter().map(&mut watch).collect());
        stage(self, "Drift", |_| usize::MAX, failure.clone(), |_| (), each).flat_map(|drift| drift)
    }
}
