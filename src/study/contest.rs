//! Whether one model's forecasts are better than another's, and whether that may be chance.
//!
//! The test of Diebold and Mariano (1995) on the difference of the losses of each forecast, with
//! the variance of Newey and West (1987): losses of neighbouring forecasts are alike.

use std::collections::VecDeque;

use physicnet_operators::scoring::Fixed;

use super::student::{quantile, two_sided};

/// The longest lag, in scored reference times, whose covariance is summed.
const LAGS: usize = 64;
/// Fewer forecasts say nothing.
pub const FEWEST: i64 = 10;

/// The losses of two models, summed: `d = ours - theirs`, and its products at every lag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contest {
    count: i64,
    /// Separate series: those of different sensors.
    series: i64,
    ours: Fixed,
    theirs: Fixed,
    /// At lag k: how many pairs, and the sums of `d(t) d(t - k)` and of `d(t) + d(t - k)`.
    lags: Vec<(i64, Fixed, Fixed)>,
}

/// The last differences of one series, by the number of their reference time.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(VecDeque<(i64, f64)>);

/// What a contest says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Forecasts that both made.
    pub count: i64,
    /// The mean loss of ours.
    pub ours: f64,
    /// The mean loss of theirs.
    pub theirs: f64,
    /// The mean difference, ours minus theirs: below 0 ours is better.
    pub difference: f64,
    /// Half the width of its 95 % confidence interval.
    pub margin: f64,
    /// The statistic, difference over standard error.
    pub statistic: f64,
    /// The probability of one as far from 0 if both were equally good; NaN where there are too few.
    pub p: f64,
    /// The bandwidth: the longest lag that the variance takes in.
    pub bandwidth: usize,
}

impl Contest {
    /// Adds the losses of one forecast, whose reference time is number `at` of its series, and
    /// `tail` the end of that so far. Where numbers do not rise a clock was set, and a series begins.
    pub(super) fn add(&mut self, tail: &mut Tail, at: i64, ours: f64, theirs: f64) {
        let difference = ours - theirs;
        if tail.0.back().is_some_and(|(last, _)| at <= *last) {
            tail.0.clear();
        }
        self.series += i64::from(tail.0.is_empty());
        self.count += 1;
        self.ours += Fixed::new(ours);
        self.theirs += Fixed::new(theirs);
        self.lags.resize(LAGS + 1, Default::default());
        while tail.0.front().is_some_and(|(then, _)| at - then > LAGS as i64) {
            tail.0.pop_front();
        }
        tail.0.push_back((at, difference));
        for (then, before) in &tail.0 {
            let (pairs, products, sums) = &mut self.lags[(at - then) as usize];
            *pairs += 1;
            *products += Fixed::new(difference * before);
            *sums += Fixed::new(difference + before);
        }
    }

    /// The verdict on forecasts of which those of `overlap` further reference times share a part
    /// of their time: errors of `h` steps are correlated over `h - 1`.
    ///
    /// With n differences d, mean m and `S(k) = sum (d(t) - m)(d(t - k) - m)` over all pairs of a
    /// series at lag k, the standard error is `sqrt(S(0) + 2 sum (1 - k / (K + 1)) S(k)) / n`,
    /// k from 1 to K. K is the larger of `overlap` and the cube root of the length of a series.
    pub fn verdict(&self, overlap: usize) -> Verdict {
        let n = self.count as f64;
        let mean = |sum: Fixed| sum.get() / n;
        let (ours, theirs) = (mean(self.ours), mean(self.theirs));
        let difference = ours - theirs;
        let length = n / self.series.max(1) as f64;
        let bandwidth = overlap.max(length.cbrt().ceil() as usize).min(LAGS);
        let at = |(k, (pairs, products, sums)): (usize, &(i64, Fixed, Fixed))| {
            let centred =
                products.get() - difference * sums.get() + *pairs as f64 * difference * difference;
            let weight = 1.0 - k as f64 / (bandwidth + 1) as f64;
            if k == 0 { centred } else { 2.0 * weight * centred }
        };
        let variance: f64 = self.lags.iter().take(bandwidth + 1).enumerate().map(at).sum();
        let error = variance.sqrt() / n;
        let known = self.count >= FEWEST && error > 0.0;
        let freedom = (self.count - 1).max(0) as u64;
        let statistic = if known { difference / error } else { f64::NAN };
        Verdict {
            count: self.count,
            ours,
            theirs,
            difference,
            margin: if known { quantile(0.05, freedom) * error } else { f64::NAN },
            statistic,
            p: two_sided(statistic, freedom),
            bandwidth,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses that any language can make again: an autocorrelated difference.
    fn losses(n: usize) -> Vec<(f64, f64)> {
        let mut wave = 0.0;
        (0..n)
            .map(|i| {
                wave = 0.7 * wave + ((i * 7919 + 13) % 1009) as f64 / 1009.0 - 0.5;
                (2.0 + 0.3 * wave - 0.1, 2.0)
            })
            .collect()
    }

    /// The mean and its standard error, as the definition says.
    fn oracle(d: &[f64], bandwidth: usize) -> (f64, f64) {
        let n = d.len() as f64;
        let mean = d.iter().sum::<f64>() / n;
        let mut variance = 0.0;
        for t in 0..d.len() {
            for s in 0..d.len() {
                let lag = t.abs_diff(s) as f64;
                let weight = (1.0 - lag / (bandwidth + 1) as f64).max(0.0);
                variance += weight * (d[t] - mean) * (d[s] - mean);
            }
        }
        (mean, variance.sqrt() / n)
    }

    #[test]
    fn the_running_sums_are_the_definition() {
        for (n, overlap) in [(10, 0), (40, 0), (200, 11), (500, 3)] {
            let (mut contest, mut tail) = (Contest::default(), Tail::default());
            let losses = losses(n);
            for (at, (ours, theirs)) in losses.iter().enumerate() {
                contest.add(&mut tail, at as i64, *ours, *theirs);
            }
            let verdict = contest.verdict(overlap);
            let d: Vec<f64> = losses.iter().map(|(ours, theirs)| ours - theirs).collect();
            let (mean, error) = oracle(&d, verdict.bandwidth);
            assert!((verdict.difference - mean).abs() < 1e-12, "{n}");
            assert!((verdict.statistic - mean / error).abs() < 1e-9 * verdict.statistic.abs());
        }
    }

    #[test]
    fn a_gap_is_no_lag() {
        let (mut contest, mut tail) = (Contest::default(), Tail::default());
        let d: Vec<f64> = losses(60).iter().map(|(ours, theirs)| ours - theirs).collect();
        // Every third reference time was never forecast.
        let there = |at: &usize| at % 3 != 1;
        for at in (0..60).filter(there) {
            contest.add(&mut tail, at as i64, d[at], 0.0);
        }
        let verdict = contest.verdict(0);
        let kept: Vec<usize> = (0..60).filter(there).collect();
        let mean = kept.iter().map(|&at| d[at]).sum::<f64>() / kept.len() as f64;
        let mut variance = 0.0;
        for &t in &kept {
            for &s in &kept {
                let weight = 1.0 - t.abs_diff(s) as f64 / (verdict.bandwidth + 1) as f64;
                variance += weight.max(0.0) * (d[t] - mean) * (d[s] - mean);
            }
        }
        let expected = mean / (variance.sqrt() / kept.len() as f64);
        assert!((verdict.statistic - expected).abs() < 1e-9, "{} {expected}", verdict.statistic);
    }

    #[test]
    fn a_clock_that_was_set_begins_a_series() {
        let (mut contest, mut tail) = (Contest::default(), Tail::default());
        (0..200).chain(0..100).for_each(|at| contest.add(&mut tail, at, (at % 7) as f64, 3.0));
        assert_eq!((contest.count, contest.series), (300, 2));
        assert_eq!(contest.lags[1].0, 199 + 99);
    }

    #[test]
    fn what_is_too_little_says_nothing() {
        let (mut contest, mut tail) = (Contest::default(), Tail::default());
        for at in 0..9 {
            contest.add(&mut tail, at, 1.0 + at as f64, 0.0);
        }
        assert!(contest.verdict(0).p.is_nan() && contest.verdict(0).margin.is_nan());
        // The same forecasts are no better.
        let (mut equal, mut tail) = (Contest::default(), Tail::default());
        (0..20).for_each(|at| equal.add(&mut tail, at, 3.0, 3.0));
        let verdict = equal.verdict(2);
        assert!(verdict.p.is_nan() && verdict.difference == 0.0);
    }
}
