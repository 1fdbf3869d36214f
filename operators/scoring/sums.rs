//! What is summed over pairs of fields: a group, so a correction is an exact retraction.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};

use super::fixed::Fixed;
use super::fss::fss;
use super::metrics::{Fss, Metrics};
use super::ssim::ssim;

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
    /// `[sum f^2, sum f o, sum o^2]` of window counts per FSS that is asked for.
    pub fss: Vec<[i64; 3]>,
}

impl Sums {
    /// The sums of one pair: `p` forecast and `o` observed, row-major fields of `width` columns.
    ///
    /// Missing pixels: one whose observation is not finite is never scored, nor counted; one
    /// whose forecast is not finite is counted in `observed` and lowers the coverage, no more.
    pub fn of(p: &[f32], o: &[f32], width: usize, metrics: &Metrics) -> Self {
        let mask: Vec<bool> =
            p.iter().zip(o).map(|(p, o)| p.is_finite() && o.is_finite()).collect();
        let observed = o.iter().filter(|o| o.is_finite()).count() as i64;
        let scored = mask.iter().filter(|&&m| m).count() as i64;
        let mut sums = Self { observed, scored, ..Self::default() };
        if scored == 0 {
            return sums;
        }
        let mut moments = [0.0_f64; 8];
        let mut tables = vec![Table::default(); metrics.thresholds.len()];
        for ((&p, &o), _) in p.iter().zip(o).zip(&mask).filter(|&(_, &m)| m) {
            let (p, o) = (f64::from(p), f64::from(o));
            let e = p - o;
            let terms = [e, e.abs(), e * e, p, o, p * p, o * o, p * o];
            moments.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            for (table, &threshold) in tables.iter_mut().zip(&metrics.thresholds) {
                *match (p > threshold, o > threshold) {
                    (true, true) => &mut table.hits,
                    (false, true) => &mut table.misses,
                    (true, false) => &mut table.false_alarms,
                    (false, false) => &mut table.correct_negatives,
                } += 1;
            }
        }
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
        let of = |f: &Fss| fss(p, o, &mask, width, f.threshold, f.scale);
        let fss = metrics.fss.iter().map(of).collect();
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
        for fixed in self.reals() {
            *fixed = fixed.times(times.into());
        }
        for count in self.counts() {
            *count *= times;
        }
        self
    }

    fn reals(&mut self) -> [&mut Fixed; 10] {
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

    fn counts(&mut self) -> impl Iterator<Item = &mut i64> {
        let Self { pairs, observed, scored, relative, ssim, tables, fss, .. } = self;
        let tables = tables.iter_mut().flat_map(|table| {
            let Table { hits, misses, false_alarms, correct_negatives } = table;
            [hits, misses, false_alarms, correct_negatives]
        });
        [pairs, observed, scored, &mut relative.1, &mut ssim.1]
            .into_iter()
            .chain(tables)
            .chain(fss.iter_mut().flatten())
    }
}

impl IsZero for Sums {
    fn is_zero(&self) -> bool {
        let mut sums = self.clone();
        sums.reals().iter().all(|fixed| fixed.is_zero())
            && sums.counts().all(|&mut count| count == 0)
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
        let mut other = other.clone();
        other.tables.resize(self.tables.len(), Table::default());
        other.fss.resize(self.fss.len(), [0; 3]);
        for (sum, term) in self.reals().into_iter().zip(other.reals()) {
            *sum += *term;
        }
        for (sum, term) in self.counts().zip(other.counts()) {
            *sum += *term;
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
