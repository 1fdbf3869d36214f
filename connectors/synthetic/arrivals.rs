//! In which order the frames of a sensor come.

use std::collections::VecDeque;

use super::Faults;
use super::faults::Course;

/// One coming of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Which frame.
    pub(super) frame: u64,
    /// Whether all of it comes.
    pub(super) whole: bool,
}

/// All comings of a sensor's frames, in order; known without the frames.
///
/// A slot follows each step of the cadence: in it comes the frame of that step, and behind it what
/// was late, or comes again, after this many newer frames.
pub(super) struct Arrivals {
    faults: Faults,
    /// The seed and the sensor's index.
    key: [u64; 2],
    frames: Option<u64>,
    slot: u64,
    /// What still comes in this slot; empty after the end alone.
    queue: VecDeque<Arrival>,
    offset: u64,
}

impl Arrivals {
    pub(super) fn new(faults: &Faults, key: [u64; 2], frames: Option<u64>) -> Self {
        let (faults, queue) = (faults.clone(), VecDeque::new());
        let mut arrivals = Self { faults, key, frames, slot: 0, queue, offset: 0 };
        arrivals.queue = arrivals.coming();
        arrivals.settle();
        arrivals
    }

    /// The next one, unless all have come.
    pub(super) fn next(&self) -> Option<Arrival> {
        self.queue.front().copied()
    }

    /// How many have come.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The newest frame that has been measured when the next one comes.
    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// Goes on to the one after the next.
    pub(super) fn pass(&mut self) {
        self.offset += u64::from(self.queue.pop_front().is_some());
        self.settle();
    }

    /// Whether `frame` comes, or comes again, after newer ones, and not before this slot.
    pub(super) fn awaits(&self, frame: u64) -> bool {
        let course = self.faults.course(self.key, frame, self.frames);
        course.behind().is_some_and(|delay| frame + delay >= self.slot)
    }

    /// Opens slots until something comes, or to the end.
    fn settle(&mut self) {
        while self.queue.is_empty() && self.frames.is_none_or(|frames| self.slot < frames) {
            self.slot += 1;
            self.queue = self.coming();
        }
    }

    /// What comes in this slot.
    fn coming(&self) -> VecDeque<Arrival> {
        let slot = self.slot;
        if self.frames.is_some_and(|frames| slot >= frames) {
            return VecDeque::new();
        }
        let ordered = self.faults.of_order().iter().all(|(_, share)| *share == 0.0);
        if ordered {
            return VecDeque::from([Arrival { frame: slot, whole: true }]);
        }
        let course = |frame| self.faults.course(self.key, frame, self.frames);
        let prompt = match course(slot) {
            Course::Prompt | Course::Again(_) => Some(true),
            Course::Corrected(_) => Some(false),
            Course::Late(_) => None,
        };
        let prompt = prompt.map(|whole| Arrival { frame: slot, whole });
        let behind = slot.saturating_sub(self.faults.delay)..slot;
        let behind = behind.filter(|frame| course(*frame).behind() == Some(slot - frame));
        prompt.into_iter().chain(behind.map(|frame| Arrival { frame, whole: true })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(faults: &Faults, sensor: u64, frames: u64) -> Vec<Arrival> {
        let mut arrivals = Arrivals::new(faults, [7, sensor], Some(frames));
        let mut all = Vec::new();
        while let Some(arrival) = arrivals.next() {
            assert_eq!(arrivals.offset(), all.len() as u64);
            all.push(arrival);
            arrivals.pass();
        }
        all
    }

    #[test]
    fn without_faults_frames_come_once_and_in_order() {
        let plain = |frame| Arrival { frame, whole: true };
        assert_eq!(all(&Faults::default(), 0, 5), (0..5).map(plain).collect::<Vec<_>>());
        assert_eq!(all(&Faults::default(), 0, 0), []);
    }

    #[test]
    fn every_frame_comes_whole_and_as_often_as_its_course_says() {
        let faults =
            Faults { late: 0.2, duplicate: 0.1, corrected: 0.1, delay: 3, ..Faults::default() };
        let (frames, mut seen) = (4000, [0_usize; 3]);
        let all = all(&faults, 1, frames);
        for frame in 0..frames {
            let places: Vec<usize> = (0..all.len()).filter(|at| all[*at].frame == frame).collect();
            let whole: Vec<bool> = places.iter().map(|at| all[*at].whole).collect();
            let newest = |at: usize| all[..at].iter().map(|other| other.frame).max().unwrap_or(0);
            match faults.course([7, 1], frame, Some(frames)) {
                Course::Prompt => {
                    assert_eq!(whole, [true]);
                    assert!(newest(places[0]) <= frame);
                }
                Course::Late(delay) => {
                    assert_eq!(whole, [true]);
                    // Right behind that one, which is prompt, and so behind a newer one for sure.
                    assert_eq!(newest(places[0]), frame + delay);
                    seen[0] += 1;
                }
                Course::Again(delay) => {
                    assert_eq!(whole, [true, true]);
                    assert!(newest(places[0]) <= frame && newest(places[1]) <= frame + delay);
                    seen[1] += 1;
                }
                Course::Corrected(delay) => {
                    assert_eq!(whole, [false, true]);
                    assert!(newest(places[0]) <= frame && newest(places[1]) <= frame + delay);
                    seen[2] += 1;
                }
            }
        }
        // A late one is lost where the one before which it should come is late as well.
        let share = |count: usize| count as f64 / frames as f64;
        assert!((share(seen[0]) - 0.2 * 0.8).abs() < 0.02, "{seen:?}");
        assert!((share(seen[1]) - 0.1).abs() < 0.02 && (share(seen[2]) - 0.1).abs() < 0.02);
    }

    #[test]
    fn all_late_is_no_order_at_all_and_ends_all_the_same() {
        let faults = Faults { late: 1.0, delay: 5, ..Faults::default() };
        // Whatever is drawn, there is nothing prompt to come behind.
        let frames: Vec<u64> = all(&faults, 0, 20).iter().map(|arrival| arrival.frame).collect();
        assert_eq!(frames, (0..20).collect::<Vec<_>>());
    }
}
