//! What is said of an ensemble: CRPS, the rank of what came, spread beside error, reliability.

use super::fixed::Fixed;
use crate::ensemble::mixed;

/// The sums of a set of (ensemble, observation) pairs of one channel at one lead: integers, so that
/// neither workers nor batches can be seen in them.
///
/// A pixel counts where it was observed and every member has it. With M members x and an observation
/// o its continuous ranked probability score is that of the members' step function (Hersbach 2000,
/// *Weather and Forecasting* 15, 559):
///
/// ```text
/// CRPS = mean |x - o| - sum over i, j of |x_i - x_j| / (2 M^2)
/// ```
///
/// which is the absolute error where there is one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleSums {
    members: usize,
    /// Pairs of fields with at least one scored pixel.
    pub pairs: i64,
    /// Pixels that were scored.
    pub scored: i64,
    crps: Fixed,
    /// Of (mean of the members - o)^2.
    squared: Fixed,
    /// Of the variance of the members, over M - 1.
    variance: Fixed,
    /// By how many members lie below what came. Members that are equal to it lie below or above by
    /// lot, which is the same for the same pixel every time; where all are, nothing is counted.
    ranks: Vec<i64>,
    /// Per threshold, by how many members lie above it: how often, and how often it came so.
    above: Vec<Vec<[i64; 2]>>,
}

/// How often what members said came: a point of the reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reliability {
    /// The share of members above the threshold.
    pub forecast: f64,
    /// Of how many pixels.
    pub count: i64,
    /// The share of these that were above it.
    pub observed: f64,
}

impl EnsembleSums {
    /// The sums of one pair: `members` are forecasts of the field `observed`, row by row; `salt` is a
    /// number of their own.
    pub fn of(members: &[Vec<f32>], observed: &[f32], thresholds: &[f64], salt: u64) -> Self {
        let count = members.len();
        let mut sums = Self {
            members: count,
            ranks: vec![0; count + 1],
            above: vec![vec![[0; 2]; count + 1]; thresholds.len()],
            ..Self::default()
        };
        let (mut crps, mut squared, mut variance) = (0.0, 0.0, 0.0);
        let mut sorted = Vec::with_capacity(count);
        for (at, &o) in observed.iter().enumerate() {
            sorted.clear();
            sorted.extend(members.iter().filter_map(|member| member.get(at).copied()));
            if !o.is_finite() || sorted.len() < count || !sorted.iter().all(|x| x.is_finite()) {
                continue;
            }
            sums.scored += 1;
            sorted.sort_unstable_by(f32::total_cmp);
            let of = Pixel::of(&sorted, o.into());
            crps += of.crps;
            squared += of.squared;
            variance += of.variance;
            let below = sorted.iter().filter(|x| **x < o).count();
            let equal = sorted.iter().filter(|x| **x == o).count();
            if equal < count {
                let lot = mixed(salt ^ mixed(at as u64)) % (equal as u64 + 1);
                sums.ranks[below + lot as usize] += 1;
            }
            for (above, &threshold) in sums.above.iter_mut().zip(thresholds) {
                let exceeds = |value: f32| f64::from(value) > threshold;
                let [cases, came] = &mut above[sorted.iter().filter(|x| exceeds(**x)).count()];
                *cases += 1;
                *came += i64::from(exceeds(o));
            }
        }
        sums.pairs = i64::from(sums.scored > 0);
        [sums.crps, sums.squared, sums.variance] = [crps, squared, variance].map(Fixed::new);
        sums
    }

    /// Adds the sums of other pairs of the same ensemble.
    pub fn add(&mut self, other: &Self) {
        self.members = self.members.max(other.members);
        self.pairs += other.pairs;
        self.scored += other.scored;
        self.crps += other.crps;
        self.squared += other.squared;
        self.variance += other.variance;
        self.ranks.resize(self.members + 1, 0);
        self.ranks.iter_mut().zip(&other.ranks).for_each(|(sum, term)| *sum += term);
        self.above.resize(self.above.len().max(other.above.len()), Vec::new());
        for (sum, term) in self.above.iter_mut().zip(&other.above) {
            sum.resize(self.members + 1, [0; 2]);
            for (sum, term) in sum.iter_mut().flatten().zip(term.iter().flatten()) {
                *sum += term;
            }
        }
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The mean CRPS, in the units of the data; NaN where nothing was scored, like all that follows.
    pub fn crps(&self) -> f64 {
        self.mean(self.crps)
    }

    /// The root mean squared error of the members' mean.
    pub fn rmse(&self) -> f64 {
        self.mean(self.squared).sqrt()
    }

    /// The root of the mean variance of the members, times (M + 1) / M: as large as the error of
    /// their mean where what comes is one of them (Fortin et al. 2014, *Journal of
    /// Hydrometeorology* 15, 1708).
    pub fn spread(&self) -> f64 {
        let m = self.members as f64;
        (self.mean(self.variance) * (m + 1.0) / m).sqrt()
    }

    /// How often so many members were below what came, 0 to M: flat where it is one of them.
    pub fn ranks(&self) -> &[i64] {
        &self.ranks
    }

    /// The reliability diagram of a threshold, by its place: the points that have pixels.
    pub fn reliability(&self, threshold: usize) -> Vec<Reliability> {
        let point = |(k, [cases, came]): (usize, &[i64; 2])| Reliability {
            forecast: k as f64 / self.members as f64,
            count: *cases,
            observed: *came as f64 / *cases as f64,
        };
        let all = self.above.get(threshold).map(Vec::as_slice).unwrap_or_default();
        all.iter().enumerate().filter(|(_, [cases, _])| *cases > 0).map(point).collect()
    }

    /// The Brier score of a threshold, by its place: the mean of (share of members above it - 1 or 0)
    /// squared.
    pub fn brier(&self, threshold: usize) -> f64 {
        let of = |point: &Reliability| {
            let Reliability { forecast: p, count, observed: o } = *point;
            count as f64 * (o * (1.0 - p).powi(2) + (1.0 - o) * p * p)
        };
        self.reliability(threshold).iter().map(of).sum::<f64>() / self.scored as f64
    }

    fn mean(&self, sum: Fixed) -> f64 {
        sum.get() / self.scored as f64
    }
}

/// What one pixel adds.
struct Pixel {
    crps: f64,
    squared: f64,
    variance: f64,
}

impl Pixel {
    /// Of members in order.
    fn of(sorted: &[f32], o: f64) -> Self {
        let m = sorted.len() as f64;
        let values = || sorted.iter().map(|x| f64::from(*x));
        let mean = values().sum::<f64>() / m;
        let away = values().map(|x| (x - o).abs()).sum::<f64>() / m;
        // The sum over all pairs, from the order: the i-th is above i and below M - 1 - i of them.
        let apart = values().zip(0..).map(|(x, i)| x * (2.0 * f64::from(i) + 1.0 - m)).sum::<f64>();
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / (m - 1.0).max(1.0);
        Self { crps: away - apart / (m * m), squared: (mean - o).powi(2), variance }
    }
}
