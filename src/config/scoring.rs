//! What a job says of its verification.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use physicnet_operators::scoring::{Fss, Metrics, Scale};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScoringSection {
    /// What is forecast and scored beside the served product: `mean`, `sharp`, `persistence`,
    /// `advection`, `trend`, quantiles of an ensemble (`q10`). Heads that the model lacks are left out.
    pub products: Vec<String>,
    /// CSI, POD and FAR are taken above these, in the units of the data; absent, at 0.1, 1 and
    /// 5 for rain in mm/h and not at all for anything else.
    pub thresholds: Option<Vec<f64>>,
    /// Whether structural similarity is taken; it costs more than all other scores together.
    pub ssim: bool,
    /// The least and the largest value of the data, for the SSIM of anything but rain.
    pub data_range: Option<[f64; 2]>,
    /// The fractions skill scores; absent, at 1 mm/h over 10 pixels for rain alone.
    pub fss: Option<Vec<Fss>>,
    /// Frames and forecasts that come late, or again, change the scores while they are at most so
    /// many cadences behind the newest frame; absent, 3 more than `admission.revise_within`.
    pub correct_within: Option<u32>,
    /// The file that keeps the scores over a restart; absent, they begin anew.
    pub store: Option<PathBuf>,
}

impl Default for ScoringSection {
    fn default() -> Self {
        let products = ["persistence", "advection"].map(String::from).into();
        Self {
            products,
            thresholds: None,
            ssim: false,
            data_range: None,
            fss: None,
            correct_within: None,
            store: None,
        }
    }
}

impl ScoringSection {
    /// # Errors
    /// Names the key that does not fit; `revised` is `admission.revise_within`.
    pub(super) fn check(&self, revised: u32) -> Result<()> {
        if let Some(within) = self.correct_within {
            ensure!(
                within >= revised,
                "scoring.correct_within: {within} is less than admission.revise_within, {revised}: \
                 revised forecasts would not be verified"
            );
        }
        let fss = self.fss.iter().flatten().map(|fss| fss.threshold);
        let mut thresholds = self.thresholds.iter().flatten().copied().chain(fss);
        if let Some(wrong) = thresholds.find(|threshold| !threshold.is_finite()) {
            bail!("scoring.thresholds: {wrong}; nothing is above it: give finite numbers");
        }
        if let Some([lo, hi]) = self.data_range {
            ensure!(lo < hi, "scoring.data_range: [{lo}, {hi}]; the second must be larger");
        }
        Ok(())
    }

    /// What is scored of a variable in `units`.
    pub fn metrics(&self, units: &str) -> Metrics {
        let usual = Metrics::usual(units);
        let linear =
            |[minimum, maximum]: [f64; 2]| Scale::Linear { minimum, range: maximum - minimum };
        Metrics {
            thresholds: self.thresholds.clone().unwrap_or(usual.thresholds),
            ssim: if self.ssim { usual.ssim.or(self.data_range.map(linear)) } else { None },
            fss: self.fss.clone().unwrap_or(usual.fss),
        }
    }
}
