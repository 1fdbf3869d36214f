//! What a job says of the ensemble around its forecasts.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an ensemble is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleSection {
    /// How many members are drawn.
    pub members: usize,
    /// After so many verified frames a frame's errors count by 1 / e.
    pub memory: u32,
}

impl Default for EnsembleSection {
    fn default() -> Self {
        Self { members: 20, memory: 48 }
    }
}

impl EnsembleSection {
    /// # Errors
    /// Names the key that is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let Self { members, memory } = self;
        ensure!((2..=1000).contains(members), "ensemble.members: {members}; choose 2 to 1000");
        ensure!(
            (1..=100_000).contains(memory),
            "ensemble.memory: {memory}; choose 1 to 100000 frames"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_name_every_key_and_its_default() {
        let keys = serde_json::to_value(EnsembleSection::default()).unwrap();
        let docs = include_str!("../../docs/jobs.md");
        for (key, default) in keys.as_object().unwrap() {
            let row = format!("| `ensemble.{key}` | {default} |");
            assert!(docs.contains(&row), "docs/jobs.md: no row {row}");
        }
        assert_eq!(docs.matches("| `ensemble.").count(), keys.as_object().unwrap().len());
    }
}
