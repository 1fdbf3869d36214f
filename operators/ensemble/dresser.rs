//! What is known of one sensor's errors: a pure state machine from frames and forecasts to forecasts
//! that know how sure they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_stream::{Cadence, Ensemble, Forecast, Product, Time, route};
use serde::{Deserialize, Serialize};

use super::around::{Around, REACHES, USUAL};
use super::mixed;
use super::quantile::Quantile;
use super::ranks::{CURVE, Ranks, prior};
use super::sample::Sample;
use crate::admission::Admitted;
use crate::cropping::Transform;
use crate::learning::{Pupil, teaches};

/// What an ensemble is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleConfig {
    /// How many members are drawn.
    pub members: usize,
    /// After so many verified frames a frame's errors count by 1 / e.
    pub memory: u32,
    /// How each channel is transformed: errors are taken where they are most alike.
    pub transforms: Vec<Transform>,
    /// Which quantiles become products of the forecast.
    pub quantiles: Vec<Quantile>,
}

/// What is known of a sensor's errors; with it a restart goes on as if there had been none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// What errors of each channel are counted in, transformed.
    spreads: Vec<f32>,
    /// The least and the largest that each channel has been, transformed.
    bounds: Vec<[f32; 2]>,
    /// By lead, channel and reach.
    ranks: Vec<Ranks>,
}

/// A forecast that waits for what comes.
struct Pending {
    cadence: Cadence,
    shape: [usize; 4],
    served: Product,
}

/// Dresses one sensor's forecasts in the errors of those before.
pub struct Dresser {
    config: EnsembleConfig,
    known: Known,
    newest: Option<Time>,
    /// By reference time.
    pending: BTreeMap<Time, Pending>,
}

impl Dresser {
    /// Goes on from what was known before.
    pub fn new(config: EnsembleConfig, known: Known) -> Self {
        Self { config, known, newest: None, pending: BTreeMap::new() }
    }

    /// Verifies all that waits for this frame.
    fn observe(&mut self, frame: &Admitted) {
        let [channels, height, width] = frame.shape;
        let (size, pixels) = ([height, width], (height * width).max(1));
        if self.known.spreads.len() != channels {
            let planes = frame.data.chunks_exact(pixels).enumerate();
            let spread = |(channel, plane): (usize, &[f32])| {
                let transform = self.transform(channel);
                match transform {
                    Transform::Standardise { std: Some(_), .. } => 1.0,
                    // That of rain: a first frame may be dry.
                    Transform::LogRate { .. } => 0.6,
                    _ => deviation(plane.iter().map(|value| transform.forward(*value))),
                }
            };
            self.known.spreads = planes.map(spread).collect();
            self.known.bounds = vec![[f32::INFINITY, f32::NEG_INFINITY]; channels];
        }
        for (channel, plane) in frame.data.chunks_exact(pixels).enumerate() {
            let transform = self.transform(channel);
            for value in plane.iter().map(|v| transform.forward(*v)).filter(|v| v.is_finite()) {
                let [least, most] = &mut self.known.bounds[channel];
                (*least, *most) = (least.min(value), most.max(value));
            }
        }
        let decay = (-1.0 / self.config.memory.max(1) as f32).exp();
        let sample = Sample::new(size, frame.valid_time);
        for (reference, pending) in &self.pending {
            let [leads, ..] = pending.shape;
            let lead = pending.cadence.steps(*reference, frame.valid_time);
            if !(1..=leads as i64).contains(&lead) || frame.shape != pending.shape[1..] {
                continue;
            }
            let lead = lead as usize;
            self.known.ranks.resize(leads * channels * REACHES.len(), Ranks::default());
            for channel in 0..channels {
                let (spread, transform) = (self.known.spreads[channel], self.transform(channel));
                let served = pending.served.field(pending.shape, lead, channel);
                let served: Vec<f32> = served.iter().map(|v| transform.forward(*v)).collect();
                let observed = &frame.data[channel * pixels..][..pixels];
                let depth = (lead - 1) * channels + channel;
                for reach in 0..REACHES.len() {
                    let around = Around::new(&served, size, (reach, lead), spread);
                    let known = &mut self.known.ranks[depth * REACHES.len() + reach];
                    known.fade(decay);
                    let came = |at: usize| transform.forward(observed[at]);
                    sample.teach(known, &around, spread, came);
                }
            }
        }
    }

    fn transform(&self, channel: usize) -> Transform {
        self.config.transforms.get(channel).copied().unwrap_or(Transform::Identity)
    }

    /// What a forecast is dressed in now: of every lead and channel the reach of the least loss. A lead
    /// that nothing has verified yet takes after the longest that something has; before there is one, the
    /// values around a pixel are taken as they are.
    fn ensemble(&self, forecast: &Forecast) -> Ensemble {
        let [leads, channels, ..] = forecast.shape;
        let (mut reaches, mut curves) = (Vec::new(), Vec::new());
        for lead in self.known.ranks.chunks_exact(REACHES.len() * channels.max(1)) {
            let best = |all: &'_ [Ranks]| {
                let known = all.iter().enumerate().filter(|(_, ranks)| ranks.known());
                known.min_by(|(_, a), (_, b)| a.loss().total_cmp(&b.loss())).map(|(at, _)| at)
            };
            let all: Vec<_> = lead.chunks_exact(REACHES.len()).collect();
            let Some(best) = all.iter().map(|all| best(all)).collect::<Option<Vec<_>>>() else {
                break;
            };
            for (all, best) in all.into_iter().zip(best) {
                reaches.push(best as u8);
                all[best].curve(&mut curves);
            }
        }
        if reaches.is_empty() {
            reaches.resize(channels, USUAL as u8);
            (0..channels).for_each(|_| prior(&mut curves));
        }
        while reaches.len() < leads * channels {
            reaches.extend_from_within(reaches.len() - channels..);
            curves.extend_from_within(curves.len() - channels * CURVE..);
        }
        Ensemble {
            members: self.config.members,
            seed: mixed(route(&forecast.sensor) ^ mixed(forecast.reference_time as u64)),
            spreads: self.known.spreads.clone(),
            bounds: self.known.bounds.clone(),
            reaches,
            curves,
        }
    }
}

impl Pupil for Dresser {
    type Known = Known;

    fn known(&self) -> &Known {
        &self.known
    }

    /// The frame's errors count if it is the newest: late and corrected ones teach nothing, as in
    /// learning, nor do forecasts that are issued again. A frame that was taken in before a restart only
    /// takes out what waits no longer.
    fn epoch(&mut self, frame: &Admitted, forecasts: &mut [Forecast]) {
        let now = frame.valid_time;
        let newest = teaches(&mut self.newest, frame);
        if newest {
            self.pending.retain(|reference, _| *reference < now);
            if !frame.scored {
                self.observe(frame);
            }
            self.pending.retain(|reference, pending| {
                pending.cadence.steps(*reference, now) < pending.shape[0] as i64
            });
        }
        for forecast in forecasts.iter_mut() {
            if newest && forecast.reference_time == now && forecast.revision == 0 {
                let (cadence, shape) = (forecast.cadence, forecast.shape);
                let served = forecast.served().clone();
                self.pending.insert(now, Pending { cadence, shape, served });
            }
            forecast.ensemble = Some(Arc::new(self.ensemble(forecast)));
            for quantile in &self.config.quantiles {
                let data = quantile.field(forecast, &self.config.transforms);
                let name = quantile.name().into();
                forecast.products.push(Product { name, data: Arc::new(data) });
            }
        }
    }
}

/// The standard deviation of what is finite; 1 where that is nothing.
fn deviation(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let finite = || values.clone().filter(|value| value.is_finite()).map(f64::from);
    let (n, sum) = finite().fold((0.0, 0.0), |(n, sum), v| (n + 1.0, sum + v));
    let square = finite().map(|v| (v - sum / n).powi(2)).sum::<f64>();
    let deviation = (square / n).sqrt() as f32;
    if deviation.is_finite() && deviation > 0.0 { deviation } else { 1.0 }
}
