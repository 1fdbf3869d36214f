//! In what a GPU multiplies.

use candle_core::DType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In what the convolutions of a network are multiplied on a GPU: factors and products are rounded to
/// it, sums are f32. What lies between them, and everything on a CPU, is f32 whatever it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As on a CPU.
    #[default]
    F32,
    /// Eight bits of each factor, over the range of f32.
    Bf16,
    /// Eleven bits of each factor, up to 65504.
    F16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}
