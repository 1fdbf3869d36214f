//! What a job says of drift, and what the checkpoint says where the job is silent.

use anyhow::{Result, bail, ensure};
use physicnet_operators::quantization::{DriftConfig, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a sensor's codes are alarming. Absent keys are as the checkpoint says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    pub(crate) fn config(&self, usage: Option<&Usage>) -> Result<DriftConfig> {
        ensure!(
            usage.is_some() || self.alarm.is_none(),
            "drift.alarm: the model does not say which codes are usual; `physicnet calibrate` \
             writes it into a checkpoint"
        );
        Ok(DriftConfig { alarm: self.alarm, window: self.window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_wants_a_model_that_knows_what_is_usual() {
        let usage = Usage { counts: vec![3, 1], window: 45, usual: 0.2 };
        let own = DriftSection { alarm: Some(0.3), window: Some(96) };
        let config = own.config(Some(&usage)).unwrap();
        assert_eq!(config, DriftConfig { alarm: Some(0.3), window: Some(96) });
        DriftSection::default().config(None).unwrap();
        let error = own.config(None).unwrap_err().to_string();
        assert!(error.contains("physicnet calibrate"), "{error}");
    }
}
