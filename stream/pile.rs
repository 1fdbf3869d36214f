//! All that has arrived at an operator, in the order of its epochs.

use timely::dataflow::operators::Capability;

/// Items under their capabilities: what a stage takes as one batch.
///
/// Within one activation timely hands out messages grouped by stamp, not by age, and those of
/// one stamp in any order (an unstable sort). A source emits a sensor's frames in the order of
/// epochs, at most one in each, so sorting a pile by epoch restores the order that per-sensor
/// state needs.
pub struct Pile<D> {
    items: Vec<(Capability<u64>, D)>,
}

impl<D> Default for Pile<D> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<D> Pile<D> {
    /// Adds one item under its capability.
    pub fn push(&mut self, cap: Capability<u64>, item: D) {
        self.items.push((cap, item));
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes everything, oldest epoch first.
    pub fn take(&mut self) -> Vec<(Capability<u64>, D)> {
        let mut items = std::mem::take(&mut self.items);
        items.sort_by_key(|(cap, _)| *cap.time());
        items
    }
}
