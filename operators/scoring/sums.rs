//! What is summed over pairs of fields: a group, so a correction is an exact retraction.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};

use super::fixed::Fixed;
use super::fss::fss;
use super::metrics::Metrics;
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
        let (observed, scored, moments) = moments(p, o);
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

/// Sums that do not wait for one another.
const LANES: usize = 4;

/// How many pixels are observed and scored, and the sums over the scored ones of `e = p - o`, `|e|`,
/// `e^2`, `p`, `o`, `p^2`, `o^2`, `p o`: in lanes of every fourth pixel, and then over the lanes.
fn moments(p: &[f32], o: &[f32]) -> (i64, i64, [f64; 8]) {
    let mut sums = [[0.0_f64; LANES]; 8];
    let (mut observed, mut scored) = ([0_u32; LANES], [0_u32; LANES]);
    let mut add = |p: &[f32; LANES], o: &[f32; LANES]| {
        for lane in 0..LANES {
            let seen = o[lane].is_finite();
            let both = seen & p[lane].is_finite();
            observed[lane] += u32::from(seen);
            scored[lane] += u32::from(both);
            // What is not scored adds nothing.
            let p = if both { f64::from(p[lane]) } else { 0.0 };
            let o = if both { f64::from(o[lane]) } else { 0.0 };
            let e = p - o;
            let terms = [e, e.abs(), e * e, p, o, p * p, o * o, p * o];
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    };
    let (whole_p, rest_p) = p.as_chunks::<LANES>();
    let (whole_o, rest_o) = o.as_chunks::<LANES>();
    whole_p.iter().zip(whole_o).for_each(|(p, o)| add(p, o));
    let mut last = [[f32::NAN; LANES]; 2];
    last[0][..rest_p.len()].copy_from_slice(rest_p);
    last[1][..rest_o.len()].copy_from_slice(rest_o);
    add(&last[0], &last[1]);
    let count = |lanes: [u32; LANES]| lanes.iter().map(|&n| i64::from(n)).sum();
    (count(observed), count(scored), sums.map(|lanes| lanes.iter().sum()))
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
