//! How far a job has come: what a restart goes on from.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::SensorId;

/// A place in a source: a log and an offset in it.
///
/// A log is what a source reads in one order: the series of a sensor in a store, named as the
/// sensor, or a partition of a topic, named `topic/partition`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The log.
    pub log: Arc<str>,
    /// The offset in it.
    pub offset: u64,
}

/// What one judged frame changes in the progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose frame it was.
    pub sensor: SensorId,
    /// Where it was read.
    pub read: Position,
    /// The frames, in the order in which they came, that put the state of the sensor where it
    /// now is: those of its window, and a jump that the next frame may confirm. Empty for a
    /// sensor that is not the job's.
    pub window: Vec<Position>,
    /// Whether what it led to was durable before.
    pub replay: bool,
    /// Whether the verification had taken it in before.
    pub scored: bool,
}

/// Where the sources of a job go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The offset to read next, by log. What lies before it has been dealt with: its forecasts
    /// and rejects are durable. A log that is absent is read from its start.
    pub next: BTreeMap<Arc<str>, u64>,
    /// The frames that rebuild each sensor's window.
    pub windows: BTreeMap<SensorId, Vec<Position>>,
    /// By log, the offset before which the verification has taken all in; where it is absent,
    /// that of `next`.
    pub scored: BTreeMap<Arc<str>, u64>,
}

impl Resume {
    /// Takes in what `mark` changes; marks of a log must come in the order of its offsets, or
    /// all that came before must have come.
    pub fn apply(&mut self, mark: Mark) {
        let Mark { sensor, read, window, .. } = mark;
        let next = self.next.entry(read.log).or_default();
        *next = (*next).max(read.offset + 1);
        if !window.is_empty() {
            self.windows.insert(sensor, window);
        }
    }

    /// Also goes back to where the verification is, whose state is kept elsewhere and may be older.
    pub fn reach_back(&mut self, scores: Self) {
        for (sensor, window) in scores.windows {
            let Some(first) = window.first() else { continue };
            let own = self.windows.get(&sensor);
            let first_of = |window: &Vec<Position>| window.first().map(|at| at.offset);
            let before = |next: &BTreeMap<Arc<str>, u64>| next.get(&first.log).copied();
            let older = match own {
                None => true,
                Some(own) => match (before(&scores.next), before(&self.next)) {
                    (Some(theirs), Some(ours)) => theirs <= ours,
                    _ => first_of(&window) <= first_of(own),
                },
            };
            if older {
                self.windows.insert(sensor, window);
            }
        }
        self.scored = scores.next;
    }

    /// The offset from which all of a log is read; of what lies before it, only the windows.
    pub fn start(&self, log: &str) -> Option<u64> {
        let next = self.next.get(log)?;
        Some(self.scored.get(log).map_or(*next, |scored| *next.min(scored)))
    }

    /// From which offset a log that holds only the frames of `sensor` is read.
    pub fn from(&self, sensor: &SensorId) -> u64 {
        let window = self.windows.get(sensor).and_then(|window| window.first());
        let next = self.next.get(sensor.as_str()).copied();
        window.map(|position| position.offset).or(next).unwrap_or(0)
    }

    /// Whether what `position` holds has been dealt with: it is read for the window alone.
    pub fn replays(&self, position: &Position) -> bool {
        self.next.get(&position.log).is_some_and(|next| position.offset < *next)
    }

    /// Whether the verification has taken in what `position` holds.
    pub fn verified(&self, position: &Position) -> bool {
        let known = self.scored.get(&position.log).or_else(|| self.next.get(&position.log));
        known.is_some_and(|next| position.offset < *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(log: &str, offset: u64) -> Position {
        Position { log: log.into(), offset }
    }

    #[test]
    fn a_restart_reads_the_window_and_goes_on() {
        let mut resume = Resume::default();
        let a = SensorId::from("a");
        assert_eq!(resume.from(&a), 0);
        let mark = |offset, window: &[u64]| Mark {
            sensor: "a".into(),
            read: at("a", offset),
            window: window.iter().map(|offset| at("a", *offset)).collect(),
            replay: false,
            scored: false,
        };
        resume.apply(mark(0, &[]));
        assert_eq!(resume.from(&a), 1, "nothing of a stranger is read again");
        resume.apply(mark(4, &[2, 3, 4]));
        resume.apply(mark(3, &[2, 3, 4]));
        assert_eq!(resume.from(&a), 2);
        let replays = [2, 4, 5].map(|offset| resume.replays(&at("a", offset)));
        assert_eq!(replays, [true, true, false]);
        assert!(!resume.replays(&at("b", 0)));
    }
}
