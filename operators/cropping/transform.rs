//! From physical values to what the network sees, and back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How one variable is transformed before the first layer; inverted on output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Transform {
    /// As it is.
    Identity,
    /// `(x - mean) / std`; training fits what is left out and writes it into the checkpoint.
    Standardise {
        /// The mean over the training data.
        #[serde(default)]
        mean: Option<f64>,
        /// The standard deviation over the training data.
        #[serde(default)]
        std: Option<f64>,
    },
    /// `ln(1 + R / floor) / 2` for rates that are mostly zero, such as rain in mm/h.
    LogRate {
        /// The rate that counts as barely wet, in the unit of the data.
        #[serde(default = "tenth")]
        floor: f64,
    },
}

fn tenth() -> f64 {
    0.1
}

impl Transform {
    /// The transform that suits a variable of this unit: rates are skewed, the rest is not.
    pub fn for_units(units: &str) -> Self {
        if is_rain_rate(units) {
            Self::LogRate { floor: tenth() }
        } else {
            Self::Standardise { mean: None, std: None }
        }
    }

    /// The transformed value; NaN stays NaN, infinities count as missing.
    pub fn forward(&self, x: f32) -> f32 {
        let y = match *self {
            Self::Identity => x,
            Self::Standardise { mean, std } => {
                let (mean, std) = (mean.unwrap_or(0.0) as f32, std.unwrap_or(1.0) as f32);
                (x - mean) / std
            }
            // `max` would turn NaN into dry.
            Self::LogRate { .. } if x.is_nan() => x,
            Self::LogRate { floor } => (x.max(0.0) / floor as f32).ln_1p() * 0.5,
        };
        if y.is_finite() { y } else { f32::NAN }
    }

    /// The physical value of a transformed one.
    #[inline]
    pub fn inverse(&self, y: f32) -> f32 {
        match *self {
            Self::Identity => y,
            Self::Standardise { mean, std } => {
                y * std.unwrap_or(1.0) as f32 + mean.unwrap_or(0.0) as f32
            }
            // Beyond v = 8 lies a million mm/h: a network gone astray must not make infinities.
            Self::LogRate { floor } => (2.0 * y.clamp(0.0, 8.0)).exp_m1() * floor as f32,
        }
    }

    /// Whether every number that the transform needs is known.
    pub fn fitted(&self) -> bool {
        !matches!(self, Self::Standardise { mean: None, .. } | Self::Standardise { std: None, .. })
    }
}

/// Whether a unit is that of a rain rate in millimetres an hour.
pub fn is_rain_rate(units: &str) -> bool {
    matches!(units.trim(), "mm h-1" | "mm/h" | "mm hr-1" | "mm h^-1" | "mm/hr" | "mm h**-1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transform_inverts() {
        let all = [
            Transform::Identity,
            Transform::Standardise { mean: Some(280.0), std: Some(5.0) },
            Transform::LogRate { floor: 0.1 },
        ];
        for transform in all {
            for x in [0.0_f32, 0.05, 1.0, 93.5, 280.0] {
                let back = transform.inverse(transform.forward(x));
                assert!((back - x).abs() <= 1e-4 * x.max(1.0), "{transform:?} {x} {back}");
            }
            assert!(transform.forward(f32::NAN).is_nan());
            assert!(transform.forward(f32::INFINITY).is_nan());
            assert!(
                transform.inverse(1e30).is_finite()
                    || transform == Transform::Identity
                    || transform.fitted()
            );
        }
    }

    #[test]
    fn negative_rates_are_dry() {
        assert_eq!(Transform::LogRate { floor: 0.1 }.forward(-3.0), 0.0);
    }
}
