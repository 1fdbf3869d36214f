//! Where reference times lie in a store.

use physicnet_stream::Time;

/// The places of reference times, counted from 0 in the order in which they were stored. Kept as
/// runs of equal steps: what a sensor at its cadence stores for months takes no more than its gaps.
#[derive(Default)]
pub(super) struct Places {
    runs: Vec<Run>,
    length: usize,
    newest: Option<Time>,
}

struct Run {
    place: usize,
    first: Time,
    /// Of a run of one, nothing yet.
    step: Time,
    count: usize,
}

impl Run {
    fn find(&self, time: Time) -> Option<usize> {
        if time == self.first {
            return Some(self.place);
        }
        let past = time.checked_sub(self.first)?;
        let steps = past.checked_div(self.step).filter(|steps| steps * self.step == past)?;
        (0..self.count as Time).contains(&steps).then(|| self.place + steps as usize)
    }

    /// Whether `time` goes on with it.
    fn takes(&self, time: Time) -> bool {
        let step = time.checked_sub(self.first).filter(|step| *step != 0);
        match self.count {
            1 => step.is_some(),
            count => self.step.checked_mul(count as Time) == step,
        }
    }
}

impl Places {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Where `time` lies.
    pub(super) fn find(&self, time: Time) -> Option<usize> {
        // As a rule it is a new one.
        self.newest.filter(|newest| time <= *newest)?;
        self.runs.iter().rev().find_map(|run| run.find(time))
    }

    /// Gives `time`, which has none, the next place.
    pub(super) fn push(&mut self, time: Time) {
        match self.runs.last_mut().filter(|run| run.takes(time)) {
            Some(run) => {
                if run.count == 1 {
                    run.step = time - run.first;
                }
                run.count += 1;
            }
            None => {
                self.runs.push(Run { place: self.length, first: time, step: 0, count: 1 });
            }
        }
        self.newest = self.newest.max(Some(time));
        self.length += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    use super::*;

    fn places(times: &[Time]) -> Places {
        let mut places = Places::default();
        times.iter().for_each(|&time| places.push(time));
        places
    }

    #[test]
    fn every_time_is_found_where_it_was_put_and_no_other() {
        let mut state = 1_u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        for round in 0..200 {
            let mut known = BTreeMap::new();
            let mut times = Vec::new();
            let mut time = below(50) as Time - 25;
            for _ in 0..below(60) {
                // On at the cadence, over a gap, off the cadence, or back.
                time += match below(10) {
                    0 => 3 * 5,
                    1 => below(9) as Time,
                    2 => -(below(100) as Time),
                    _ => 5,
                };
                if let Entry::Vacant(vacant) = known.entry(time) {
                    vacant.insert(times.len());
                    times.push(time);
                }
            }
            let places = places(&times);
            assert_eq!(places.len(), times.len());
            for time in -400..400 {
                assert_eq!(places.find(time), known.get(&time).copied(), "{round} {time}");
            }
        }
        let ends = places(&[Time::MIN, Time::MAX, 0]);
        assert_eq!([Time::MIN, Time::MAX, 0].map(|t| ends.find(t)), [Some(0), Some(1), Some(2)]);
        assert_eq!([1, -1].map(|t| ends.find(t)), [None; 2]);
    }

    #[test]
    fn months_at_a_cadence_take_one_run() {
        let times: Vec<Time> = (0..100_000).map(|k| k * 300).collect();
        assert_eq!(places(&times).runs.len(), 1);
    }
}
