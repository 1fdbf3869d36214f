//! What a gate lets through, against stories told by hand and a slow obvious version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use physicnet_stream::{
    Axis, Cadence, Catalogue, Frame, Grid, Sensor, SensorId, Time, Variable, route,
};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Input, Inspect};

use super::{AdmissionConfig, Admit, Admitted, Gap, Gate, Memory};

fn gate(gap: Gap) -> Gate {
    let config = AdmissionConfig { gap, largest_gap: 2, largest_jump: 100, revise_within: None };
    Gate::new(config, Cadence::new(10).unwrap(), [1, 1, 2], Memory::of(4))
}

fn frame(time: Time, value: f32) -> Frame {
    Frame {
        sensor: "a".into(),
        valid_time: time,
        offset: time.unsigned_abs(),
        shape: [1, 1, 2],
        data: vec![value, f32::NAN],
        replay: false,
        scored: false,
        record: None,
    }
}

/// Valid time, first value and whether it was made up of each admitted frame, or the reason's
/// label.
fn judge(gate: &mut Gate, time: Time, value: f32) -> Result<Vec<(Time, f32, bool)>, &'static str> {
    let told = gate.judge(frame(time, value));
    told.map(|all| all.iter().map(|a| (a.valid_time, a.data[0], a.filled())).collect())
        .map_err(|reject| reject.reason.label())
}

/// The reference time and the revision of each window that a frame completes.
fn windows(gate: &mut Gate, time: Time, value: f32) -> Vec<(Time, u32)> {
    let admitted = gate.judge(frame(time, value)).unwrap();
    let plan = admitted.last().unwrap().plan.as_ref().unwrap();
    plan.windows.iter().map(|window| (window.reference_time, window.revision)).collect()
}

#[test]
fn frames_in_order_pass() {
    let mut gate = gate(Gap::Hold);
    assert_eq!(judge(&mut gate, 0, 1.0), Ok(vec![(0, 1.0, false)]));
    assert_eq!(judge(&mut gate, 12, 2.0), Ok(vec![(12, 2.0, false)]));
}

#[test]
fn gaps_follow_the_policy() {
    let mut hold = gate(Gap::Hold);
    let mut line = gate(Gap::Interpolate);
    let mut skip = gate(Gap::Skip);
    for gate in [&mut hold, &mut line, &mut skip] {
        judge(gate, 0, 1.0).unwrap();
    }
    let last = (30, 4.0, false);
    let held = vec![(10, 1.0, true), (20, 1.0, true), last];
    assert_eq!(judge(&mut hold, 30, 4.0), Ok(held));
    let between = vec![(10, 2.0, true), (20, 3.0, true), last];
    assert_eq!(judge(&mut line, 30, 4.0), Ok(between));
    assert_eq!(judge(&mut skip, 30, 4.0), Ok(vec![(30, 4.0, false)]));
    // A window has four frames; too long a gap is in none.
    assert_eq!(windows(&mut hold, 40, 4.0), [(40, 0)]);
    assert_eq!(judge(&mut hold, 80, 5.0), Ok(vec![(80, 5.0, false)]));
    for time in [90, 100] {
        assert_eq!(windows(&mut hold, time, 5.0), []);
    }
    assert_eq!(windows(&mut hold, 110, 5.0), [(110, 0)]);
    for time in [40, 50] {
        assert_eq!(windows(&mut skip, time, 5.0), []);
    }
    assert_eq!(windows(&mut skip, 60, 5.0), [(60, 0)]);
}

#[test]
fn a_gap_is_missing_where_a_frame_beside_it_is() {
    let (held, between) = ([f32::NAN, 3.0, 5.0], [f32::NAN, f32::NAN, 7.0]);
    for (gap, expected) in [(Gap::Hold, held), (Gap::Interpolate, between)] {
        let frame = |time, values: [f32; 3]| Frame {
            shape: [1, 1, 3],
            data: values.to_vec(),
            ..frame(time, 0.0)
        };
        let config = AdmissionConfig { gap, ..AdmissionConfig::default() };
        let memory = Memory { history: 4, pending: 0 };
        let mut gate = Gate::new(config, Cadence::new(10).unwrap(), [1, 1, 3], memory);
        gate.judge(frame(0, [f32::NAN, 3.0, 5.0])).unwrap();
        let told = gate.judge(frame(20, [1.0, f32::NAN, 9.0])).unwrap();
        let [filled, last] = &told[..] else { panic!("{told:?}") };
        assert!(filled.filled() && !last.filled() && filled.valid_time == 10);
        let same = |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan();
        assert!(filled.data.iter().zip(&expected).all(same), "{gap:?}: {:?}", filled.data);
    }
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
    assert_eq!(judge(&mut gate, 10, 3.0), Ok(vec![(10, 3.0, false)]));
    assert_eq!(judge(&mut gate, 5_010, 2.0), Err("absurd_time"));
    assert_eq!(judge(&mut gate, 5_020, 2.0), Ok(vec![(5_020, 2.0, false)]));
    assert_eq!(judge(&mut gate, i64::MIN, 2.0), Err("absurd_time"));
    assert_eq!(judge(&mut gate, i64::MAX, 2.0), Err("absurd_time"));
}

#[test]
fn the_window_of_a_gate_puts_another_where_it_is() {
    // Time and offset of what comes; some of it is refused.
    let times = [0, 10, 5, 20, 60, 70, 70, 5_000, 80, 9_000, 9_010, 9_020, 8_000, 9_030, 2];
    for stop in 0..times.len() {
        for (gap, revise_within, pending) in
            [(Gap::Hold, None, 0), (Gap::Skip, Some(1), 0), (Gap::Interpolate, Some(3), 9)]
        {
            let coming = |at: usize| Frame { offset: at as u64, ..frame(times[at], at as f32) };
            let gate = || {
                let config = AdmissionConfig { gap, revise_within, ..AdmissionConfig::default() };
                let memory = Memory { history: 4, pending };
                Gate::new(config, Cadence::new(10).unwrap(), [1, 1, 2], memory)
            };
            let mut whole = gate();
            (0..stop).for_each(|at| _ = whole.judge(coming(at)));
            let mut again = gate();
            let window = whole.window();
            window.iter().for_each(|from| _ = again.judge(coming(from.offset as usize)));
            assert_eq!(again.window(), window);
            for at in stop..times.len() {
                // As text: a missing pixel equals none.
                let [told, expected] =
                    [&mut again, &mut whole].map(|gate| format!("{:?}", gate.judge(coming(at))));
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

#[test]
fn a_late_frame_revises_the_windows_that_it_changes() {
    let config = AdmissionConfig { revise_within: Some(2), ..AdmissionConfig::default() };
    let mut gate = Gate::new(config, Cadence::new(10).unwrap(), [1, 1, 2], Memory::of(2));
    assert_eq!(windows(&mut gate, 0, 0.0), []);
    assert_eq!(windows(&mut gate, 10, 1.0), [(10, 0)]);
    assert_eq!(windows(&mut gate, 30, 3.0), [(30, 0)], "20 is held");
    assert_eq!(windows(&mut gate, 20, 2.0), [(20, 0), (30, 1)]);
    assert_eq!(judge(&mut gate, 20, 2.0), Err("duplicate"));
    assert_eq!(windows(&mut gate, 40, 4.0), [(40, 0)]);
    assert_eq!(windows(&mut gate, 20, 2.5), [(20, 1), (30, 2)]);
    assert_eq!(windows(&mut gate, 50, 5.0), [(50, 0)]);
    assert_eq!(windows(&mut gate, 20, 2.0), [(30, 3)], "20 is too old to be revised itself");
    assert_eq!(windows(&mut gate, 60, 6.0), [(60, 0)]);
    assert_eq!(judge(&mut gate, 20, 2.5), Err("corrected"));
    assert_eq!(judge(&mut gate, 33, 3.3), Err("late"), "of the step of 30");
}

/// What comes of a sensor: the step and the value of each frame, in the order of arrival.
struct Story {
    history: usize,
    gap: Gap,
    within: u32,
    arrivals: Vec<(i64, f32)>,
}

/// A small generator: the tests need no more.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

impl Story {
    /// Frames, repeats and corrections, none of them later than `within` steps.
    fn tell(seed: u64) -> Self {
        Self::tell_under(seed, seed)
    }

    /// The same, under the rules of the story of another seed.
    fn tell_under(rules: u64, seed: u64) -> Self {
        let begin = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut state = begin(rules);
        let within = 1 + draw(&mut state, 5) as u32;
        let gap = [Gap::Skip, Gap::Hold, Gap::Interpolate][draw(&mut state, 3) as usize];
        let history = 1 + draw(&mut state, 4) as usize;
        let mut state = begin(seed);
        let mut drawn = Vec::new();
        for step in 0..30 {
            if draw(&mut state, 100) < 25 {
                continue;
            }
            let mut place = step + draw(&mut state, u64::from(within) + 1) as i64;
            drawn.push((place, (step, draw(&mut state, 1 << 24) as f32)));
            while place < step + i64::from(within) && draw(&mut state, 100) < 25 {
                place += 1;
                let repeated = drawn.last().map_or(0.0, |(_, (_, value))| *value);
                let corrected = draw(&mut state, 1 << 24) as f32;
                let value = if draw(&mut state, 3) == 0 { repeated } else { corrected };
                drawn.push((place, (step, value)));
            }
        }
        drawn.sort_by_key(|(place, _)| *place);
        Self { history, gap, within, arrivals: drawn.into_iter().map(|(_, frame)| frame).collect() }
    }

    fn config(&self) -> AdmissionConfig {
        AdmissionConfig {
            gap: self.gap,
            revise_within: Some(self.within),
            ..AdmissionConfig::default()
        }
    }

    fn gate(&self) -> Gate {
        Gate::new(self.config(), Cadence::new(10).unwrap(), [1, 1, 2], Memory::of(self.history))
    }

    fn frame(&self, at: usize) -> Frame {
        let (step, value) = self.arrivals[at];
        Frame { offset: at as u64, ..frame(step * 10 + step * 7 % 5 - 2, value) }
    }

    /// What windows would finally hold, by the step of their reference time: from nothing but
    /// the last version of each frame.
    fn finally(&self) -> BTreeMap<i64, Vec<f32>> {
        let frames: BTreeMap<i64, f32> = self.arrivals.iter().copied().collect();
        let value = |step: i64| {
            let (before, a) = frames.range(..=step).next_back()?;
            let (after, b) = frames.range(step..).next()?;
            if before == after {
                return Some(*a);
            }
            let along = (step - before) as f32 / (after - before) as f32;
            match self.gap {
                _ if after - before > 3 => None,
                Gap::Skip => None,
                Gap::Hold => Some(*a),
                Gap::Interpolate => Some(a + (b - a) * along),
            }
        };
        let window = |&end: &i64| {
            let steps = end + 1 - self.history as i64..=end;
            Some((end, steps.map(value).collect::<Option<Vec<_>>>()?))
        };
        frames.keys().filter_map(window).collect()
    }
}

/// What windowing keeps, by valid time, and the last window of each reference time.
#[derive(Default)]
struct Windows {
    slots: BTreeMap<Time, f32>,
    last: BTreeMap<i64, (u32, Vec<f32>)>,
}

impl Windows {
    fn take(&mut self, gate: &mut Gate, frame: Frame, replay: bool) {
        let Ok(admitted) = gate.judge(frame) else { return };
        assert!(admitted.last().is_some_and(|frame| frame.plan.is_some()));
        admitted.iter().for_each(|frame| self.admit(frame, replay));
    }

    fn admit(&mut self, frame: &Admitted, replay: bool) {
        self.slots.insert(frame.valid_time, frame.data[0]);
        let Some(plan) = &frame.plan else { return };
        assert!(!plan.restart || self.slots.len() == 1);
        self.slots = self.slots.split_off(&plan.keep_from);
        if replay {
            return;
        }
        for window in &plan.windows {
            let values: Vec<f32> = window.frames.iter().map(|time| self.slots[time]).collect();
            let step = (window.reference_time + 5).div_euclid(10);
            let before = self.last.insert(step, (window.revision, values.clone()));
            let revision = before.as_ref().map_or(0, |(revision, _)| revision + 1);
            assert_eq!(window.revision, revision, "each revision once");
            assert!(
                before.as_ref().is_none_or(|(_, before)| *before != values),
                "nothing is revised in vain"
            );
        }
    }
}

#[test]
fn any_order_of_arrival_ends_with_the_same_windows() {
    for seed in 0..5_000 {
        let story = Story::tell(seed);
        let (mut gate, mut windows) = (story.gate(), Windows::default());
        let mut state = seed + 1;
        for at in 0..story.arrivals.len() {
            windows.take(&mut gate, story.frame(at), false);
            if draw(&mut state, 10) == 0 {
                // A restart: nothing is left but where to read again.
                let again = gate.window();
                (gate, windows.slots) = (story.gate(), BTreeMap::new());
                let frames = again.iter().map(|from| story.frame(from.offset as usize));
                frames.for_each(|frame| windows.take(&mut gate, frame, true));
                assert_eq!(gate.window(), again);
            }
        }
        let last = windows.last.into_iter().map(|(step, (_, values))| (step, values));
        assert_eq!(last.collect::<BTreeMap<_, _>>(), story.finally(), "story {seed}");
    }
}

#[test]
fn any_order_of_arrival_ends_with_the_same_windows_for_any_workers() {
    for seed in 0..500 {
        let workers = 1 + seed as usize % 3;
        let stories: Vec<Story> = (0..3).map(|k| Story::tell_under(seed, 3 * seed + k)).collect();
        let name = |k: usize| SensorId::from(format!("s{k}"));
        let sensors = (0..stories.len()).map(|k| {
            let variables = vec![Variable { name: "u".into(), units: "1".into() }];
            let grid = Grid { variables, y: Axis::index("y", 1), x: Axis::index("x", 2) };
            Arc::new(Sensor { id: name(k), grid, cadence: Cadence::new(10).unwrap() })
        });
        let (catalogue, config) = (Catalogue::from_iter(sensors), stories[0].config());
        let memory = Memory::of(stories[0].history);
        // Each sensor is read by some worker, one frame an epoch, and owned by another.
        let mut epochs = Vec::<Vec<Frame>>::new();
        for (k, story) in stories.iter().enumerate() {
            epochs.resize_with(epochs.len().max(story.arrivals.len()), Vec::new);
            for (at, epoch) in epochs.iter_mut().take(story.arrivals.len()).enumerate() {
                epoch.push(Frame { sensor: name(k), ..story.frame(at) });
            }
        }
        let reader = move |sensor: &SensorId, peers: usize| {
            (route(sensor) as usize / peers + seed as usize) % peers
        };
        let told = Arc::new(Mutex::new(BTreeMap::<SensorId, Windows>::new()));
        let hearing = Arc::clone(&told);
        let run = move |worker: &mut timely::worker::Worker| {
            let (index, peers) = (worker.index(), worker.peers());
            let hearing = Arc::clone(&hearing);
            let mut input = InputHandleVec::<u64, Frame>::new();
            worker.dataflow(|scope| {
                let judged = scope.input_from(&mut input).admit(&config, &catalogue, memory);
                judged.admitted.inspect(move |frame| {
                    let mut told = hearing.lock().unwrap();
                    told.entry(frame.sensor.clone()).or_default().admit(frame, false);
                });
            });
            for (epoch, frames) in epochs.iter().enumerate() {
                let own = frames.iter().filter(|frame| reader(&frame.sensor, peers) == index);
                own.for_each(|frame| input.send(frame.clone()));
                input.advance_to(epoch as u64 + 1);
                worker.step();
            }
        };
        let workers = timely::execute(timely::Config::process(workers), run).unwrap();
        workers.join().into_iter().for_each(|outcome| outcome.unwrap());
        let told = std::mem::take(&mut *told.lock().unwrap());
        for (k, story) in stories.iter().enumerate() {
            let last =
                told[&name(k)].last.iter().map(|(step, (_, values))| (*step, values.clone()));
            assert_eq!(last.collect::<BTreeMap<_, _>>(), story.finally(), "story {seed}, s{k}");
        }
    }
}
