//! Counts of values by size, that many may add to at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the sum is counted in.
const BILLIONTH: f64 = 1e-9;

/// How many values were at most each of some bounds.
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last is for what exceeds all of them.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing yet; `bounds` grow.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Adds a value that is not negative.
    pub(super) fn add(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value / BILLIONTH).round() as u64, Ordering::Relaxed);
    }

    /// What has been added so far.
    pub(super) fn read(&self) -> Tally {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            bounds: self.bounds,
            counts: self.counts.iter().map(count).collect(),
            sum: count(&self.sum) as f64 * BILLIONTH,
        }
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) bounds: &'static [f64],
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
}

impl Tally {
    /// How many values.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds the values of another of the same bounds.
    pub(super) fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            *self = other.clone();
            return;
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
    }

    /// What was added since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |at: usize| earlier.counts.get(at).copied().unwrap_or(0);
        let counts = self.counts.iter().enumerate();
        Self {
            bounds: self.bounds,
            counts: counts.map(|(at, count)| count.saturating_sub(before(at))).collect(),
            sum: (self.sum - earlier.sum).max(0.0),
        }
    }

    /// The mean value, if there is one.
    pub(super) fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// The least bound that `share` of the values do not exceed, if any bound is.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (share * self.count() as f64).ceil() as u64;
        let mut so_far = 0;
        let reached = self.counts.iter().position(|count| {
            so_far += count;
            so_far >= wanted.max(1)
        })?;
        self.bounds.get(reached).copied()
    }
}
