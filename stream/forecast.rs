//! What PhysicNet says will happen.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Cadence, SensorId, Time};

/// One forecast field of a window, by one member of the expert bank or by the fusion of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// `physicnet`, `mean`, `sharp`, `persistence`, `advection`, `trend`.
    pub name: Arc<str>,
    /// f32, row-major `[lead, channel, y, x]`, in the units of the data; NaN where the sensor
    /// measured nothing throughout the window. Shared by all who are handed the forecast.
    pub data: Arc<Vec<f32>>,
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
    /// The hash of the checkpoint that made it; `none` for experts without weights.
    pub model: Arc<str>,
    /// 0 for the first forecast of its reference time, n + 1 for the next one.
    pub revision: u32,
    /// The share of missing pixels in the window, 0 to 1.
    pub missing: f32,
    /// The offset of the frame that led to it: reading goes on after it.
    pub offset: u64,
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
