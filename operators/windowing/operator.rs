//! Each sensor's ring of encoded frames.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use physicnet_stream::{Failure, SensorId};
use timely::dataflow::StreamVec;

use crate::quantization::Coded;
use crate::stage::{Turn, stage};

/// One place of a window: an encoded frame, shared by all windows that hold it.
pub struct Slot {
    /// The encoded frame.
    pub coded: Coded,
    /// The classical flow from this frame back to the one before it, `(rows, columns, 2)`,
    /// estimated when first asked for.
    pub flow: OnceCell<Vec<f32>>,
}

/// A sensor's last `history` encoded frames, oldest first, never empty.
pub struct Window {
    /// The frames.
    pub slots: Vec<Rc<Slot>>,
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

/// Extension trait: slides a window over each sensor's frames.
pub trait Windowed<'scope> {
    /// A window for every frame that completes one; frames made up for a gap, or read again
    /// after a restart, complete none.
    fn windows(self, history: usize, failure: &Failure) -> StreamVec<'scope, u64, Window>;
}

/// Puts the frames that one epoch has of a sensor in order: the frame itself comes after those
/// that were made up for the gap before it. Timely may swap them, and nothing else: an epoch has
/// one frame of a sensor.
fn in_order(frames: &mut [Coded]) {
    for at in 1..frames.len() {
        let head = &frames[at].frame.head;
        if !head.filled {
            continue;
        }
        let after = |other: &Coded| {
            let other = &other.frame.head;
            other.sensor == head.sensor && !other.restart && other.valid_time > head.valid_time
        };
        if let Some(first) = frames[..at].iter().position(after) {
            frames[first..=at].rotate_right(1);
        }
    }
}

impl<'scope> Windowed<'scope> for StreamVec<'scope, u64, Coded> {
    fn windows(self, history: usize, failure: &Failure) -> StreamVec<'scope, u64, Window> {
        let mut rings = HashMap::<SensorId, VecDeque<Rc<Slot>>>::new();
        let whole = stage(
            self,
            "Window",
            Turn::All,
            |_| usize::MAX,
            failure.clone(),
            |_| (),
            move |mut frames| {
                in_order(&mut frames);
                let slide = |coded: Coded| {
                    let head = &coded.frame.head;
                    let (restart, silent) = (head.restart, head.filled || head.replay);
                    let ring = rings.entry(head.sensor.clone()).or_default();
                    if restart {
                        ring.clear();
                    }
                    if ring.len() == history {
                        ring.pop_front();
                    }
                    ring.push_back(Rc::new(Slot { coded, flow: OnceCell::new() }));
                    let complete = ring.len() == history && !silent;
                    complete.then(|| Window { slots: ring.iter().map(Rc::clone).collect() })
                };
                Ok(frames.into_iter().map(slide).collect::<Vec<_>>())
            },
        );
        use timely::dataflow::operators::vec::Map;
        whole.flat_map(|window| window)
    }
}
