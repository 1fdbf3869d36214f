//! One sensor's gate: a pure state machine from frames to what is used and what is not.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use physicnet_stream::{Cadence, Frame, Position, Reason, Reject, SensorId, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admission::plan::{Fill, Plan, Planned, between, window};

/// What stands in for frames that the cadence says are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// Nothing: the window starts anew, and forecasts pause until it is full.
    Skip,
    /// The last frame, repeated.
    #[default]
    Hold,
    /// A straight line in time between the frames around the gap, pixel by pixel.
    Interpolate,
}

/// How frames that do not come in order are treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// The policy for missing frames.
    pub gap: Gap,
    /// The most consecutive missing frames that are filled; a longer gap starts the window anew.
    pub largest_gap: u32,
    /// A step of more cadences than this, either way, is taken for a wrong clock, unless the
    /// next frame follows it.
    pub largest_jump: u32,
    /// A late or corrected frame revises the forecasts of the reference times that lie at most so
    /// many cadences before the newest; absent, none, and such frames are rejected.
    pub revise_within: Option<u32>,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { gap: Gap::Hold, largest_gap: 2, largest_jump: 100, revise_within: None }
    }
}

/// How far back a gate remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Frames of a window.
    pub history: usize,
    /// So many cadences before the newest frame, a restart must see again all that came: what was
    /// forecast then waits for its verification.
    pub pending: usize,
}

impl Memory {
    /// That of windows of `history` frames whose forecasts nobody verifies.
    pub fn of(history: usize) -> Self {
        Self { history, pending: 0 }
    }
}

/// A frame on its way to a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Who saw it.
    pub sensor: SensorId,
    /// When it was valid.
    pub valid_time: Time,
    /// Its offset in its log; of the frame before the gap for a filled one.
    pub offset: u64,
    /// `[channel, y, x]`.
    pub shape: [usize; 3],
    /// The values, row-major in `shape`.
    pub data: Rc<Vec<f32>>,
    /// Read again after a restart: its forecasts have gone out.
    pub replay: bool,
    /// Read again after a restart: the verification knows it.
    pub scored: bool,
    /// What is to be forecast now; `None` for a frame that the gap policy made up.
    pub plan: Option<Rc<Plan>>,
}

impl Admitted {
    /// Whether the gap policy made it up.
    pub fn filled(&self) -> bool {
        self.plan.is_none()
    }
}

/// The order of one sensor's frames.
pub struct Gate {
    config: AdmissionConfig,
    cadence: Cadence,
    shape: [usize; 3],
    memory: Memory,
    /// The newest of the frames that were admitted.
    known: BTreeMap<Time, Known>,
    /// All that put `known` where it is, and what else a restart must see again, in the order in
    /// which it came.
    arrivals: VecDeque<(Time, Position)>,
    /// The revision of the last forecast of each reference time.
    issued: BTreeMap<Time, u32>,
    /// The valid time of a rejected jump: if the next frame follows it, the clock was right.
    jumped: Option<(Time, Position)>,
}

/// What is remembered of an admitted frame.
struct Known {
    content: u64,
    offset: u64,
    /// Empty where no frame will be made up from them.
    data: Rc<Vec<f32>>,
}

/// How a frame lies to those that are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The first, or far from all others.
    First,
    /// After the newest.
    Newest,
    /// Between others, or in the place of one.
    Past,
}

impl Gate {
    /// A gate for frames of `shape` at `cadence`.
    pub fn new(
        config: AdmissionConfig,
        cadence: Cadence,
        shape: [usize; 3],
        memory: Memory,
    ) -> Self {
        let (known, arrivals, issued) = Default::default();
        Self { config, cadence, shape, memory, known, arrivals, issued, jumped: None }
    }

    /// Judges one frame: what to use now, itself last.
    ///
    /// # Errors
    /// A frame that is not to be used comes back whole, with why.
    pub fn judge(&mut self, frame: Frame) -> Result<Vec<Admitted>, Box<Reject>> {
        match self.verdict(&frame) {
            Ok(place) => Ok(self.admit(frame, place)),
            Err(reason) => {
                if self.memory.pending > 0
                    && reason.measured()
                    && !self.repeats(&frame, &reason)
                    && !self.crowded()
                {
                    // The verification takes it as an observation.
                    self.arrivals.push_back((frame.valid_time, frame.position()));
                    self.forget();
                }
                Err(Box::new(Reject { frame, reason }))
            }
        }
    }

    /// Whether a frame says what the last one of its time has said, and changes nothing at all.
    fn repeats(&self, frame: &Frame, reason: &Reason) -> bool {
        let time = frame.valid_time;
        let last = self.arrivals.iter().rev().find(|(arrived, _)| *arrived == time);
        let known = self.known.get(&time);
        *reason == Reason::Duplicate
            && known.zip(last).is_some_and(|(known, (_, last))| known.offset == last.offset)
    }

    /// The frames that put a new gate where this one is, in the order in which they came.
    ///
    /// An admitted frame ends a pending jump: so what is remembered, and a jump after it, are all
    /// that counts.
    pub fn window(&self) -> Vec<Position> {
        let arrived = self.arrivals.iter().map(|(_, position)| position);
        arrived.chain(self.jumped.iter().map(|(_, position)| position)).cloned().collect()
    }

    fn verdict(&mut self, frame: &Frame) -> Result<Place, Reason> {
        if let Some(reason) = unfit(frame) {
            return Err(reason);
        }
        let count = frame.shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
        if frame.shape != self.shape || count != Some(frame.data.len()) {
            let (found, grid, values) = (frame.shape, self.shape, frame.data.len());
            let why = format!("{values} values of shape {found:?} where the grid has {grid:?}");
            return Err(Reason::Misshapen { why });
        }
        let Some((&newest, _)) = self.known.last_key_value() else { return Ok(Place::First) };
        let steps = self.cadence.steps(newest, frame.valid_time);
        if steps.abs() > i64::from(self.config.largest_jump) {
            let after_jump = |from: Time| {
                let steps = self.cadence.steps(from, frame.valid_time);
                (1..=i64::from(self.config.largest_gap) + 1).contains(&steps)
            };
            if self.jumped.as_ref().is_some_and(|(time, _)| after_jump(*time)) {
                return Ok(Place::First);
            }
            self.jumped = Some((frame.valid_time, frame.position()));
            return Err(Reason::AbsurdTime { newest });
        }
        if steps > 0 { Ok(Place::Newest) } else { self.past(frame, newest) }
    }

    /// Where a frame belongs that is not newer than the newest.
    fn past(&self, frame: &Frame, newest: Time) -> Result<Place, Reason> {
        let time = frame.valid_time;
        let known = self.known.get(&time);
        if known.is_some_and(|known| known.content == content(&frame.data)) {
            return Err(Reason::Duplicate);
        }
        let refused = if known.is_some() { Reason::Corrected } else { Reason::Late { newest } };
        let Some(within) = self.config.revise_within else { return Err(refused) };
        // Further back than any window reaches that may be revised, or than is remembered.
        let reach = i64::from(within) + self.memory.history as i64;
        let full = self.known.len() >= self.capacity();
        let old = self.cadence.steps(time, newest) >= reach
            || full && self.known.first_key_value().is_some_and(|(&oldest, _)| time < oldest);
        // Of two frames within half a cadence the first to come counts.
        let before = self.known.range(..time).next_back();
        let after = self.known.range(time..).next();
        let taken = known.is_none()
            && (before.is_some_and(|(&other, _)| self.cadence.steps(other, time) < 1)
                || after.is_some_and(|(&other, _)| self.cadence.steps(time, other) < 1));
        if old || taken || self.crowded() { Err(refused) } else { Ok(Place::Past) }
    }

    fn admit(&mut self, frame: Frame, place: Place) -> Vec<Admitted> {
        self.jumped = None;
        let after = self.parted(frame.valid_time, place);
        if place == Place::First {
            // Too far away to be repeated, and no way leads from them to here.
            (self.known, self.arrivals, self.issued) = Default::default();
        }
        let position = frame.position();
        // The message has done its work: what is kept is the frame.
        let Frame { sensor, valid_time, offset, shape, data, replay, scored, record: _ } = frame;
        let data = Rc::new(data);
        let known = Known { content: content(&data), offset, data: Rc::clone(&data) };
        self.known.insert(valid_time, known);
        self.arrivals.push_back((valid_time, position));
        self.forget();

        let frame =
            Admitted { sensor, valid_time, offset, shape, data, replay, scored, plan: None };
        let mut admitted = self.fills(&frame);
        if self.config.revise_within.is_none()
            && let Some((_, before)) = self.known.range_mut(..valid_time).next_back()
        {
            before.data = Rc::default();
        }
        let plan = Some(Rc::new(self.plan(valid_time, place, after)));
        admitted.push(Admitted { plan, ..frame });
        admitted
    }

    /// How many frames are known at most: each step has one.
    fn capacity(&self) -> usize {
        let revised = |within| within as usize + self.config.largest_gap as usize + 2;
        self.memory.history + self.config.revise_within.map_or(0, revised)
    }

    /// Whether as many versions of frames are remembered as memory is meant for.
    fn crowded(&self) -> bool {
        self.arrivals.len() >= 4 * self.capacity().max(self.memory.pending)
    }

    /// Lets go of what can change nothing any more.
    fn forget(&mut self) {
        while self.known.len() > self.capacity() {
            self.known.pop_first();
        }
        let Some((&oldest, _)) = self.known.first_key_value() else { return };
        let Some((&newest, _)) = self.known.last_key_value() else { return };
        let pending = self.memory.pending as i64;
        self.arrivals
            .retain(|(time, _)| *time >= oldest || self.cadence.steps(*time, newest) <= pending);
        self.issued.retain(|time, _| *time >= oldest);
    }

    /// The stand-ins on both sides of a frame that has come.
    fn fills(&self, frame: &Admitted) -> Vec<Admitted> {
        let time = frame.valid_time;
        let before = self.known.range(..time).next_back().map(|(&before, _)| (before, time));
        let later = (Bound::Excluded(time), Bound::Unbounded);
        let after = self.known.range(later).next().map(|(&after, _)| (time, after));
        let fills = before
            .into_iter()
            .chain(after)
            .filter_map(|(from, to)| between(&self.config, self.cadence, from, to));
        fills.flatten().map(|fill| self.fill(frame, fill)).collect()
    }

    fn fill(&self, frame: &Admitted, fill: Fill) -> Admitted {
        let (from, to) = (&self.known[&fill.from], &self.known[&fill.to]);
        let along = fill.step as f32 / fill.steps as f32;
        let data = match self.config.gap {
            Gap::Interpolate => {
                let pairs = from.data.iter().zip(to.data.iter());
                Rc::new(pairs.map(|(a, b)| a + (b - a) * along).collect())
            }
            Gap::Hold | Gap::Skip => Rc::clone(&from.data),
        };
        Admitted { valid_time: fill.time(), offset: from.offset, data, ..frame.clone() }
    }

    /// The newest frame so far, if one at `time` begins another window behind it.
    fn parted(&self, time: Time, place: Place) -> Option<Time> {
        let (&newest, _) = self.known.last_key_value().filter(|_| place != Place::Past)?;
        let joined = between(&self.config, self.cadence, newest, time).is_some();
        (place == Place::First || !joined).then_some(newest)
    }

    /// The windows that a frame at `time` has changed.
    fn plan(&mut self, time: Time, place: Place, after: Option<Time>) -> Plan {
        let (config, cadence, history) = (&self.config, self.cadence, self.memory.history);
        let newest = self.known.last_key_value().map_or(time, |(&newest, _)| newest);
        let within = i64::from(config.revise_within.unwrap_or(0));
        let mut windows = Vec::new();
        for (&reference_time, _) in self.known.range(time..) {
            if cadence.steps(reference_time, newest) > within {
                continue;
            }
            let before = self.known.range(..reference_time).rev().map(|(&before, _)| before);
            let Some((frames, sources)) = window(config, cadence, history, reference_time, before)
            else {
                continue;
            };
            if !sources.contains(&time) {
                continue;
            }
            let issued = self.issued.get(&reference_time);
            let revision = issued.map_or(0, |revision| revision + 1);
            self.issued.insert(reference_time, revision);
            windows.push(Planned { reference_time, revision, frames });
        }
        let keep_from = self.known.first_key_value().map_or(time, |(&oldest, _)| oldest);
        let replay_from = self.arrivals.front().map_or(0, |(_, position)| position.offset);
        Plan { restart: place == Place::First, after, keep_from, windows, replay_from }
    }
}

/// Why a source could make no frame of what it read, which it passes on without pixels.
pub(super) fn unfit(frame: &Frame) -> Option<Reason> {
    let why = "the source could not decode it; its log says why";
    let unfit = frame.record.as_ref().and_then(|record| record.unfit.clone());
    unfit.or((frame.shape == [0; 3]).then(|| Reason::Undecodable { why: why.to_owned() }))
}

/// A hash of a frame's values, bit for bit: tells a duplicate from a correction. FNV-1a in
/// several lanes, since each step of one waits for the step before it.
fn content(data: &[f32]) -> u64 {
    const LANES: usize = 8;
    let step = |hash: u64, bits: u64| (hash ^ bits).wrapping_mul(0x0100_0000_01b3);
    let pair = |pair: &[f32; 2]| u64::from(pair[0].to_bits()) << 32 | u64::from(pair[1].to_bits());
    let mut lanes = [0xcbf2_9ce4_8422_2325; LANES];
    let (blocks, rest) = data.as_chunks::<{ 2 * LANES }>();
    for block in blocks {
        for (hash, values) in lanes.iter_mut().zip(block.as_chunks::<2>().0) {
            *hash = step(*hash, pair(values));
            // A product spreads upwards alone: the high halves must come down.
            *hash ^= *hash >> 32;
        }
    }
    let rest = rest.iter().fold(lanes[0], |hash, value| step(hash, value.to_bits().into()));
    lanes[1..].iter().fold(rest, |all, hash| step(all, *hash))
}
