//! What is summed over pairs of fields: a group, so a correction is an exact retraction.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};

use super::fixed::Fixed;
use super::fss::fss;
use super::metrics::Metrics;
use super::ssim::ssim;
use crate::layers::moments::{Moments, Observed};

/// Hits, misses, false alarms, correct negatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Table {
    /// Forecast and observed.
    pub hits: i64,
    /// Observed alone.
    pub misses: i64,
    /// Forecast alone.
    pub false_alarms: i64,
    /// Neither.
    pub correct_negatives: i64,
}

/// All sums of a set of (forecast, observation) pairs of one channel at one lead.
///
/// Integers throughout: adding and taking away are exact, so that the order of pairs, the
/// number of workers and the size of batches cannot be seen in a score.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sums {
    /// Pairs of fields with at least one scored pixel.
    pub pairs: i64,
    /// Pixels with an observation.
    pub observed: i64,
    /// Of those, pixels with a forecast: the scored ones.
    pub scored: i64,
    /// Sum of p - o.
    pub error: Fixed,
    /// Sum of |p - o|.
    pub absolute: Fixed,
    /// Sum of (p - o)^2.
    pub squared: Fixed,
    /// Sum of p.
    pub forecast: Fixed,
    /// Sum of o.
    pub observation: Fixed,
    /// Sum of p^2.
    pub forecast_squared: Fixed,
    /// Sum of o^2.
    pub observation_squared: Fixed,
    /// Sum of p o.
    pub product: Fixed,
    /// Sum over pairs of the relative L2 error, and how many had one.
    pub relative: (Fixed, i64),
    /// Sum over pairs of the mean structural similarity, and how many had one.
    pub ssim: (Fixed, i64),
    /// A contingency table per threshold.
    pub tables: Vec<Table>,
    /// `[sum f^2, sum f o, sum o^2]` of window counts per FSS that is asked for. Squares of areas:
    /// of a few hundred large fields they are beyond 64 bits.
    pub fss: Vec<[i128; 3]>,
}

impl Sums {
    /// The sums of one pair: `p` forecast and `o` observed, row-major fields of `width` columns.
    ///
    /// Missing pixels: one whose observation is not finite is never scored, nor counted; one
    /// whose forecast is not finite is counted in `observed` and lowers the coverage, no more.
    pub fn of(p: &[f32], o: &[f32], width: usize, metrics: &Metrics) -> Self {
        Self::beside(&Observed::new(o), p, &[], width, metrics)
    }

    /// The same, where `next` is what will be forecast in the next pair.
    pub(super) fn beside(
        o: &Observed,
        p: &[f32],
        next: &[f32],
        width: usize,
        metrics: &Metrics,
    ) -> Self {
        let Moments { observed, scored, sums: moments } = o.moments(p, next);
        let o = o.values();
        let mut sums = Self { observed, scored, ..Self::default() };
        if scored == 0 {
            return sums;
        }
        let tables = metrics.thresholds.iter().map(|&above| table(p, o, above, scored)).collect();
        let mask: Vec<bool> = if metrics.ssim.is_some() || !metrics.fss.is_empty() {
            p.iter().zip(o).map(|(p, o)| p.is_finite() && o.is_finite()).collect()
        } else {
            Vec::new()
        };
        let [
            error,
            absolute,
            squared,
            forecast,
            observation,
            forecast_squared,
            observation_squared,
            product,
        ] = moments.map(Fixed::new);
        if moments[6] > 0.0 {
            sums.relative = (Fixed::new((moments[2] / moments[6]).sqrt()), 1);
        }
        let similarity = metrics.ssim.and_then(|scale| ssim(p, o, &mask, width, scale));
        if let Some(similarity) = similarity {
            sums.ssim = (Fixed::new(similarity), 1);
        }
        let fss = fss(p, o, &mask, width, &metrics.fss);
        Self {
            pairs: 1,
            error,
            absolute,
            squared,
            forecast,
            observation,
            forecast_squared,
            observation_squared,
            product,
            tables,
            fss,
            ..sums
        }
    }

    /// These sums taken `times` times; -1 takes them away.
    #[must_use]
    pub fn times(mut self, times: i64) -> Self {
        for fixed in self.reals_mut() {
            *fixed = fixed.times(times.into());
        }
        self.counts_mut().into_iter().for_each(|count| *count *= times);
        self.tables.iter_mut().flat_map(Table::cells_mut).for_each(|count| *count *= times);
        self.fss.iter_mut().flatten().for_each(|sum| *sum *= i128::from(times));
        self
    }

    fn reals(&self) -> [Fixed; 10] {
        [
            self.error,
            self.absolute,
            self.squared,
            self.forecast,
            self.observation,
            self.forecast_squared,
            self.observation_squared,
            self.product,
            self.relative.0,
            self.ssim.0,
        ]
    }

    fn reals_mut(&mut self) -> [&mut Fixed; 10] {
        let Self {
            error,
            absolute,
            squared,
            forecast,
            observation,
            forecast_squared,
            observation_squared,
            product,
            relative,
            ssim,
            ..
        } = self;
        [
            error,
            absolute,
            squared,
            forecast,
            observation,
            forecast_squared,
            observation_squared,
            product,
            &mut relative.0,
            &mut ssim.0,
        ]
    }

    /// The counts besides those by threshold.
    fn counts(&self) -> [i64; 5] {
        [self.pairs, self.observed, self.scored, self.relative.1, self.ssim.1]
    }

    fn counts_mut(&mut self) -> [&mut i64; 5] {
        let Self { pairs, observed, scored, relative, ssim, .. } = self;
        [pairs, observed, scored, &mut relative.1, &mut ssim.1]
    }
}

impl Table {
    fn cells(&self) -> [i64; 4] {
        [self.hits, self.misses, self.false_alarms, self.correct_negatives]
    }

    fn cells_mut(&mut self) -> [&mut i64; 4] {
        let Self { hits, misses, false_alarms, correct_negatives } = self;
        [hits, misses, false_alarms, correct_negatives]
    }
}

/// The contingency table of values above a threshold, over `scored` pixels.
fn table(p: &[f32], o: &[f32], above: f64, scored: i64) -> Table {
    let (mut hits, mut misses, mut false_alarms) = (0_u32, 0_u32, 0_u32);
    for (&p, &o) in p.iter().zip(o) {
        let both = p.is_finite() & o.is_finite();
        let (forecast, seen) = (f64::from(p) > above, f64::from(o) > above);
        hits += u32::from(both & forecast & seen);
        misses += u32::from(both & !forecast & seen);
        false_alarms += u32::from(both & forecast & !seen);
    }
    let [hits, misses, false_alarms] = [hits, misses, false_alarms].map(i64::from);
    Table { hits, misses, false_alarms, correct_negatives: scored - hits - misses - false_alarms }
}

impl IsZero for Sums {
    fn is_zero(&self) -> bool {
        let cells = self.tables.iter().flat_map(Table::cells);
        cells.chain(self.counts()).all(|count| count == 0)
            && self.fss.iter().flatten().all(|sum| *sum == 0)
            && self.reals().iter().all(|fixed| fixed.is_zero())
    }
}

impl Semigroup for Sums {
    fn plus_equals(&mut self, other: &Self) {
        // Zero has no tables; it grows to whatever is added.
        if self.tables.len() < other.tables.len() {
            self.tables.resize(other.tables.len(), Table::default());
        }
        if self.fss.len() < other.fss.len() {
            self.fss.resize(other.fss.len(), [0; 3]);
        }
        for (sum, term) in self.reals_mut().into_iter().zip(other.reals()) {
            *sum += term;
        }
        for (sum, term) in self.counts_mut().into_iter().zip(other.counts()) {
            *sum += term;
        }
        for (sum, term) in self.tables.iter_mut().zip(&other.tables) {
            for (sum, term) in sum.cells_mut().into_iter().zip(term.cells()) {
                *sum += term;
            }
        }
        for (sum, term) in self.fss.iter_mut().flatten().zip(other.fss.iter().flatten()) {
            *sum += term;
        }
    }
}

impl Monoid for Sums {
    fn zero() -> Self {
        Self::default()
    }
}

impl Abelian for Sums {
    fn negate(&mut self) {
        *self = std::mem::take(self).times(-1);
    }
}

impl Multiply<isize> for Sums {
    type Output = Self;

    fn multiply(self, times: &isize) -> Self {
        self.times(*times as i64)
    }
}
