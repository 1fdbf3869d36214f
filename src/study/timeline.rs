//! Counts over time in a bounded number of bins, whatever the period is.

use std::collections::BTreeMap;

use physicnet_stream::Time;

/// The most bins.
const BINS: i64 = 48;

/// How often each of some things was seen, by time. Bins double their width when there would be too
/// many; a wider one is exactly the two that it replaces, so the order of what comes cannot be seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    width: i64,
    bins: BTreeMap<i64, Vec<u64>>,
}

impl Timeline {
    /// One whose bins are `width` nanoseconds at first.
    pub fn new(width: i64) -> Self {
        Self { width: width.max(1), bins: BTreeMap::new() }
    }

    /// Adds counts, a number for each thing, at a time.
    pub fn add(&mut self, at: Time, counts: &[u64]) {
        let bin = self.bins.entry(at.div_euclid(self.width)).or_default();
        bin.resize(bin.len().max(counts.len()), 0);
        bin.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        while let (Some((first, _)), Some((last, _))) =
            (self.bins.first_key_value(), self.bins.last_key_value())
            && last - first >= BINS
        {
            self.width = self.width.saturating_mul(2);
            for (bin, counts) in std::mem::take(&mut self.bins) {
                let wider = self.bins.entry(bin.div_euclid(2)).or_default();
                wider.resize(wider.len().max(counts.len()), 0);
                wider.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
    }

    /// The begin of the first bin and the end of the last one.
    pub fn span(&self) -> Option<(Time, Time)> {
        let (first, last) = (self.bins.keys().next()?, self.bins.keys().next_back()?);
        Some((first * self.width, (last + 1) * self.width))
    }

    /// The counts of thing `index`, bin by bin: how often it was seen, of all that were.
    pub fn of(&self, index: usize) -> Vec<(u64, u64)> {
        let (Some(first), Some(last)) = (self.bins.keys().next(), self.bins.keys().next_back())
        else {
            return Vec::new();
        };
        let count = |bin| {
            let counts = self.bins.get(&bin).map(Vec::as_slice).unwrap_or_default();
            (counts.get(index).copied().unwrap_or(0), counts.iter().sum())
        };
        (*first..=*last).map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_few_and_the_order_cannot_be_seen() {
        let times: Vec<i64> = (0..1000).map(|i| 1_000_000 + 7 * i).collect();
        let of = |times: &[i64]| {
            let mut line = Timeline::new(10);
            times.iter().for_each(|&at| line.add(at, &[1, u64::from(at % 2 == 0)]));
            line
        };
        let line = of(&times);
        let backwards: Vec<i64> = times.iter().rev().copied().collect();
        assert_eq!(line, of(&backwards));
        let counts = line.of(0);
        assert!((24..=48).contains(&counts.len()), "{}", counts.len());
        assert_eq!(counts.iter().map(|(count, _)| count).sum::<u64>(), 1000);
        assert_eq!(line.of(1).iter().map(|(count, _)| count).sum::<u64>(), 500);
        let (begin, end) = line.span().unwrap();
        assert!(begin <= times[0] && times[999] < end, "{begin} {end}");
    }
}
