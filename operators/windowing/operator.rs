//! The encoded frames of each sensor, and the windows that are planned over them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use physicnet_stream::{Pile, SensorId, Time};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::admission::{Admitted, Plan, Planned};
use crate::quantization::Coded;

/// One place of a window: an encoded frame, shared by all windows that hold it.
pub struct Slot {
    /// The encoded frame.
    pub coded: Rc<Coded>,
    /// The classical flow from this frame back to the one before it, `(rows, columns, 2)`,
    /// estimated when first asked for.
    pub flow: OnceCell<Vec<f32>>,
}

/// `history` encoded frames of a sensor, oldest first, never empty.
pub struct Window {
    /// The frames.
    pub slots: Vec<Rc<Slot>>,
    /// 0 for the first forecast of its reference time, n + 1 for the next one.
    pub revision: u32,
    /// The offset of the frame that led to it.
    pub offset: u64,
    /// Its valid time.
    pub frame_time: Time,
    /// The offset of the first frame that a restart must read again.
    pub replay_from: u64,
    /// Made again after a restart: its first forecast is durable.
    pub replay: bool,
    /// Made again after a restart: the verification has its first forecast.
    pub scored: bool,
}

impl Window {
    /// The frame at the reference time.
    pub fn newest(&self) -> &Slot {
        self.slots.last().expect("a window is never empty")
    }

    /// The share of missing pixels over the window, 0 to 1.
    pub fn missing(&self) -> f32 {
        let sum: f32 = self.slots.iter().map(|slot| slot.coded.frame.missing).sum();
        sum / self.slots.len() as f32
    }
}

/// Extension trait: makes the windows that admission has planned.
pub trait Windowed<'scope> {
    /// The windows of each frame's plan, of encoded frames that are encoded once. Those of frames
    /// that are read again after a restart are made only if `replayed` says so: somebody wants
    /// their forecasts though they have gone out.
    fn windows(self, replayed: bool) -> StreamVec<'scope, u64, Window>;
}

impl<'scope> Windowed<'scope> for StreamVec<'scope, u64, Coded> {
    fn windows(self, replayed: bool) -> StreamVec<'scope, u64, Window> {
        self.unary(Pipeline, "Window", move |_cap, _info| {
            let mut sensors = HashMap::<SensorId, Past>::new();
            let mut pile = Pile::default();
            move |input, output| {
                input.for_each_stamp(|cap, batches| {
                    let Some(cap) = cap.retain_least(output.output_index()) else { return };
                    let coded = batches.flat_map(|batch| batch.drain(..));
                    coded.for_each(|coded| pile.push(cap.clone(), coded));
                });
                let mut arrived = pile.take();
                // An epoch has one frame of a sensor: those that were made up around it go first,
                // its plan asks for them. Stable, so that the epochs keep their order.
                arrived.sort_by_key(|(cap, coded)| (*cap.time(), !coded.frame.head.filled()));
                for (cap, coded) in arrived {
                    let sensor = &coded.frame.head.sensor;
                    if !sensors.contains_key(sensor) {
                        sensors.insert(sensor.clone(), Past::default());
                    }
                    let past = sensors.get_mut(sensor).expect("inserted");
                    output.session(&cap).give_iterator(past.take(coded, replayed).into_iter());
                }
            }
        })
    }
}

/// What is kept of one sensor, by valid time.
#[derive(Default)]
struct Past(BTreeMap<Time, Rc<Slot>>);

impl Past {
    /// Keeps a frame; the windows that its plan asks for.
    fn take(&mut self, coded: Coded, replayed: bool) -> Vec<Window> {
        let head = coded.frame.head.clone();
        let Some(plan) = &head.plan else {
            self.insert(coded);
            return Vec::new();
        };
        if plan.restart {
            self.0.clear();
        }
        self.insert(coded);
        self.0 = self.0.split_off(&plan.keep_from);
        if head.replay && !replayed {
            return Vec::new();
        }
        plan.windows.iter().map(|planned| self.window(&head, plan, planned)).collect()
    }

    fn insert(&mut self, coded: Coded) {
        let time = coded.frame.head.valid_time;
        let slot = Slot { coded: Rc::new(coded), flow: OnceCell::new() };
        self.0.insert(time, Rc::new(slot));
    }

    fn window(&self, head: &Admitted, plan: &Plan, planned: &Planned) -> Window {
        let slot = |time| self.0.get(time).expect("admission plans over what it let through");
        let mut slots: Vec<_> = planned.frames.iter().map(slot).map(Rc::clone).collect();
        if planned.revision > 0
            && let Some(newest) = slots.last_mut()
        {
            // The frame before it may be another one than when its flow was estimated.
            let coded = Rc::clone(&newest.coded);
            *newest = Rc::new(Slot { coded, flow: OnceCell::new() });
        }
        Window {
            slots,
            revision: planned.revision,
            offset: head.offset,
            frame_time: head.valid_time,
            replay_from: plan.replay_from,
            replay: head.replay,
            scored: head.scored,
        }
    }
}
