//! What a job says of forecasts that learn from their own verification.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How forecasts learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LearnSection {
    /// After so many verified frames a frame counts by 1 / e.
    pub memory: u32,
    /// Whether a baseline is served where it was better.
    pub gate: bool,
}

impl Default for LearnSection {
    fn default() -> Self {
        Self { memory: 48, gate: true }
    }
}

impl LearnSection {
    /// # Errors
    /// Names the key that is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let Self { memory, gate: _ } = self;
        ensure!(
            (1..=100_000).contains(memory),
            "learn.memory: {memory}; choose 1 to 100000 frames"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_name_every_key_and_its_default() {
        let keys = serde_json::to_value(LearnSection::default()).unwrap();
        let docs = include_str!("../../docs/jobs.md");
        for (key, default) in keys.as_object().unwrap() {
            let row = format!("| `learn.{key}` | {default} |");
            assert!(docs.contains(&row), "docs/jobs.md: no row {row}");
        }
        assert_eq!(docs.matches("| `learn.").count(), keys.as_object().unwrap().len());
    }
}
