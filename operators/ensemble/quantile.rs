//! Quantiles of the ensemble that members would be drawn from, as products.

use physicnet_stream::Forecast;

use super::draw::Drawing;
use super::ranks::{EDGE, share};
use crate::cropping::Transform;

/// A quantile of the forecast distribution at every pixel.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantile {
    name: String,
    /// The standard normal number of its share.
    normal: f32,
}

impl Quantile {
    /// That of a product called `q10` or `q97.5`: the percent below it, more than 0 and less than 100.
    pub fn named(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('q')?;
        let plain = digits.starts_with(|first: char| first.is_ascii_digit());
        let percent: f32 = digits.parse().ok().filter(|_| plain)?;
        // One quantile has one name.
        if percent <= 0.0 || percent >= 100.0 || percent.to_string() != digits {
            return None;
        }
        let (mut low, mut high) = (-EDGE, EDGE);
        for _ in 0..30 {
            let middle = 0.5 * (low + high);
            if share(middle) < percent / 100.0 { low = middle } else { high = middle }
        }
        Some(Self { name: name.to_owned(), normal: 0.5 * (low + high) })
    }

    /// What the product is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The field of all leads, f32 `[lead, channel, y, x]` in the units of the data.
    pub(super) fn field(&self, forecast: &Forecast, transforms: &[Transform]) -> Vec<f32> {
        let [leads, channels, ..] = forecast.shape;
        let planes = (1..=leads).flat_map(|lead| (0..channels).map(move |c| (lead, c)));
        let of = |(lead, channel)| match Drawing::new(forecast, lead, channel, transforms) {
            Some(drawing) => drawing.at(std::iter::repeat(self.normal)),
            None => forecast.served().field(forecast.shape, lead, channel).to_vec(),
        };
        planes.flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_named_by_their_percent() {
        for (name, normal) in [("q50", 0.0), ("q10", -1.281_55), ("q97.5", 1.959_96)] {
            let quantile = Quantile::named(name).unwrap();
            assert!((quantile.normal - normal).abs() < 1e-3, "{name}: {}", quantile.normal);
        }
        for other in [
            "q", "q0", "q100", "q-5", "q1e", "q5e1", "q50.0", "q050", "qnan", "q+5", "p10",
            "sharp", "quality",
        ] {
            assert!(Quantile::named(other).is_none(), "{other}");
        }
    }
}
