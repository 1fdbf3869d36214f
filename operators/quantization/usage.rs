//! How often each code is used, and how far apart two such histograms are.

use serde::{Deserialize, Serialize};

/// How a model's codes are used on its own training data: what drift is measured against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// How often each code was used on training frames, by the weights as they are stored.
    pub counts: Vec<u64>,
    /// Frames of the sequences that `usual` was taken from.
    pub window: usize,
    /// The distance from `counts` that 99 of 100 such sequences stay below.
    pub usual: f64,
}

impl Usage {
    /// The distance that is unusual: a quarter beyond what is usual.
    pub fn alarm(&self) -> f64 {
        (1.25 * self.usual).clamp(0.05, 1.0)
    }

    /// How many codes are in use, as `exp` of the entropy of their shares.
    pub fn perplexity(&self) -> f64 {
        let total = self.counts.iter().sum::<u64>() as f64;
        let share = |&count: &u64| count as f64 / total;
        let used = self.counts.iter().filter(|count| **count > 0);
        used.map(share).map(|p| -p * p.ln()).sum::<f64>().exp()
    }

    /// How many codes were never used.
    pub fn dead(&self) -> usize {
        self.counts.iter().filter(|count| **count == 0).count()
    }
}

/// The Jensen-Shannon distance of two histograms, base 2: from 0 for the same shares to 1 for
/// nothing in common. `None` if one is empty.
pub fn distance(one: &[u64], other: &[u64]) -> Option<f64> {
    let [n, m] = [one, other].map(|counts| counts.iter().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let part = |p: f64, mean: f64| if p > 0.0 { p * (p / mean).log2() } else { 0.0 };
    let both = one.iter().zip(other).map(|(&a, &b)| {
        let (p, q) = (a as f64 / n, b as f64 / m);
        part(p, 0.5 * (p + q)) + part(q, 0.5 * (p + q))
    });
    // Rounding may leave the sum a little outside.
    Some((0.5 * both.sum::<f64>()).clamp(0.0, 1.0).sqrt())
}
