//! What PhysicNet says will happen.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Cadence, SensorId, Time};

/// One forecast field of a window, by one member of the expert bank or by the fusion of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// `physicnet`, `mean`, `sharp`, `persistence`, `advection`, `trend`; in a job that learns
    /// also `network`, which is what the network itself says where `physicnet` is what is served.
    pub name: Arc<str>,
    /// f32, row-major `[lead, channel, y, x]`, in the units of the data; NaN where the sensor
    /// measured nothing throughout the window. Of what is the same at every lead, as persistence
    /// is, `[channel, y, x]` once; the served product has all leads. Shared by all who are handed
    /// the forecast.
    pub data: Arc<Vec<f32>>,
}

impl Product {
    /// The field `[y, x]` of lead `lead`, counted from 1, and `channel`, in a forecast of `shape`;
    /// empty where there is none.
    pub fn field(&self, shape: [usize; 4], lead: usize, channel: usize) -> &[f32] {
        let [leads, channels, height, width] = shape;
        let pixels = height * width;
        if lead == 0 || lead > leads || channel >= channels {
            return &[];
        }
        let once = self.data.len() == channels * pixels;
        let at = if once { channel } else { (lead - 1) * channels + channel };
        self.data.get(at * pixels..(at + 1) * pixels).unwrap_or_default()
    }

    /// All leads, `[lead, channel, y, x]`, in a forecast of `shape`.
    pub fn leads(&self, shape: [usize; 4]) -> Arc<Vec<f32>> {
        let [leads, channels, height, width] = shape;
        if leads != 1 && self.data.len() == channels * height * width {
            return self.data.repeat(leads).into();
        }
        Arc::clone(&self.data)
    }
}

/// What is served as a forecast, in a job that learns which is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// The network's field, as it is.
    Physicnet,
    /// The network's and the advected field, blended.
    Blend,
    /// The advected field.
    Advection,
    /// The newest frame.
    Persistence,
}

impl Serving {
    /// Every kind, in the order of the flags that stores have: a new one comes last.
    pub const ALL: [Self; 4] = [Self::Physicnet, Self::Blend, Self::Advection, Self::Persistence];

    /// The name that logs, counts and messages use.
    pub fn label(self) -> &'static str {
        match self {
            Self::Physicnet => "physicnet",
            Self::Blend => "blend",
            Self::Advection => "advection",
            Self::Persistence => "persistence",
        }
    }
}

/// How sure a forecast is: what its members are drawn from, in as little memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// How many members there are.
    pub members: usize,
    /// What they are drawn by: the same seed draws the same.
    pub seed: u64,
    /// By channel, what errors are counted in, in transformed units.
    pub spreads: Vec<f32>,
    /// By channel, the least and the largest that it has been, transformed: only what is served goes beyond.
    pub bounds: Vec<[f32; 2]>,
    /// By lead and channel, how far around a pixel its values are taken from.
    pub reaches: Vec<u8>,
    /// As many curves: which of these values come how often.
    pub curves: Vec<f32>,
}

/// A forecast: f32 `(lead, channel, y, x)` for lead times of 1..=`horizon` cadences after the
/// reference time, with its provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Whose future it is.
    pub sensor: SensorId,
    /// The valid time of the newest frame in the window.
    pub reference_time: Time,
    /// Lead k is valid at `reference_time + k * cadence`.
    pub cadence: Cadence,
    /// `[lead, channel, y, x]`.
    pub shape: [usize; 4],
    /// The served product first, then those that are scored beside it.
    pub products: Vec<Product>,
    /// What the served product is; `None` where nothing is learnt: it is the network's.
    pub serving: Option<Serving>,
    /// How sure the served product is; `None` where no ensemble is asked for.
    pub ensemble: Option<Arc<Ensemble>>,
    /// The hash of the checkpoint that made it; `none` for experts without weights.
    pub model: Arc<str>,
    /// Its network is on trial: it goes nowhere but beside the one that is served.
    pub candidate: bool,
    /// 0 for the first forecast of its reference time, n + 1 for the next one.
    pub revision: u32,
    /// The share of missing pixels in the window, 0 to 1.
    pub missing: f32,
    /// The offset of the frame that led to it: reading goes on after it.
    pub offset: u64,
    /// The valid time of that frame: the reference time, unless it came late.
    pub frame_time: Time,
    /// The offset of the first frame that a restart must read again.
    pub replay_from: u64,
    /// Made again after a restart: the first one is durable.
    pub replay: bool,
    /// Made again after a restart: the verification has taken it in.
    pub scored: bool,
}

impl Forecast {
    /// The product that is served: the first.
    pub fn served(&self) -> &Product {
        &self.products[0]
    }

    /// The valid time of lead `k`, counted from 1.
    pub fn valid_time(&self, lead: usize) -> Time {
        self.cadence.after(self.reference_time, lead as i64)
    }
}
