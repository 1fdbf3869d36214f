//! How far a source may run ahead, and when it must stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use timely::dataflow::ProbeHandle;

/// A flag that asks every source of this process to end after what it has emitted.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the sources to end.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether they were asked.
    pub fn stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What paces a source: the durable frontier behind the sinks.
#[derive(Clone)]
pub struct Pace {
    /// Behind it, epochs are committed.
    pub durable: ProbeHandle<u64>,
    /// How many epochs may be open at once; at least 1.
    pub in_flight: u64,
    /// When it says so, the source drops its capability and the dataflow drains.
    pub stop: Stop,
}

impl Pace {
    /// Whether `epoch` may be emitted now.
    pub fn allows(&self, epoch: u64) -> bool {
        epoch < self.in_flight || !self.durable.less_than(&(epoch - self.in_flight + 1))
    }
}
