//! The handle that taps, the dashboard and whoever has something to tell share.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use physicnet_connectors::kafka::Lag;
use physicnet_operators::scoring::{Metrics, Totals};
use physicnet_stream::{Catalogue, SensorId, Serving};
use timely::worker::Worker;

use super::events::{Events, now};
use super::health::{Beat, Health};
use super::histogram::Histogram;
use super::rates::Rates;
use super::rooms::Rooms;
use super::sensors::{SensorState, Sensors};
use super::view::Views;
use crate::engine::{Cluster, Counts, Parts};

/// Bounds of the seconds from a frame's arrival to its forecast: close enough to see a quantile
/// double.
const LATENCY: [f64; 20] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0,
    5.0, 10.0, 60.0, 300.0,
];

/// What a job is, for those who look at it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct About {
    /// Its name.
    pub name: String,
    /// The hash of the checkpoint that it starts with.
    pub model: String,
    /// Name and unit of each channel.
    pub variables: Vec<(String, String)>,
    /// Frames in a window.
    pub history: usize,
    /// Leads of a forecast.
    pub horizon: usize,
    /// Entries of the codebook.
    pub codes: usize,
    /// Whether the network that serves first was trained.
    pub trained: bool,
    /// Workers of this process.
    pub workers: usize,
    /// Which of the processes this is.
    pub process: usize,
    /// How many there are.
    pub processes: usize,
    /// How many epochs may be open at once.
    pub in_flight: u64,
    /// What is scored of each channel, if forecasts are verified.
    pub scoring: Option<Vec<Metrics>>,
}

/// Everything that is known of a running job.
pub(super) struct Job {
    pub(super) about: About,
    /// The hash of the checkpoint that serves.
    pub(super) model: Mutex<String>,
    pub(super) begun: Instant,
    pub(super) started: u64,
    pub(super) counts: Counts,
    pub(super) totals: Totals,
    pub(super) events: Events,
    pub(super) sensors: Sensors,
    pub(super) rooms: Arc<Rooms>,
    pub(super) health: Health,
    pub(super) latency: Histogram,
    pub(super) revisions: AtomicU64,
    /// Forecasts by what they are, in the order of [`Serving::ALL`].
    pub(super) served: [AtomicU64; Serving::ALL.len()],
    pub(super) views: Views,
    pub(super) rates: Rates,
    /// How far the topics of the sources are read.
    pub(super) lags: Vec<Lag>,
}

impl Job {
    /// By topic and partition, how many messages the sources are behind.
    pub(super) fn lag(&self) -> BTreeMap<(String, i32), u64> {
        self.lags.iter().flat_map(Lag::messages).collect()
    }

    /// The hash of the checkpoint that serves.
    pub(super) fn serving(&self) -> String {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a job says of itself while it runs; clones share it. By default nobody listens, and
/// all that is said is lost at once.
#[derive(Clone, Default)]
pub struct Telemetry(pub(super) Option<Arc<Job>>);

impl Telemetry {
    /// Listens to a job before its sources are opened, which are to say how far they are in `lags`.
    pub fn listen(
        about: About,
        catalogue: &Catalogue,
        counts: &Counts,
        totals: &Totals,
        lags: Vec<Lag>,
    ) -> Self {
        let first = about.process * about.workers;
        let (ours, peers) = (first..first + about.workers, about.processes * about.workers);
        Self(Some(Arc::new(Job {
            views: Views::new(about.horizon, about.history),
            model: Mutex::new(about.model.clone()),
            about,
            begun: Instant::now(),
            started: now(),
            counts: counts.clone(),
            totals: totals.clone(),
            events: Events::default(),
            sensors: Sensors::new(catalogue.clone(), ours, peers),
            rooms: Arc::default(),
            health: Health::default(),
            latency: Histogram::new(&LATENCY),
            revisions: AtomicU64::new(0),
            served: Default::default(),
            rates: Rates::default(),
            lags,
        })))
    }

    /// Feels the pulse of this worker, and reads timely's log of what it builds next.
    pub fn worker(&self, worker: &Worker) -> Beat {
        if let Some(job) = &self.0 {
            job.rooms.listen(worker);
        }
        Beat::new(self.0.as_ref())
    }

    /// Takes note that another model serves.
    pub(crate) fn serves(&self, model: &str) {
        if let Some(job) = &self.0 {
            *job.model.lock().unwrap_or_else(PoisonError::into_inner) = model.to_owned();
        }
    }

    /// The hash of the checkpoint that serves.
    pub(super) fn model(&self) -> String {
        self.0.as_ref().map(|job| job.serving()).unwrap_or_default()
    }

    /// Where to tell what happened; with nobody listening, into the void.
    pub fn events(&self) -> Events {
        self.0.as_ref().map(|job| job.events.clone()).unwrap_or_default()
    }

    /// What is known of a sensor, to read or to add to.
    pub fn sensor(&self, id: &SensorId) -> Option<Arc<SensorState>> {
        self.0.as_ref()?.sensors.get(id)
    }

    /// What keeps the job from being alive.
    pub fn dead(&self) -> Vec<String> {
        self.0.as_ref().map(|job| job.health.dead(now())).unwrap_or_default()
    }

    /// What keeps the job from being of use now.
    pub fn unready(&self) -> Vec<String> {
        let Some(job) = &self.0 else { return Vec::new() };
        let now = now();
        let mut why = job.health.dead(now);
        why.extend(job.health.unready(now, job.about.workers));
        why
    }
}

impl About {
    /// What these parts are as a job of this `name`, run by `cluster`.
    pub fn of(name: &str, parts: &Parts, cluster: &Cluster) -> Self {
        let config = &parts.checkpoint.config;
        let variables = config.variables.iter();
        Self {
            name: name.to_owned(),
            model: parts.checkpoint.id.to_string(),
            variables: variables.map(|v| (v.name.clone(), v.units.clone())).collect(),
            history: config.history,
            horizon: parts.leads(),
            codes: config.codes,
            trained: parts.checkpoint.provenance.steps > 0,
            workers: cluster.workers,
            process: cluster.process,
            processes: cluster.hosts.len().max(1),
            in_flight: parts.in_flight,
            scoring: parts.scoring.as_ref().map(|scoring| scoring.channels.clone()),
        }
    }
}
