//! Which windows a frame changes: pure functions of the valid times that are known.

use physicnet_stream::{Cadence, Time};

use crate::admission::{AdmissionConfig, Gap};

/// What is to be done now that a frame has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Nothing that came before is to be used any more.
    pub restart: bool,
    /// The frame before it, where so many are missing between them that no window holds both.
    pub after: Option<Time>,
    /// No window asks for frames before it.
    pub keep_from: Time,
    /// The windows to forecast from, oldest reference time first.
    pub windows: Vec<Planned>,
    /// The offset of the first frame that a restart reads again.
    pub replay_from: u64,
}

/// One window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The valid time of its newest frame.
    pub reference_time: Time,
    /// 0 for the first forecast of this reference time, n + 1 for the next one.
    pub revision: u32,
    /// The valid times of its frames, oldest first.
    pub frames: Vec<Time>,
}

/// The stand-in for the frame `step` cadences after `from`, of `steps` to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) step: i64,
    pub(super) steps: i64,
}

impl Fill {
    /// Between the two in time, so that leads stay close to the real valid times.
    pub(super) fn time(&self) -> Time {
        let span = i128::from(self.to) - i128::from(self.from);
        self.from + (span * i128::from(self.step) / i128::from(self.steps)) as i64
    }
}

/// The frames to be made up between two that follow one another, oldest first; `None` where no
/// window may hold both.
pub(super) fn between(
    config: &AdmissionConfig,
    cadence: Cadence,
    from: Time,
    to: Time,
) -> Option<Vec<Fill>> {
    let steps = cadence.steps(from, to);
    let filled = steps == 1 || config.gap != Gap::Skip;
    let joined = filled && steps <= i64::from(config.largest_gap) + 1;
    joined.then(|| (1..steps).map(|step| Fill { from, to, step, steps }).collect())
}

/// The valid times of the `history` frames that end at `reference`, oldest first, and of the
/// frames that they were made from. `before` are the known times before it, newest first. `None`
/// where there are not as many without too long a gap.
pub(super) fn window(
    config: &AdmissionConfig,
    cadence: Cadence,
    history: usize,
    reference: Time,
    before: impl Iterator<Item = Time>,
) -> Option<(Vec<Time>, Vec<Time>)> {
    let (mut frames, mut sources) = (vec![reference], vec![reference]);
    let mut later = reference;
    for earlier in before {
        if frames.len() >= history {
            break;
        }
        frames.extend(between(config, cadence, earlier, later)?.iter().rev().map(Fill::time));
        frames.push(earlier);
        sources.push(earlier);
        later = earlier;
    }
    if frames.len() < history {
        return None;
    }
    frames.truncate(history);
    frames.reverse();
    Some((frames, sources))
}
