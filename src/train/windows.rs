//! Which windows there are, and which part of the data each belongs to.

use physicnet_stream::{Cadence, Time};

use super::config::Split;
use super::footage::Footage;
use super::rng::Rng;

/// A window: `history + horizon` consecutive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Window {
    /// Which store.
    pub(crate) store: usize,
    /// Which of its sensors.
    pub(crate) sensor: usize,
    /// Its oldest frame.
    pub(crate) start: usize,
}

/// The windows of one part, by store, and how often each store is drawn from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    windows: Vec<Vec<(u32, u32)>>,
    weights: Vec<f64>,
}

impl Part {
    /// How many windows there are.
    pub(crate) fn len(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// A window at random: a store by weight, then any of its windows.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Option<Window> {
        let total: f64 = self.weights.iter().sum();
        let mut left = rng.uniform() * total;
        let filled = (0..self.windows.len()).filter(|&s| !self.windows[s].is_empty());
        let mut chosen = None;
        for store in filled {
            chosen = Some(store);
            left -= self.weights[store];
            if left < 0.0 {
                break;
            }
        }
        let store = chosen?;
        let (sensor, start) = self.windows[store][rng.below(self.windows[store].len())];
        Some(Window { store, sensor: sensor as usize, start: start as usize })
    }

    /// At most `count` windows, evenly over all of them.
    pub(crate) fn evenly(&self, count: usize) -> Vec<Window> {
        let flat = self.windows.iter().enumerate().flat_map(|(store, windows)| {
            let window = move |&(sensor, start): &(u32, u32)| Window {
                store,
                sensor: sensor as usize,
                start: start as usize,
            };
            windows.iter().map(window)
        });
        let all: Vec<Window> = flat.collect();
        let count = count.min(all.len());
        (0..count).map(|i| all[(2 * i + 1) * all.len() / (2 * count)]).collect()
    }
}

/// The training and the validation part of some stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    /// What trains.
    pub(crate) train: Part,
    /// What validates.
    pub(crate) validation: Part,
    /// The training frames, `(store, sensor, first, end)`: what statistics may see.
    pub(crate) spans: Vec<(usize, usize, usize, usize)>,
}

/// Parts the stores. `weights` holds, by store, how often it is drawn from; by default its
/// number of training windows.
pub(crate) fn part(
    stores: &[Box<dyn Footage>],
    weights: &[Option<f64>],
    split: &Split,
    length: usize,
) -> Parts {
    let mut parts = Parts::default();
    for (s, store) in stores.iter().enumerate() {
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        let sensors = store.sensors();
        for (i, sensor) in sensors.iter().enumerate() {
            let times = store.times(i);
            let (a, b) = match *split {
                Split::Time { train, validation } => borders(times.len(), train, validation),
                Split::Sensor { train, validation } => {
                    let (a, b) = borders(sensors.len(), train, validation);
                    (if i < a { times.len() } else { 0 }, if i < b { times.len() } else { 0 })
                }
            };
            let found = |from: usize, to: usize| {
                starts(&times[from..to], sensor.cadence, length)
                    .map(move |start| (i as u32, (from + start) as u32))
            };
            train.extend(found(0, a));
            validation.extend(found(a, b));
            if a > 0 {
                parts.spans.push((s, i, 0, a));
            }
        }
        let weight = weights.get(s).copied().flatten().unwrap_or(train.len() as f64);
        parts.train.weights.push(if train.is_empty() { 0.0 } else { weight });
        parts.validation.weights.push(validation.len() as f64);
        parts.train.windows.push(train);
        parts.validation.windows.push(validation);
    }
    parts
}

/// Where the first two of three parts of `n` things end.
fn borders(n: usize, first: f64, second: f64) -> (usize, usize) {
    // 0.6 of 50 is 30 though 0.6 * 50 rounds below it.
    let at = |share: f64| ((share * n as f64 + 1e-6) as usize).min(n);
    (at(first), at(first + second))
}

/// Starts of `length` frames that follow each other at the cadence, without a gap.
fn starts(times: &[Time], cadence: Cadence, length: usize) -> impl Iterator<Item = usize> {
    let mut run = 0;
    let mut ends = Vec::new();
    for (i, &time) in times.iter().enumerate() {
        let follows = i > 0 && cadence.steps(times[i - 1], time) == 1;
        run = if follows { run + 1 } else { 1 };
        if run >= length {
            ends.push(i + 1 - length);
        }
    }
    ends.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_cross_gaps() {
        let cadence = Cadence::new(10).unwrap();
        let found: Vec<usize> = starts(&[0, 10, 21, 40, 50, 60, 70], cadence, 3).collect();
        assert_eq!(found, [0, 3, 4]);
        assert_eq!(starts(&[0, 10], cadence, 3).count(), 0);
    }

    #[test]
    fn parts_are_whole() {
        assert_eq!(borders(50, 0.6, 0.2), (30, 40));
        assert_eq!(borders(10, 0.7, 0.3), (7, 10));
        assert_eq!(borders(0, 0.7, 0.3), (0, 0));
    }
}
