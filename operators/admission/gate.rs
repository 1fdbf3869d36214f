//! One sensor's gate: a pure state machine from frames to what is used and what is not.

use std::collections::VecDeque;
use std::rc::Rc;

use physicnet_stream::{Cadence, Frame, Position, Reason, Reject, SensorId, Time};
use serde::{Deserialize, Serialize};

/// What stands in for frames that the cadence says are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// The policy for missing frames.
    pub gap: Gap,
    /// The most consecutive missing frames that are filled; a longer gap starts the window anew.
    pub largest_gap: u32,
    /// A step of more cadences than this, either way, is taken for a wrong clock, unless the
    /// next frame follows it.
    pub largest_jump: u32,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { gap: Gap::Hold, largest_gap: 2, largest_jump: 100 }
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
    /// Made up by the gap policy: it enters the window but no forecast starts from it.
    pub filled: bool,
    /// Read again after a restart: it enters the window but no forecast starts from it.
    pub replay: bool,
    /// The window starts anew with this frame.
    pub restart: bool,
}

/// The order of one sensor's frames.
pub struct Gate {
    config: AdmissionConfig,
    cadence: Cadence,
    shape: [usize; 3],
    /// The newest frame, without a gap before it.
    last: Option<Admitted>,
    /// The frames that a duplicate or a correction may repeat.
    seen: VecDeque<Seen>,
    remember: usize,
    /// The valid time of a rejected jump: if the next frame follows it, the clock was right.
    jumped: Option<(Time, Position)>,
}

/// What is remembered of an admitted frame.
struct Seen {
    valid_time: Time,
    content: u64,
    position: Position,
}

impl Gate {
    /// A gate for frames of `shape` at `cadence` that tells duplicates among the last
    /// `remember` frames.
    pub fn new(
        config: AdmissionConfig,
        cadence: Cadence,
        shape: [usize; 3],
        remember: usize,
    ) -> Self {
        let seen = VecDeque::with_capacity(remember + 1);
        Self { config, cadence, shape, last: None, seen, remember, jumped: None }
    }

    /// Judges one frame: what to use now, oldest first, or why not.
    pub fn judge(&mut self, frame: Frame) -> Result<Vec<Admitted>, Box<Reject>> {
        match self.verdict(&frame) {
            Ok(steps) => Ok(self.admit(frame, steps)),
            Err(reason) => Err(Box::new(Reject { frame, reason })),
        }
    }

    /// The frames that put a new gate where this one is, in the order in which they came.
    ///
    /// An admitted frame ends a pending jump, and windows hold no more frames than are
    /// remembered: so the remembered ones, and a jump after them, are all that counts.
    pub fn window(&self) -> Vec<Position> {
        let seen = self.seen.iter().map(|seen| &seen.position);
        seen.chain(self.jumped.iter().map(|(_, position)| position)).cloned().collect()
    }

    /// How many cadences after the last frame it lies; 0 starts the window anew.
    fn verdict(&mut self, frame: &Frame) -> Result<u32, Reason> {
        if let Some(why) = undecodable(frame) {
            return Err(Reason::Undecodable { why });
        }
        let count = frame.shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
        if frame.shape != self.shape || count != Some(frame.data.len()) {
            return Err(Reason::Misshapen { expected: self.shape });
        }
        let Some(last) = &self.last else { return Ok(0) };
        let newest = last.valid_time;
        let steps = self.cadence.steps(newest, frame.valid_time);
        let largest_jump = i64::from(self.config.largest_jump);
        if steps.abs() > largest_jump {
            let after_jump = |from: Time| {
                let steps = self.cadence.steps(from, frame.valid_time);
                (1..=i64::from(self.config.largest_gap) + 1).contains(&steps)
            };
            if self.jumped.as_ref().is_some_and(|(time, _)| after_jump(*time)) {
                self.jumped = None;
                // Too far away to be repeated, and no way leads from them to here.
                self.seen.clear();
                return Ok(0);
            }
            self.jumped = Some((frame.valid_time, frame.position()));
            return Err(Reason::AbsurdTime { newest });
        }
        if steps > 0 {
            self.jumped = None;
            return Ok(if steps <= i64::from(self.config.largest_gap) + 1 {
                steps as u32
            } else {
                0
            });
        }
        let content = content(frame);
        match self.seen.iter().find(|seen| seen.valid_time == frame.valid_time) {
            Some(seen) if seen.content == content => Err(Reason::Duplicate),
            Some(_) => Err(Reason::Corrected),
            None => Err(Reason::Late { newest }),
        }
    }

    fn admit(&mut self, frame: Frame, steps: u32) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        let mut restart = steps == 0;
        if steps > 1 {
            match (&self.last, self.config.gap) {
                (Some(last), Gap::Hold | Gap::Interpolate) => {
                    for step in 1..steps {
                        admitted.push(fill(self.config.gap, last, &frame, step, steps));
                    }
                }
                _ => restart = true,
            }
        }
        self.seen.push_back(Seen {
            valid_time: frame.valid_time,
            content: content(&frame),
            position: frame.position(),
        });
        if self.seen.len() > self.remember {
            self.seen.pop_front();
        }
        // The message has done its work: what is kept is the frame.
        let Frame { sensor, valid_time, offset, shape, data, replay, record: _ } = frame;
        let (data, filled) = (Rc::new(data), false);
        let last = Admitted { sensor, valid_time, offset, shape, data, filled, replay, restart };
        self.last = Some(last.clone());
        admitted.push(last);
        admitted
    }
}

/// The stand-in for the frame `step` cadences after `last`, of `steps` to `next`.
fn fill(gap: Gap, last: &Admitted, next: &Frame, step: u32, steps: u32) -> Admitted {
    let along = step as f32 / steps as f32;
    let data = match gap {
        Gap::Interpolate => {
            let pairs = last.data.iter().zip(&next.data);
            Rc::new(pairs.map(|(a, b)| a + (b - a) * along).collect())
        }
        Gap::Hold | Gap::Skip => Rc::clone(&last.data),
    };
    // Between the two in time, so that leads stay close to the real valid times.
    let span = i128::from(next.valid_time) - i128::from(last.valid_time);
    let valid_time = last.valid_time + (span * i128::from(step) / i128::from(steps)) as i64;
    let (filled, replay, restart) = (true, next.replay, false);
    Admitted { valid_time, data, filled, replay, restart, ..last.clone() }
}

/// Why a source could not decode a frame, which it passes on without pixels.
pub(super) fn undecodable(frame: &Frame) -> Option<String> {
    let why = "the source could not decode it; its log says why";
    let unfit = frame.record.as_ref().and_then(|record| record.unfit.clone());
    unfit.or((frame.shape == [0; 3]).then(|| why.to_owned()))
}

/// A hash of a frame's values, bit for bit: tells a duplicate from a correction. FNV-1a in
/// several lanes, since each step of one waits for the step before it.
fn content(frame: &Frame) -> u64 {
    const LANES: usize = 8;
    let step = |hash: u64, bits: u64| (hash ^ bits).wrapping_mul(0x0100_0000_01b3);
    let pair = |pair: &[f32; 2]| u64::from(pair[0].to_bits()) << 32 | u64::from(pair[1].to_bits());
    let mut lanes = [0xcbf2_9ce4_8422_2325; LANES];
    let (blocks, rest) = frame.data.as_chunks::<{ 2 * LANES }>();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(gap: Gap) -> Gate {
        let config = AdmissionConfig { gap, largest_gap: 2, largest_jump: 100 };
        Gate::new(config, Cadence::new(10).unwrap(), [1, 1, 2], 4)
    }

    fn frame(time: Time, value: f32) -> Frame {
        Frame {
            sensor: "a".into(),
            valid_time: time,
            offset: time.unsigned_abs(),
            shape: [1, 1, 2],
            data: vec![value, f32::NAN],
            replay: false,
            record: None,
        }
    }

    /// Valid time, first value, filled and restart of each admitted frame, or the reason's label.
    fn judge(
        gate: &mut Gate,
        time: Time,
        value: f32,
    ) -> Result<Vec<(Time, f32, bool, bool)>, &'static str> {
        let told = gate.judge(frame(time, value));
        told.map(|all| all.iter().map(|a| (a.valid_time, a.data[0], a.filled, a.restart)).collect())
            .map_err(|reject| reject.reason.label())
    }

    #[test]
    fn frames_in_order_pass() {
        let mut gate = gate(Gap::Hold);
        assert_eq!(judge(&mut gate, 0, 1.0), Ok(vec![(0, 1.0, false, true)]));
        assert_eq!(judge(&mut gate, 12, 2.0), Ok(vec![(12, 2.0, false, false)]));
    }

    #[test]
    fn gaps_follow_the_policy() {
        let mut hold = gate(Gap::Hold);
        let mut line = gate(Gap::Interpolate);
        let mut skip = gate(Gap::Skip);
        for gate in [&mut hold, &mut line, &mut skip] {
            judge(gate, 0, 1.0).unwrap();
        }
        let last = (30, 4.0, false, false);
        let held = vec![(10, 1.0, true, false), (20, 1.0, true, false), last];
        assert_eq!(judge(&mut hold, 30, 4.0), Ok(held));
        let between = vec![(10, 2.0, true, false), (20, 3.0, true, false), last];
        assert_eq!(judge(&mut line, 30, 4.0), Ok(between));
        assert_eq!(judge(&mut skip, 30, 4.0), Ok(vec![(30, 4.0, false, true)]));
        assert_eq!(judge(&mut hold, 70, 5.0), Ok(vec![(70, 5.0, false, true)]));
    }

    #[test]
    fn what_repeats_is_told_apart() {
        let mut gate = gate(Gap::Hold);
        for time in 0..3 {
            judge(&mut gate, time * 10, time as f32).unwrap();
        }
        assert_eq!(judge(&mut gate, 10, 1.0), Err("duplicate"));
        assert_eq!(judge(&mut gate, 10, 7.0), Err("corrected"));
        assert_eq!(judge(&mut gate, 20, 7.0), Err("corrected"));
        assert_eq!(judge(&mut gate, 13, 7.0), Err("late"));
        assert_eq!(judge(&mut gate, -50, 7.0), Err("late"));
    }

    #[test]
    fn a_wrong_clock_is_refused_and_a_moved_one_believed() {
        let mut gate = gate(Gap::Hold);
        judge(&mut gate, 0, 1.0).unwrap();
        assert_eq!(judge(&mut gate, 5_000, 2.0), Err("absurd_time"));
        assert_eq!(judge(&mut gate, 10, 3.0), Ok(vec![(10, 3.0, false, false)]));
        assert_eq!(judge(&mut gate, 5_010, 2.0), Err("absurd_time"));
        assert_eq!(judge(&mut gate, 5_020, 2.0), Ok(vec![(5_020, 2.0, false, true)]));
        assert_eq!(judge(&mut gate, i64::MIN, 2.0), Err("absurd_time"));
        assert_eq!(judge(&mut gate, i64::MAX, 2.0), Err("absurd_time"));
    }

    #[test]
    fn the_window_of_a_gate_puts_another_where_it_is() {
        // Time and offset of what comes; some of it is refused.
        let times = [0, 10, 5, 20, 60, 70, 70, 5_000, 80, 9_000, 9_010, 9_020, 8_000, 9_030, 2];
        for stop in 0..times.len() {
            for gap in [Gap::Hold, Gap::Skip] {
                let coming = |at: usize| Frame { offset: at as u64, ..frame(times[at], at as f32) };
                let mut whole = gate(gap);
                (0..stop).for_each(|at| _ = whole.judge(coming(at)));
                let mut again = gate(gap);
                let window = whole.window();
                window.iter().for_each(|from| _ = again.judge(coming(from.offset as usize)));
                assert_eq!(again.window(), window);
                for at in stop..times.len() {
                    // As text: a missing pixel equals none.
                    let [told, expected] = [&mut again, &mut whole]
                        .map(|gate| format!("{:?}", gate.judge(coming(at))));
                    assert_eq!(told, expected, "{stop}, {at}, {gap:?}");
                }
            }
        }
    }

    #[test]
    fn misshapen_frames_are_refused() {
        let mut gate = gate(Gap::Hold);
        let mut wrong = frame(0, 1.0);
        wrong.shape = [1, 2, 1];
        assert_eq!(gate.judge(wrong).unwrap_err().reason.label(), "misshapen");
        let mut nothing = frame(0, 1.0);
        (nothing.shape, nothing.data) = ([0; 3], Vec::new());
        assert_eq!(gate.judge(nothing).unwrap_err().reason.label(), "undecodable");
        let mut short = frame(0, 1.0);
        short.data.pop();
        assert_eq!(gate.judge(short).unwrap_err().reason.label(), "misshapen");
        let mut huge = frame(0, 1.0);
        huge.shape = [usize::MAX, usize::MAX, 2];
        assert_eq!(gate.judge(huge).unwrap_err().reason.label(), "misshapen");
    }
}
