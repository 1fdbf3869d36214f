//! How far a source may run ahead, and when it must stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use timely::dataflow::ProbeHandle;

use crate::Error;

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

/// Where an operator reports what it cannot mend (a full disk, a broken device). It then keeps
/// its capabilities, so nothing after the failure is ever called durable, and the engine ends
/// the process with the error.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// Reports `error`; the first report stands.
    pub fn report(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Whether anything was reported.
    pub fn failed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes the report out.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
    /// Where operators report what they cannot mend.
    pub failure: Failure,
}

impl Pace {
    /// Whether `epoch` may be emitted now.
    pub fn allows(&self, epoch: u64) -> bool {
        epoch < self.in_flight || !self.durable.less_than(&(epoch - self.in_flight + 1))
    }
}
