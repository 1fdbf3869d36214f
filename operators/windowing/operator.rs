//! The encoded frames of each sensor, and the windows that are planned over them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use candle_core::Result;
use physicnet_stream::{Error, Failure, Pile, SensorId, Time};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::admission::{Admitted, Plan, Planned};
use crate::cropping::Extent;
use crate::model::PhysicNet;
use crate::quantization::Coded;
use crate::swapping::Seat;
use crate::windowing::faults::doubt;

/// One place of a window: an encoded frame, shared by all windows that hold it.
pub struct Slot {
    /// The encoded frame.
    pub coded: Rc<Coded>,
    /// The classical flow from this frame back to the one before it, `(rows, columns, 2)`,
    /// estimated when first asked for.
    pub flow: Flow,
}

/// A flow that two networks which see the same fields share.
pub type Flow = Rc<OnceCell<Vec<f32>>>;

/// `history` encoded frames of a sensor, oldest first, never empty.
pub struct Window {
    /// The frames.
    pub slots: Vec<Rc<Slot>>,
    /// Who forecasts from it.
    pub seat: Seat,
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

    /// How its frames lie in the planes.
    pub fn extent(&self) -> Extent {
        self.newest().coded.frame.extent
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
    /// their forecasts though they have gone out. What a network must see that came before it did
    /// is encoded for it when a window asks: such frames keep their physical values.
    fn windows(self, replayed: bool, failure: &Failure) -> StreamVec<'scope, u64, Window>;
}

impl<'scope> Windowed<'scope> for StreamVec<'scope, u64, Coded> {
    fn windows(self, replayed: bool, failure: &Failure) -> StreamVec<'scope, u64, Window> {
        let failure = failure.clone();
        self.unary(Pipeline, "Window", move |_cap, _info| {
            let mut sensors = HashMap::<SensorId, Sighted>::new();
            let mut pile = Pile::default();
            let mut kept = Vec::new();
            move |input, output| {
                input.for_each_stamp(|cap, batches| {
                    let Some(cap) = cap.retain_least(output.output_index()) else { return };
                    let coded = batches.flat_map(|batch| batch.drain(..));
                    coded.for_each(|coded| pile.push(cap.clone(), coded));
                });
                let mut arrived = pile.take();
                // An epoch has one frame of a sensor: those that were made up around it go first,
                // its plan asks for them. Stable, so that the epochs keep their order.
                arrived.sort_by_key(|(cap, coded)| {
                    (*cap.time(), coded.seat.candidate, !coded.frame.head.filled())
                });
                for (cap, coded) in arrived {
                    let sensor = &coded.frame.head.sensor;
                    if !sensors.contains_key(sensor) {
                        sensors.insert(sensor.clone(), Sighted::default());
                    }
                    let sighted = sensors.get_mut(sensor).expect("inserted");
                    match sighted.take(coded, replayed) {
                        Ok(windows) => output.session(&cap).give_iterator(windows.into_iter()),
                        Err(error) => {
                            failure.report(Error::new("Window", error));
                            kept.push(cap);
                        }
                    }
                }
            }
        })
    }
}

/// What is kept of one sensor: what each network made of its frames, the one that served last
/// first. There is a second one while one is on trial, and for as long after a swap as windows may
/// ask for frames before it.
#[derive(Default)]
struct Sighted(Vec<Past>);

impl Sighted {
    /// Keeps a frame; the windows that its plan asks for.
    fn take(&mut self, coded: Coded, replayed: bool) -> Result<Vec<Window>> {
        let (seat, plan) = (coded.seat.clone(), coded.frame.head.plan.clone());
        let own = self.0.iter().position(|past| Rc::ptr_eq(&past.net, &seat.net));
        let mut place = own.unwrap_or_else(|| {
            // What came before it, as the one saw it that has missed none: not one that is gone,
            // which late and corrected frames no longer reach.
            let slots = self.0.first().map(|past| past.slots.clone()).unwrap_or_default();
            self.0.push(Past { net: Rc::clone(&seat.net), slots });
            self.0.len() - 1
        });
        if !seat.candidate {
            self.0[..=place].rotate_right(1);
            place = 0;
        }
        let flow = self.0.iter().find_map(|past| past.flow(&coded)).unwrap_or_default();
        let windows = self.0[place].take(coded, flow, replayed)?;
        if let Some(plan) = plan {
            if plan.restart && !seat.candidate {
                // Those of before a clock was set back would be taken for the newest for ever.
                self.0.truncate(1);
            }
            self.0.retain(|past| past.slots.keys().next_back() >= Some(&plan.keep_from));
        }
        Ok(windows)
    }
}

/// The frames by valid time as one network sees them; those from before it came, until a window
/// asks for them, as another one saw them.
struct Past {
    net: Rc<PhysicNet>,
    slots: BTreeMap<Time, Rc<Slot>>,
}

impl Past {
    /// Keeps a frame; the windows that its plan asks for.
    fn take(&mut self, coded: Coded, flow: Flow, replayed: bool) -> Result<Vec<Window>> {
        let (head, seat) = (coded.frame.head.clone(), coded.seat.clone());
        let (time, slot) = (head.valid_time, Rc::new(Slot { coded: Rc::new(coded), flow }));
        let Some(plan) = &head.plan else {
            self.slots.insert(time, slot);
            return Ok(Vec::new());
        };
        if plan.restart {
            self.slots.clear();
        }
        self.slots.insert(time, slot);
        self.slots = self.slots.split_off(&plan.keep_from);
        if head.replay && (!replayed || seat.candidate) {
            return Ok(Vec::new());
        }
        plan.windows.iter().map(|planned| self.window(&head, &seat, plan, planned)).collect()
    }

    /// The classical flow of a frame, where it is what `coded`'s network asks for.
    fn flow(&self, coded: &Coded) -> Option<Flow> {
        let slot = self.slots.get(&coded.frame.head.valid_time)?;
        // Not that of an earlier version of the frame.
        let same = Rc::ptr_eq(&slot.coded.frame.head.data, &coded.frame.head.data);
        (same && sees_alike(&slot.coded.seat.net, &coded.seat.net)).then(|| Rc::clone(&slot.flow))
    }

    fn window(
        &mut self,
        head: &Admitted,
        seat: &Seat,
        plan: &Plan,
        planned: &Planned,
    ) -> Result<Window> {
        let slots = planned.frames.iter().map(|time| self.slot(*time, seat));
        let mut slots = slots.collect::<Result<Vec<_>>>()?;
        if planned.revision > 0
            && let Some(newest) = slots.last_mut()
        {
            // The frame before it may be another one than when its flow was estimated.
            let coded = Rc::clone(&newest.coded);
            *newest = Rc::new(Slot { coded, flow: Flow::default() });
        }
        if let Some(limit) = self.net.config.faults {
            doubt(&mut slots, limit);
        }
        Ok(Window {
            slots,
            seat: seat.clone(),
            revision: planned.revision,
            offset: head.offset,
            frame_time: head.valid_time,
            replay_from: plan.replay_from,
            replay: head.replay,
            scored: head.scored,
        })
    }

    /// The frame of this valid time as the network sees it.
    fn slot(&mut self, time: Time, seat: &Seat) -> Result<Rc<Slot>> {
        let slot = self.slots.get_mut(&time).expect("admission plans over what it let through");
        let Slot { coded, flow } = &**slot;
        if !Rc::ptr_eq(&coded.seat.net, &self.net) {
            let frame = &coded.frame;
            let alike = sees_alike(&coded.seat.net, &self.net);
            let flow = if alike { Rc::clone(flow) } else { Flow::default() };
            let coded = Rc::new(Coded::anew(frame.head.clone(), &frame.sensor, seat)?);
            *slot = Rc::new(Slot { coded, flow });
        }
        Ok(Rc::clone(slot))
    }
}

/// Whether the classical flow of a frame is the same for both.
fn sees_alike(one: &PhysicNet, other: &PhysicNet) -> bool {
    let sees = |net: &PhysicNet| {
        let config = &net.config;
        (config.variables.first().map(|v| v.transform), config.boundary, config.stride())
    };
    sees(one) == sees(other)
}
