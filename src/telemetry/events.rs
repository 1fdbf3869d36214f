//! What happened lately, in words: a bounded ring that anyone may add to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
pub struct Events(Arc<Mutex<Rings>>);

#[derive(Debug, Default)]
struct Rings {
    told: u64,
    kinds: BTreeMap<Kind, (u64, VecDeque<Event>)>,
}

impl Events {
    /// Tells everyone who looks.
    pub fn publish(&self, kind: Kind, sensor: Option<&SensorId>, text: impl Into<String>) {
        let (mut text, sensor) = (text.into(), sensor.cloned());
        if let Some((end, _)) = text.char_indices().nth(LETTERS) {
            text.truncate(end);
            text.push('…');
        }
        let time = now();
        let mut rings = self.lock();
        rings.told += 1;
        let number = rings.told;
        let (count, ring) = rings.kinds.entry(kind).or_default();
        *count += 1;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Event { number, time, sensor, kind, text });
    }

    /// What is still known, newest first.
    pub fn latest(&self) -> Vec<Event> {
        let rings = self.lock();
        let mut all: Vec<_> = rings.kinds.values().flat_map(|(_, ring)| ring).cloned().collect();
        drop(rings);
        all.sort_by_key(|event| std::cmp::Reverse(event.number));
        all
    }

    /// How many there have been of a kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.lock().kinds.get(&kind).map_or(0, |(count, _)| *count)
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
