//! Which scores are taken, and the scores themselves, from sums.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ssim::Scale;
use super::sums::{Sums, Table};

/// The threshold and window of the fractions skill score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fss {
    /// In the units of the data.
    pub threshold: f64,
    /// Side of the square window, pixels.
    pub scale: usize,
}

/// What is scored of a channel besides the moments, which always are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// CSI, POD, FAR and frequency bias are taken of values above each, in the units of the data.
    pub thresholds: Vec<f64>,
    /// The scale of the structural similarity; absent, it is not taken (it costs as much as all
    /// the rest together).
    pub ssim: Option<Scale>,
    /// The fractions skill scores that are taken.
    pub fss: Vec<Fss>,
}

impl Metrics {
    /// Whether a unit is that of a rain rate in millimetres per hour.
    pub fn is_rain(units: &str) -> bool {
        matches!(units.trim(), "mm h-1" | "mm/h" | "mm hr-1" | "mm h^-1" | "mm/hr")
    }

    /// What is commonly scored of a field in `units`: rain at 0.1, 1 and 5 mm/h, with SSIM in
    /// decibels and FSS at 1 mm/h over 10 pixels; of anything else just the moments.
    pub fn usual(units: &str) -> Self {
        if Self::is_rain(units) {
            Self {
                thresholds: vec![0.1, 1.0, 5.0],
                ssim: Some(Scale::Db),
                fss: vec![Fss { threshold: 1.0, scale: 10 }],
            }
        } else {
            Self::default()
        }
    }
}

/// The scores of values above one threshold; NaN where undefined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Categorical {
    /// Critical success index, H / (H + M + F).
    pub csi: f64,
    /// Probability of detection, H / (H + M).
    pub pod: f64,
    /// False alarm ratio, F / (H + F).
    pub far: f64,
    /// Frequency bias, (H + F) / (H + M).
    pub fbias: f64,
}

/// The scores that a set of pairs adds up to; NaN where undefined.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Pairs of fields.
    pub pairs: i64,
    /// Share of observed pixels that had a forecast.
    pub coverage: f64,
    /// Mean squared error.
    pub mse: f64,
    /// Its root.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Mean error, forecast minus observation.
    pub bias: f64,
    /// Pearson correlation over all pixels of all pairs.
    pub corr: f64,
    /// Mean over pairs of `|p - o| / |o|` in the 2-norm.
    pub rel_l2: f64,
    /// Mean over pairs of the structural similarity.
    pub ssim: f64,
    /// Fractions skill scores, 1 - sum (f - o)^2 / (sum f^2 + sum o^2), in the order of the
    /// [`Metrics`].
    pub fss: Vec<f64>,
    /// Per threshold, in the order of the [`Metrics`].
    pub categorical: Vec<Categorical>,
}

impl From<&Sums> for Scores {
    fn from(sums: &Sums) -> Self {
        let n = sums.scored as f64;
        let mean = |sum: super::Fixed| sum.get() / n;
        let (p, o) = (mean(sums.forecast), mean(sums.observation));
        let variance_p = mean(sums.forecast_squared) - p * p;
        let variance_o = mean(sums.observation_squared) - o * o;
        let of_pairs = |(sum, pairs): (super::Fixed, i64)| sum.get() / pairs as f64;
        let fss = |[ff, fo, oo]: &[i128; 3]| 2.0 * *fo as f64 / (*ff as f64 + *oo as f64);
        Self {
            pairs: sums.pairs,
            coverage: n / sums.observed as f64,
            mse: mean(sums.squared),
            rmse: mean(sums.squared).sqrt(),
            mae: mean(sums.absolute),
            bias: mean(sums.error),
            corr: (mean(sums.product) - p * o) / (variance_p * variance_o).sqrt(),
            rel_l2: of_pairs(sums.relative),
            ssim: of_pairs(sums.ssim),
            fss: sums.fss.iter().map(fss).collect(),
            categorical: sums.tables.iter().map(Categorical::from).collect(),
        }
    }
}

impl From<&Table> for Categorical {
    fn from(table: &Table) -> Self {
        let Table { hits, misses, false_alarms, .. } = *table;
        let (h, m, f) = (hits as f64, misses as f64, false_alarms as f64);
        Self { csi: h / (h + m + f), pod: h / (h + m), far: f / (h + f), fbias: (h + f) / (h + m) }
    }
}
