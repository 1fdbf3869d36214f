//! What is learnt of one sensor: a pure state machine from frames and forecasts to what is served.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use physicnet_stream::{Cadence, Forecast, Product, Serving, Time};
use serde::{Deserialize, Serialize};

use super::operator::{Pupil, teaches};
use crate::admission::Admitted;

/// Before so many verified frames the network is served as it is, if it is not grossly wrong.
const ENOUGH: u32 = 6;
/// What is served gives way to what was better by this share of its squared error, so that two
/// that are equally good do not take turns.
const MARGIN: f64 = 0.03;
/// What is so many times as bad in squared error as what is best needs no more than one verified
/// frame to give way.
const GROSS: f64 = 4.0;
/// What the gate chooses from, as `Learnt::errors` are kept.
const CHOICES: [Serving; 3] = [Serving::Blend, Serving::Advection, Serving::Persistence];

/// How forecasts learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnConfig {
    /// After so many verified frames a frame counts by 1 / e.
    pub memory: u32,
    /// Whether a baseline is served where it was better.
    pub gate: bool,
    /// For so many frames back it is known how they were served: a restart makes their forecasts
    /// again, and they must be what they were.
    pub keep: usize,
}

/// The sums of one lead and channel: `x = network - advection`, `y = observation - advection`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Blend {
    frames: u32,
    xx: f64,
    xy: f64,
}

impl Blend {
    /// The network's share with the least squared error: 1 while too little is known, and where
    /// the two fields were the same.
    fn weight(&self) -> f32 {
        let known = self.frames >= ENOUGH && self.xx > 0.0;
        if known { (self.xy / self.xx).clamp(0.0, 1.0) as f32 } else { 1.0 }
    }
}

/// What a forecast is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mix {
    serving: Serving,
    /// The network's share by lead and channel, of a blend.
    weights: Vec<f32>,
}

/// How the forecasts that one frame led to were served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Served {
    valid_time: Time,
    offset: u64,
    mix: Mix,
}

/// All that is learnt of a sensor; with it a restart goes on as if there had been none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    /// How many frames verified a forecast.
    frames: u32,
    /// By lead and channel.
    blends: Vec<Blend>,
    /// By channel, the squared errors of each of `CHOICES`.
    errors: Vec<[f64; 3]>,
    /// What the gate lets through.
    gate: Serving,
    /// Of the last frames, oldest first.
    served: VecDeque<Served>,
}

impl Default for Learnt {
    fn default() -> Self {
        Self {
            frames: 0,
            blends: Vec::new(),
            errors: Vec::new(),
            gate: Serving::Blend,
            served: VecDeque::new(),
        }
    }
}

/// One lead and channel of a forecast beside what came, summed over the measured pixels.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    xx: f64,
    xy: f64,
    yy: f64,
    persistence: f64,
}

impl Moments {
    /// The squared error of the blend with weight `w`.
    fn blended(&self, w: f64) -> f64 {
        // The difference of large numbers may come out below nothing.
        (self.yy - 2.0 * w * self.xy + w * w * self.xx).max(0.0)
    }
}

impl Learnt {
    /// What the gate lets through, and the errors that it decided by, each relative to the mean
    /// of the baselines': of the blend, of advection, of persistence.
    pub fn standing(&self) -> (Serving, [f64; 3]) {
        (self.gate, self.relative())
    }

    /// Channels have units of their own, so each counts relative to what the baselines make of it.
    fn relative(&self) -> [f64; 3] {
        let mut relative = [0.0; 3];
        for errors in &self.errors {
            let usual = (errors[1] + errors[2]) / 2.0;
            if usual > 0.0 {
                relative.iter_mut().zip(errors).for_each(|(sum, error)| *sum += error / usual);
            }
        }
        relative.map(|sum| sum / self.errors.len().max(1) as f64)
    }

    /// Takes in what a frame has verified: `(lead * channels + channel, moments)`. The errors of
    /// the blend are those that it has before it learns of them.
    fn take(&mut self, config: &LearnConfig, verified: &[(usize, Moments)]) {
        if verified.is_empty() {
            return;
        }
        let decay = (-1.0 / f64::from(config.memory.max(1))).exp();
        let channels = self.errors.len().max(1);
        self.frames = self.frames.saturating_add(1);
        self.errors.iter_mut().flatten().for_each(|error| *error *= decay);
        for (depth, moments) in verified {
            let blend = &mut self.blends[*depth];
            let blended = moments.blended(blend.weight().into());
            let errors = &mut self.errors[depth % channels];
            for (sum, term) in errors.iter_mut().zip([blended, moments.yy, moments.persistence]) {
                *sum += term;
            }
            blend.xx = blend.xx * decay + moments.xx;
            blend.xy = blend.xy * decay + moments.xy;
            blend.frames = blend.frames.saturating_add(1);
        }
        if config.gate {
            let errors: Vec<_> = CHOICES.into_iter().zip(self.relative()).collect();
            let best = errors.iter().min_by(|a, b| a.1.total_cmp(&b.1));
            let own = errors.iter().find(|(choice, _)| *choice == self.gate);
            let enough = if self.frames >= ENOUGH { 1.0 + MARGIN } else { GROSS };
            if let (Some(best), Some(own)) = (best, own)
                && own.1 > enough * best.1
            {
                self.gate = best.0;
            }
        }
    }

    /// What is served now.
    fn mix(&self) -> Mix {
        let weights: Vec<f32> = self.blends.iter().map(Blend::weight).collect();
        match self.gate {
            Serving::Blend if weights.iter().all(|w| *w == 1.0) => {
                Mix { serving: Serving::Physicnet, weights: Vec::new() }
            }
            Serving::Blend => Mix { serving: Serving::Blend, weights },
            serving => Mix { serving, weights: Vec::new() },
        }
    }
}

impl Mix {
    /// Makes the first product what is served; what the network says follows as `network`.
    fn serve(&self, forecast: &mut Forecast) {
        let field = |name: &str| forecast.products.iter().find(|product| &*product.name == name);
        let own = &forecast.served().data;
        let served = match self.serving {
            Serving::Physicnet => None,
            Serving::Blend => field("advection").map(|advection| {
                let [_, _, height, width] = forecast.shape;
                Arc::new(blend(own, &advection.data, &self.weights, height * width))
            }),
            other => field(other.label()).map(|baseline| baseline.leads(forecast.shape)),
        };
        let served = served.unwrap_or_else(|| Arc::clone(own));
        let first = &mut forecast.products[0];
        let data = std::mem::replace(&mut first.data, served);
        forecast.products.push(Product { name: "network".into(), data });
        forecast.serving = Some(self.serving);
    }
}

/// Between the two fields, never beyond either: values on one side of a threshold stay there,
/// which is what a variable's `keep` asks of the served product.
fn blend(network: &[f32], advection: &[f32], weights: &[f32], pixels: usize) -> Vec<f32> {
    let weight = |at: usize| weights.get(at / pixels.max(1)).copied().unwrap_or(1.0);
    let pairs = network.iter().zip(advection).enumerate();
    let value = |(at, (&n, &a)): (usize, (&f32, &f32))| {
        let (from, to) = (f64::from(a), f64::from(n));
        let value = (from + f64::from(weight(at)) * (to - from)) as f32;
        if n.is_nan() || a.is_nan() { n } else { value.clamp(a.min(n), a.max(n)) }
    };
    pairs.map(value).collect()
}

/// A forecast that waits for what comes.
struct Pending {
    cadence: Cadence,
    shape: [usize; 4],
    network: Product,
    advection: Product,
    persistence: Product,
}

impl Pending {
    fn of(forecast: &Forecast) -> Option<Self> {
        let field =
            |name: &str| forecast.products.iter().find(|product| &*product.name == name).cloned();
        Some(Self {
            cadence: forecast.cadence,
            shape: forecast.shape,
            network: forecast.served().clone(),
            advection: field("advection")?,
            persistence: field("persistence")?,
        })
    }

    /// The moments of each channel of one lead, beside a frame's values.
    fn moments(&self, lead: usize, observed: &[f32]) -> impl Iterator<Item = (usize, Moments)> {
        let [_, channels, height, width] = self.shape;
        let pixels = (height * width).max(1);
        (0..channels).map(move |channel| {
            let depth = (lead - 1) * channels + channel;
            let [network, advection, persistence] =
                [&self.network, &self.advection, &self.persistence]
                    .map(|product| product.field(self.shape, lead, channel));
            let mut sums = Moments::default();
            let observed = &observed[channel * pixels..];
            for (((o, n), a), p) in observed.iter().zip(network).zip(advection).zip(persistence) {
                let [o, n, a, p] = [o, n, a, p].map(|value| f64::from(*value));
                let (x, y, rest) = (n - a, o - a, o - p);
                // What is not measured, or not forecast, says nothing.
                if !(x.is_finite() && y.is_finite() && rest.is_finite()) {
                    continue;
                }
                sums.xx += x * x;
                sums.xy += x * y;
                sums.yy += y * y;
                sums.persistence += rest * rest;
            }
            (depth, sums)
        })
    }
}

/// What one sensor's forecasts learn from its frames.
pub struct Learner {
    config: LearnConfig,
    learnt: Learnt,
    newest: Option<Time>,
    /// By reference time.
    pending: BTreeMap<Time, Pending>,
}

impl Learner {
    /// Goes on from what was learnt before.
    pub fn new(config: LearnConfig, learnt: Learnt) -> Self {
        Self { config, learnt, newest: None, pending: BTreeMap::new() }
    }

    /// Verifies what waits for this frame. One that was taken in before a restart only takes out
    /// what waits no longer.
    fn observe(&mut self, frame: &Admitted) {
        let now = frame.valid_time;
        let mut verified = Vec::new();
        for (reference, pending) in self.pending.iter().filter(|_| !frame.scored) {
            let [leads, channels, height, width] = pending.shape;
            let lead = pending.cadence.steps(*reference, now);
            if (1..=leads as i64).contains(&lead) && frame.shape == [channels, height, width] {
                self.learnt.blends.resize(leads * channels, Blend::default());
                self.learnt.errors.resize(channels, [0.0; 3]);
                verified.extend(pending.moments(lead as usize, &frame.data));
            }
        }
        self.learnt.take(&self.config, &verified);
        self.pending.retain(|reference, pending| {
            pending.cadence.steps(*reference, now) < pending.shape[0] as i64
        });
    }

    /// How the forecasts of a frame that is read again were served: since then more may have been
    /// learnt.
    fn recall(&self, frame: &Admitted) -> Option<Mix> {
        let is = |served: &&Served| {
            (served.valid_time, served.offset) == (frame.valid_time, frame.offset)
        };
        let served = self.learnt.served.iter().rev().filter(|_| frame.scored).find(is);
        served.map(|served| served.mix.clone())
    }
}

impl Pupil for Learner {
    type Known = Learnt;

    fn known(&self) -> &Learnt {
        &self.learnt
    }

    /// The forecasts are turned into what is served.
    ///
    /// The frame teaches if it is the newest. A late or corrected one does not: what was learnt
    /// from a wrong frame cannot be unlearnt from sums that have faded since, and a late one would
    /// be weighed as if it were new. Nor does a forecast that is issued again.
    fn epoch(&mut self, frame: &Admitted, forecasts: &mut [Forecast]) {
        let now = frame.valid_time;
        let newest = teaches(&mut self.newest, frame);
        if newest {
            // A clock that was set back leaves forecasts of times that have not come.
            self.pending.retain(|reference, _| *reference < now);
            self.observe(frame);
        }
        let mix = self.recall(frame).unwrap_or_else(|| self.learnt.mix());
        for forecast in forecasts.iter_mut() {
            if newest && forecast.reference_time == now && forecast.revision == 0 {
                let pending = Pending::of(forecast);
                self.pending.extend(pending.map(|pending| (now, pending)));
            }
            mix.serve(forecast);
        }
        if !frame.scored && !forecasts.is_empty() {
            let (valid_time, offset) = (now, frame.offset);
            self.learnt.served.push_back(Served { valid_time, offset, mix });
            let surplus = self.learnt.served.len().saturating_sub(self.config.keep);
            self.learnt.served.drain(..surplus);
        }
    }
}
