//! What happened lately, in words: a bounded ring that anyone may add to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::SystemTime;

use physicnet_stream::SensorId;
use serde::Serialize;

/// How many events of a kind are kept: a flood of one kind drives out no other.
const KEPT: usize = 50;
/// How many letters of a text.
const LETTERS: usize = 300;

/// What sort of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something needs a person.
    Alarm,
    /// A frame was not used.
    Reject,
    /// A forecast was issued again.
    Revision,
    /// The job changed what it does: another model, a gate, a return to normal.
    Change,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Alarm, Self::Reject, Self::Revision, Self::Change];

    /// The kind in one word, as metrics label it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Reject => "reject",
            Self::Revision => "revision",
            Self::Change => "change",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Its place among all events of the run.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// Whose it is, if a sensor's.
    pub sensor: Option<SensorId>,
    /// What sort of thing it is.
    pub kind: Kind,
    /// What to tell people.
    pub text: String,
}

/// The events of a job; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Rings>);

#[derive(Debug, Default)]
struct Rings {
    told: AtomicU64,
    /// By kind, in the order of [`Kind::ALL`].
    kinds: [Ring; Kind::ALL.len()],
    /// What was counted and not kept because its place was taken just then.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    count: AtomicU64,
    kept: Mutex<VecDeque<Event>>,
}

impl Events {
    /// Tells everyone who looks. Nobody waits for it: one that finds its place taken, by who is
    /// looking or by another of its kind, is counted and not kept.
    pub fn publish(&self, kind: Kind, sensor: Option<&SensorId>, text: impl Into<String>) {
        let (mut text, sensor) = (text.into(), sensor.cloned());
        if let Some((end, _)) = text.char_indices().nth(LETTERS) {
            text.truncate(end);
            text.push('…');
        }
        let time = now();
        let number = self.0.told.fetch_add(1, Relaxed) + 1;
        let ring = &self.0.kinds[kind as usize];
        ring.count.fetch_add(1, Relaxed);
        let mut kept = match ring.kept.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(kept)) => kept.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.0.dropped.fetch_add(1, Relaxed);
                return;
            }
        };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Event { number, time, sensor, kind, text });
    }

    /// What is still known, newest first.
    pub fn latest(&self) -> Vec<Event> {
        let kept = |ring: &Ring| ring.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all: Vec<_> = self.0.kinds.iter().flat_map(kept).collect();
        all.sort_by_key(|event| std::cmp::Reverse(event.number));
        all
    }

    /// How many there have been of a kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.0.kinds[kind as usize].count.load(Relaxed)
    }

    /// How many were counted and not kept.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// As long as this is held, somebody looks.
    #[cfg(test)]
    pub(super) fn looking(&self, kind: Kind) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.0.kinds[kind as usize].kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
