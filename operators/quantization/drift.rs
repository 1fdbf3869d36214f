//! Drift: whether a sensor still shows what the model was trained on.

use std::collections::BTreeMap;
use std::rc::Rc;

use physicnet_stream::{Failure, SensorId, Time};
use serde::Serialize;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

use crate::model::PhysicNet;
use crate::quantization::{Coded, Ring, Tally, Usage, distance};
use crate::stage::{Turn, stage};

/// An alarm ends below this share of the distance at which it began: a sensor at the edge does
/// not ring with every frame.
const CALM: f64 = 0.9;
/// Over how many frames missing pixels are counted where neither the job nor the model says.
const WINDOW: usize = 96;

/// When drift is alarming; what is absent is as the model says by its [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DriftConfig {
    /// The distance from the training data above which there is an alarm.
    pub alarm: Option<f64>,
    /// The frames of a sensor that are compared with it.
    pub window: Option<usize>,
}

impl DriftConfig {
    /// The frames that are compared, of a model with this `usage`.
    pub fn window(&self, usage: Option<&Usage>) -> usize {
        self.window.or(usage.map(|usage| usage.window)).unwrap_or(WINDOW)
    }

    /// The alarming distance. Without usage there is no distance, and nothing to be alarmed by.
    pub fn alarm(&self, usage: Option<&Usage>) -> f64 {
        self.alarm.or(usage.map(Usage::alarm)).unwrap_or(1.0)
    }
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
    /// How many frames there are by now, of the `window` that the distance is taken over. Every
    /// start of a job begins with none.
    pub frames: usize,
    /// How many there are to be.
    pub window: usize,
    /// Whether the model says what codes are usual: without that there will be no distance.
    pub comparable: bool,
    /// The share of missing pixels among them, 0 to 1.
    pub missing: f64,
    /// The distance that is alarming.
    pub limit: f64,
    /// Whether the distance is alarming.
    pub alarm: bool,
}

/// Extension trait: watches what codes each sensor's frames have.
pub trait Watch<'scope> {
    /// The drift at each measured frame, from the training data of the network that serves.
    /// Frames read again after a restart are counted and say nothing; frames made up for a gap are
    /// passed over. Another network's codes are others: with it the counting begins anew.
    fn drift(self, config: DriftConfig, failure: &Failure) -> StreamVec<'scope, u64, Drift>;
}

impl<'scope> Watch<'scope> for StreamVec<'scope, u64, Coded> {
    fn drift(self, config: DriftConfig, failure: &Failure) -> StreamVec<'scope, u64, Drift> {
        let mut sensors = BTreeMap::<SensorId, Watched>::new();
        let mut watch = move |coded: Coded| {
            let (head, net) = (&coded.frame.head, &coded.seat.net);
            if head.filled() || coded.seat.candidate {
                return None;
            }
            let usage = net.usage.as_ref();
            let known = sensors.remove(&head.sensor).filter(|known| Rc::ptr_eq(&known.net, net));
            let fresh = || {
                let ring = Ring::new(config.window(usage), net.config.codes);
                Watched { net: Rc::clone(net), ring, alarm: false }
            };
            let Watched { ring, alarm, .. } =
                sensors.entry(head.sensor.clone()).or_insert_with(|| known.unwrap_or_else(fresh));
            let (codes, stride) = (coded.codes.as_deref(), net.config.stride());
            ring.push(Tally::of(&coded.frame, codes.unwrap_or_default(), stride));
            let counts = ring.counts().zip(usage);
            let distance = counts.and_then(|(counts, usage)| distance(counts, &usage.counts));
            let limit = config.alarm(usage);
            let high = if *alarm { CALM * limit } else { limit };
            *alarm = distance.is_some_and(|distance| distance > high);
            (!head.replay).then(|| Drift {
                sensor: head.sensor.clone(),
                valid_time: head.valid_time,
                distance,
                frames: ring.held(),
                window: config.window(usage),
                comparable: usage.is_some(),
                missing: ring.missing(),
                limit,
                alarm: *alarm,
            })
        };
        let each = move |frames: Vec<Coded>| Ok(frames.into_iter().map(&mut watch).collect());
        stage(self, "Drift", Turn::All, |_| usize::MAX, failure.clone(), |_| (), each)
            .flat_map(|drift| drift)
    }
}

/// What is watched of one sensor.
struct Watched {
    /// Whose codes are counted.
    net: Rc<PhysicNet>,
    ring: Ring,
    alarm: bool,
}
