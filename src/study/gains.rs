//! By how much a product is better than persistence, where both forecast.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_operators::scoring::Fixed;
use physicnet_stream::{Forecast, Frame};

use super::taps::{plane, squares};

/// Of a product at a lead, by channel, product and lead.
pub(super) type Key = (usize, Arc<str>, usize);

/// The squared errors of a product and of the reference over the pixels that both have: each over
/// its own, one that makes the easy forecasts alone would look good.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gain {
    own: Fixed,
    reference: Fixed,
}

impl Gain {
    pub(super) fn add(&mut self, taken: &Self) {
        self.own += taken.own;
        self.reference += taken.reference;
    }

    /// The share of the reference's squared error that the product does not make.
    pub fn share(&self) -> f64 {
        1.0 - self.own.get() / self.reference.get()
    }
}

/// What a forecast adds.
pub(super) fn taken(
    forecast: &Forecast,
    observed: &[Option<Arc<Frame>>],
    reference: &str,
) -> BTreeMap<Key, Gain> {
    let mut gains = BTreeMap::new();
    let [_, channels, height, width] = forecast.shape;
    let found = forecast.products.iter().find(|product| *product.name == *reference);
    let Some(reference) = found else { return gains };
    for (lead, frame) in observed.iter().enumerate() {
        let Some(frame) = frame else { continue };
        for channel in 0..channels {
            let other = reference.field(forecast.shape, lead + 1, channel);
            let o = plane(&frame.data, channel, [height, width]);
            for product in &forecast.products {
                let own = product.field(forecast.shape, lead + 1, channel);
                let (n, own, other) = squares(o, own, other);
                if n > 0.0 {
                    let gain = Gain { own: Fixed::new(own), reference: Fixed::new(other) };
                    gains.insert((channel, Arc::clone(&product.name), lead + 1), gain);
                }
            }
        }
    }
    gains
}
