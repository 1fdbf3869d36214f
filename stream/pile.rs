//! All that has arrived at an operator, in the order of its epochs.

use std::collections::VecDeque;

use timely::dataflow::operators::Capability;

/// Items under their capabilities: what a stage takes as one batch.
///
/// Within one activation timely hands out messages grouped by stamp, not by age, and those of
/// one stamp in any order (an unstable sort). A source emits a sensor's frames in the order of
/// epochs, at most one in each, so sorting a pile by epoch restores the order that per-sensor
/// state needs.
pub struct Pile<D> {
    items: VecDeque<(Capability<u64>, D)>,
    /// Whether nothing was added since it was put in order.
    sorted: bool,
}

impl<D> Default for Pile<D> {
    fn default() -> Self {
        Self { items: VecDeque::new(), sorted: true }
    }
}

impl<D> Pile<D> {
    /// Adds one item under its capability.
    pub fn push(&mut self, cap: Capability<u64>, item: D) {
        self.items.push_back((cap, item));
        self.sorted = false;
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes everything, oldest epoch first.
    pub fn take(&mut self) -> Vec<(Capability<u64>, D)> {
        self.take_while(|_| true)
    }

    /// Takes the oldest items as long as they are `wanted`, oldest epoch first.
    pub fn take_while(&mut self, mut wanted: impl FnMut(&D) -> bool) -> Vec<(Capability<u64>, D)> {
        if !self.sorted {
            self.items.make_contiguous().sort_by_key(|(cap, _)| *cap.time());
            self.sorted = true;
        }
        let count = self.items.iter().take_while(|(_, item)| wanted(item)).count();
        self.items.drain(..count).collect()
    }
}
