//! From physical values to what the network sees, and back.

use physicnet_stream::{Error, Result};
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
    /// `sign(x) ln(1 + |x| / scale)`, for values over several powers of ten.
    Log1p {
        /// What counts as small, in the unit of the data; left out, training fits the mean
        /// magnitude of its data.
        #[serde(default)]
        scale: Option<f64>,
    },
    /// `sign(x) sqrt(|x| / scale)`, for counts and what else is skewed a little.
    Sqrt {
        /// What becomes 1, in the unit of the data; left out, training fits the mean magnitude
        /// of its data.
        #[serde(default)]
        scale: Option<f64>,
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
            // `max` would turn NaN and what lies infinitely below into dry.
            Self::LogRate { .. } if !x.is_finite() => x,
            Self::LogRate { floor } => (x.max(0.0) / floor as f32).ln_1p() * 0.5,
            Self::Log1p { scale } => (x.abs() / or_one(scale)).ln_1p().copysign(x),
            Self::Sqrt { scale } => (x.abs() / or_one(scale)).sqrt().copysign(x),
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
            Self::Log1p { scale } => {
                let size = y.abs().clamp(0.0, Self::FURTHEST).exp_m1() * or_one(scale);
                size.clamp(0.0, f32::MAX).copysign(y)
            }
            Self::Sqrt { scale } => (y * y * or_one(scale)).clamp(0.0, f32::MAX).copysign(y),
        }
    }

    /// The largest `log1p` that is inverted: its exponential is the last that is a number.
    pub const FURTHEST: f32 = 88.0;

    /// Whether every number that the transform needs is known.
    pub fn fitted(&self) -> bool {
        match self {
            Self::Identity | Self::LogRate { .. } => true,
            Self::Standardise { mean, std } => mean.is_some() && std.is_some(),
            Self::Log1p { scale } | Self::Sqrt { scale } => scale.is_some(),
        }
    }

    /// Fills what is left out from values of this mean, standard deviation and mean magnitude.
    pub fn fit(&mut self, mean: f64, std: f64, magnitude: f64) {
        match self {
            Self::Identity | Self::LogRate { .. } => {}
            Self::Standardise { mean: m, std: s } => {
                m.get_or_insert(mean);
                s.get_or_insert(std.max(1e-12));
            }
            // Of nothing but zeros any scale will do.
            Self::Log1p { scale } | Self::Sqrt { scale } => {
                scale.get_or_insert(if magnitude > 0.0 { magnitude } else { 1.0 });
            }
        }
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Names the number that does not, and what would.
    pub fn check(&self) -> Result<()> {
        let (key, value) = match *self {
            Self::Standardise { mean: Some(mean), .. } if !mean.is_finite() => {
                return Err(Error::new("mean", format!("{mean}; give a number")));
            }
            Self::Identity | Self::Standardise { std: None, .. } => return Ok(()),
            Self::Standardise { std: Some(std), .. } => ("std", std),
            Self::LogRate { floor } => ("floor", floor),
            Self::Log1p { scale } | Self::Sqrt { scale } => ("scale", scale.unwrap_or(1.0)),
        };
        // As the f32 that it is used as.
        if (value as f32).is_normal() && value > 0.0 {
            return Ok(());
        }
        Err(Error::new(key, format!("{value}; give a number above 0")))
    }
}

fn or_one(scale: Option<f64>) -> f32 {
    scale.unwrap_or(1.0) as f32
}

/// Whether a unit is that of a rain rate in millimetres an hour.
pub fn is_rain_rate(units: &str) -> bool {
    matches!(units.trim(), "mm h-1" | "mm/h" | "mm hr-1" | "mm h^-1" | "mm/hr" | "mm h**-1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Transform; 7] {
        [
            Transform::Identity,
            Transform::Standardise { mean: Some(280.0), std: Some(5.0) },
            Transform::LogRate { floor: 0.1 },
            Transform::Log1p { scale: None },
            Transform::Log1p { scale: Some(30.0) },
            Transform::Sqrt { scale: None },
            Transform::Sqrt { scale: Some(1e-4) },
        ]
    }

    /// Draws over all sizes from 1e-3 to 1e3, of either sign where the transform has one.
    #[test]
    fn every_transform_inverts_and_keeps_the_order() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        for transform in all() {
            let rates = matches!(transform, Transform::LogRate { .. });
            let mut drawn = vec![0.0];
            for _ in 0..2000 {
                let size = 10_f32.powf(6.0 * uniform() - 3.0);
                drawn.push(if rates || uniform() < 0.5 { size } else { -size });
            }
            drawn.sort_by(f32::total_cmp);
            let seen: Vec<f32> = drawn.iter().map(|&x| transform.forward(x)).collect();
            assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{transform:?}");
            for (&x, &y) in drawn.iter().zip(&seen) {
                let back = transform.inverse(y);
                // The mean is added last, and rounds.
                let mean = matches!(transform, Transform::Standardise { .. });
                let near = 2e-6 * x.abs() + if mean { 6e-5 } else { 0.0 };
                assert!((back - x).abs() <= near, "{transform:?} {x} {back}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_missing_and_nothing_becomes_infinite() {
        for transform in all() {
            for missing in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(transform.forward(missing).is_nan(), "{transform:?}: {missing}");
            }
            assert!(transform.inverse(f32::NAN).is_nan(), "{transform:?}");
            let affine = matches!(transform, Transform::Identity | Transform::Standardise { .. });
            for far in [1e30, -1e30, f32::MAX] {
                assert!(affine || transform.inverse(far).is_finite(), "{transform:?}: {far}");
            }
        }
    }

    #[test]
    fn what_is_left_out_is_fitted_and_what_is_said_stays() {
        let fitted = |text: &str| {
            let mut transform: Transform = serde_json::from_str(text).unwrap();
            assert!(!transform.fitted(), "{text}");
            transform.fit(4.0, 2.0, 5.0);
            transform.check().unwrap();
            transform
        };
        let standardise = |mean, std| Transform::Standardise { mean: Some(mean), std: Some(std) };
        assert_eq!(fitted(r#"{"kind": "standardise"}"#), standardise(4.0, 2.0));
        assert_eq!(fitted(r#"{"kind": "standardise", "mean": 1}"#), standardise(1.0, 2.0));
        assert_eq!(fitted(r#"{"kind": "log1p"}"#), Transform::Log1p { scale: Some(5.0) });
        assert_eq!(fitted(r#"{"kind": "sqrt"}"#), Transform::Sqrt { scale: Some(5.0) });
        let mut said = Transform::Sqrt { scale: Some(3.0) };
        said.fit(4.0, 2.0, 5.0);
        assert_eq!(said, Transform::Sqrt { scale: Some(3.0) });
        let mut zeros = Transform::Log1p { scale: None };
        zeros.fit(0.0, 0.0, 0.0);
        assert_eq!(zeros, Transform::Log1p { scale: Some(1.0) });
    }

    #[test]
    fn numbers_that_make_no_sense_are_named() {
        for (transform, key) in [
            (Transform::LogRate { floor: 0.0 }, "floor"),
            (Transform::Standardise { mean: None, std: Some(-1.0) }, "std"),
            (Transform::Standardise { mean: Some(f64::NAN), std: None }, "mean"),
            (Transform::Log1p { scale: Some(f64::INFINITY) }, "scale"),
            (Transform::Sqrt { scale: Some(1e-60) }, "scale"),
        ] {
            let error = transform.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }

    #[test]
    fn negative_rates_are_dry() {
        assert_eq!(Transform::LogRate { floor: 0.1 }.forward(-3.0), 0.0);
    }
}
