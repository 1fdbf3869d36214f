//! What a job says of drift, and what the checkpoint says where the job is silent.

use anyhow::{Result, bail, ensure};
use physicnet_operators::quantization::{DriftConfig, Usage};
use serde::{Deserialize, Serialize};

/// Over how many frames missing pixels are counted where neither the job nor the model says.
const WINDOW: usize = 96;

/// When a sensor's codes are alarming. Absent keys are as the checkpoint says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftSection {
    /// The distance from the training data above which there is an alarm, up to 1.
    pub alarm: Option<f64>,
    /// The frames of a sensor that are compared with it.
    pub window: Option<usize>,
}

impl DriftSection {
    /// # Errors
    /// Names the key that is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let Self { alarm, window } = self;
        if let Some(alarm) = alarm.filter(|alarm| !(*alarm > 0.0 && *alarm <= 1.0)) {
            bail!("drift.alarm: {alarm}; choose a distance above 0, up to 1");
        }
        if let Some(window) = window.filter(|window| !(1..=100_000).contains(window)) {
            bail!("drift.window: {window}; choose 1 to 100000 frames");
        }
        Ok(())
    }

    /// What drift is for a model with this `usage` of its codes.
    pub(super) fn config(&self, usage: Option<&Usage>) -> Result<DriftConfig> {
        ensure!(
            usage.is_some() || self.alarm.is_none(),
            "drift.alarm: the model does not say which codes are usual; `physicnet calibrate` \
             writes it into a checkpoint"
        );
        Ok(DriftConfig {
            training: usage.map(|usage| usage.counts.clone()),
            window: self.window.or(usage.map(|usage| usage.window)).unwrap_or(WINDOW),
            // Without usage there is no distance, and nothing to be alarmed by.
            alarm: self.alarm.or(usage.map(Usage::alarm)).unwrap_or(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_says_what_the_job_does_not() {
        let usage = Usage { counts: vec![3, 1], window: 45, usual: 0.2 };
        let silent = DriftSection::default().config(Some(&usage)).unwrap();
        let expected = DriftConfig { training: Some(vec![3, 1]), window: 45, alarm: 0.25 };
        assert_eq!(silent, expected);
        let own = DriftSection { alarm: Some(0.3), window: Some(96) };
        let expected = DriftConfig { alarm: 0.3, window: 96, ..expected };
        assert_eq!(own.config(Some(&usage)).unwrap(), expected);

        let older = DriftSection::default().config(None).unwrap();
        assert_eq!(older, DriftConfig { training: None, window: WINDOW, alarm: 1.0 });
        let error = own.config(None).unwrap_err().to_string();
        assert!(error.contains("physicnet calibrate"), "{error}");
    }
}
