//! The members of a dressed forecast.

use physicnet_stream::Forecast;

use super::around::{AROUND, Around, Place};
use super::mixed;
use super::noise::noise;
use super::ranks::{CURVE, value};
use crate::cropping::Transform;

/// Every member's field of lead `lead` (counted from 1), f32 `[channel, y, x]` in the units of the
/// data: the same every time. `transforms` are those that the errors were taken under. None where there is
/// no ensemble.
pub fn members(forecast: &Forecast, lead: usize, transforms: &[Transform]) -> Vec<Vec<f32>> {
    let Some(ensemble) = &forecast.ensemble else { return Vec::new() };
    let [leads, channels, height, width] = forecast.shape;
    if lead == 0 || lead > leads {
        return Vec::new();
    }
    let mut all = vec![Vec::with_capacity(channels * height * width); ensemble.members];
    let mut field = Vec::new();
    for channel in 0..channels {
        let drawing = Drawing::new(forecast, lead, channel, transforms);
        for (number, member) in all.iter_mut().enumerate() {
            let Some(drawing) = &drawing else {
                member.extend_from_slice(forecast.served().field(forecast.shape, lead, channel));
                continue;
            };
            let seed = ensemble.seed ^ mixed((channel as u64) << 32 | number as u64);
            noise(seed, lead, [height, width], &mut field);
            member.extend(drawing.at(field.iter().copied()));
        }
    }
    all
}

/// What is drawn at one lead of one channel.
pub(super) struct Drawing<'a> {
    /// By pixel; nothing where nothing is forecast.
    places: Vec<Option<Place>>,
    curve: &'a [f32],
    spread: f32,
    bounds: [f32; 2],
    transform: Transform,
}

impl<'a> Drawing<'a> {
    /// `None` where the forecast is no ensemble.
    pub(super) fn new(
        forecast: &'a Forecast,
        lead: usize,
        channel: usize,
        transforms: &[Transform],
    ) -> Option<Self> {
        let ensemble = forecast.ensemble.as_ref()?;
        let [_, channels, height, width] = forecast.shape;
        let depth = (lead - 1) * channels + channel;
        let curve = ensemble.curves.get(depth * CURVE..(depth + 1) * CURVE)?;
        let reach = usize::from(*ensemble.reaches.get(depth)?);
        let transform = transforms.get(channel).copied().unwrap_or(Transform::Identity);
        let spread = ensemble.spreads.get(channel).copied().unwrap_or(1.0);
        let endless = [f32::NEG_INFINITY, f32::INFINITY];
        let bounds = ensemble.bounds.get(channel).copied().unwrap_or(endless);
        let served = forecast.served().field(forecast.shape, lead, channel);
        let served: Vec<f32> = served.iter().map(|value| transform.forward(*value)).collect();
        let around = Around::new(&served, [height, width], (reach, lead), spread);
        let places = (0..served.len()).map(|at| around.place(at)).collect();
        Some(Self { places, curve, spread, bounds, transform })
    }

    /// The field at the quantiles of these standard normal numbers, one for each pixel.
    pub(super) fn at(&self, normals: impl Iterator<Item = f32>) -> Vec<f32> {
        let of = |(place, normal): (&Option<Place>, f32)| match place {
            Some(place) => {
                let value = value(self.curve, place, self.spread, normal);
                // What has never been may come where it is forecast nearby.
                let least = self.bounds[0].min(place.values[0]);
                let most = self.bounds[1].max(place.values[AROUND - 1]);
                self.transform.inverse(value.clamp(least, most))
            }
            None => f32::NAN,
        };
        self.places.iter().zip(normals).map(of).collect()
    }
}
