//! What an evaluation learns beside its scores: spectra, maps of error, contests between models,
//! the best and the worst forecasts, and what the codebook means.
//!
//! ```text
//! settled forecasts ──┬─► spectra, errors by place, contests ─┐
//! code maps, motion ──┼─► best and worst cases                ├─► Findings
//!                     └─► atlas of the codebook ──────────────┘
//! ```
//!
//! Everything is summed as it streams by; of fields only those of the few best and worst cases are
//! kept. Sums are exact, so neither workers nor batches can be seen in them. The policy for missing
//! pixels is that of the scores: a pixel without an observation, or without a forecast, is left out.

mod atlas;
mod cases;
mod contest;
mod errors;
mod gains;
mod spectra;
mod student;
mod taps;
mod timeline;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use physicnet_operators::cropping::Transform;
use physicnet_operators::layers::Boundary;
use physicnet_stream::{Grid, Sensor, SensorId, Time};

pub use atlas::{Atlas, CONTEXT, Code};
pub use cases::{Case, Cases, CodeMap, Fields, Motion};
pub use contest::{Contest, FEWEST, Verdict};
pub use errors::Errors;
pub use gains::Gain;
pub use spectra::{Spectra, wavelength};
use taps::Recent;
pub(crate) use taps::{MAPPED, REFERENCE};

use crate::engine::Parts;

/// The longer side of maps and of the fields of cases, at most: larger ones are averaged.
pub const SIDE: usize = 128;
/// Grids whose maps and spectra are taken; sensors on others are left out of these.
const GRIDS: usize = 8;
/// Channels whose maps and cases are taken.
pub const CHANNELS: usize = 3;

/// What is studied: the same for the whole evaluation.
#[derive(Clone, Debug)]
pub struct About {
    /// Frames in a window.
    pub history: usize,
    /// Leads of a forecast.
    pub horizon: usize,
    /// Of the reference times, every how manieth is scored.
    pub stride: u64,
    /// Whether the domain wraps around.
    pub periodic: bool,
    /// How each channel is transformed for the network.
    pub transforms: Vec<Transform>,
    /// The sensors that are known by name.
    pub sensors: Vec<Arc<Sensor>>,
}

impl About {
    /// Of a job that is evaluated over `sensors` at every `stride`th reference time.
    pub fn new(parts: &Parts, sensors: Vec<Arc<Sensor>>, stride: u64) -> Self {
        let model = &parts.checkpoint.config;
        Self {
            history: model.history,
            horizon: parts.leads(),
            stride: stride.max(1),
            periodic: model.boundary == Boundary::Periodic,
            transforms: model.variables.iter().map(|variable| variable.transform).collect(),
            sensors,
        }
    }

    /// The leads whose fields are looked at: the first, the middle and the last.
    pub fn leads(&self) -> Vec<usize> {
        let mut leads = vec![1, self.horizon.div_ceil(2), self.horizon];
        leads.dedup();
        leads
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Forecasts of which at least one lead was verified.
    pub forecasts: u64,
    /// The first and the last of their reference times.
    pub period: Option<(Time, Time)>,
    /// What was found on each grid, with the number of its forecasts.
    pub grids: Vec<OnGrid>,
    /// Forecasts of sensors on further grids: they are in no map and no spectrum.
    pub elsewhere: u64,
    /// The served product against each other one, by channel, product and lead.
    pub contests: BTreeMap<(usize, Arc<str>, usize), Contest>,
    /// Each product against persistence, by channel, product and lead.
    pub gains: BTreeMap<(usize, Arc<str>, usize), Gain>,
    /// The best and the worst forecasts of each channel.
    pub cases: Vec<Cases>,
    /// What the codes mean, where there is a codebook.
    pub atlas: Option<Atlas>,
}

/// What was found on one grid.
#[derive(Clone, Debug, PartialEq)]
pub struct OnGrid {
    /// The grid.
    pub grid: Grid,
    /// Its forecasts.
    pub forecasts: u64,
    /// By channel.
    pub spectra: Vec<Spectra>,
    /// By channel.
    pub errors: Vec<Errors>,
}

impl Findings {
    /// Nothing yet, with room for the grids of these sensors.
    fn of(sensors: &[Arc<Sensor>]) -> Self {
        let mut findings = Self::default();
        for sensor in sensors {
            if findings.on(&sensor.grid).is_none() && findings.grids.len() < GRIDS {
                let [channels, ..] = sensor.grid.shape();
                findings.grids.push(OnGrid {
                    grid: sensor.grid.clone(),
                    forecasts: 0,
                    spectra: vec![Spectra::default(); channels],
                    errors: vec![Errors::default(); channels.min(CHANNELS)],
                });
            }
        }
        findings
    }

    fn on(&mut self, grid: &Grid) -> Option<&mut OnGrid> {
        self.grids.iter_mut().find(|on| on.grid == *grid)
    }

    /// The grid with the most forecasts, the first of those with as many.
    pub fn main(&self) -> Option<&OnGrid> {
        self.grids.iter().rev().max_by_key(|on| on.forecasts).filter(|on| on.forecasts > 0)
    }
}

/// A study that goes on beside an evaluation, or none.
#[derive(Clone, Default)]
pub struct Study(Option<Arc<Desk>>);

/// Where the workers put what they find.
struct Desk {
    about: About,
    findings: Mutex<Findings>,
    recent: Mutex<BTreeMap<SensorId, Recent>>,
}

impl Study {
    /// Begins a study.
    pub fn begin(about: About) -> Self {
        let findings = Mutex::new(Findings::of(&about.sensors));
        Self(Some(Arc::new(Desk { about, findings, recent: Mutex::default() })))
    }

    /// What it is about, if there is one.
    pub fn about(&self) -> Option<&About> {
        self.0.as_ref().map(|desk| &desk.about)
    }

    /// How many frames before a forecast it wants to see; `None` where nothing is studied.
    pub(crate) fn past(&self) -> Option<usize> {
        self.0.as_ref().map(|desk| desk.about.history)
    }

    /// What was found so far.
    pub fn findings(&self) -> Findings {
        self.0.as_ref().map(|desk| desk.findings().clone()).unwrap_or_default()
    }
}

impl Desk {
    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<SensorId, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
