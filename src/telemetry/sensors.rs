//! What is known of each sensor: counters that its taps, and whoever knows more, add to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use physicnet_stream::{Catalogue, Sensor, SensorId, Serving, Time, route};

use super::events::now;

/// How many sensors are told apart.
const MOST: usize = 10_000;
/// No sensor is called silent before so many milliseconds.
const SOON: u64 = 10_000;
/// After how many of its own intervals a sensor is called silent.
const INTERVALS: u64 = 5;
/// The side of the small picture of its newest frame.
pub(super) const THUMB: usize = 16;

/// One sensor, as far as it is known. Times are milliseconds since 1970, and 0 for never.
#[derive(Default)]
pub struct SensorState {
    /// Frames that were judged, used or not.
    pub frames: AtomicU64,
    /// Frames made up for gaps.
    pub missing: AtomicU64,
    /// Frames that were not used, for whatever reason.
    pub rejected: AtomicU64,
    /// Frames that came after a newer one, used or not.
    pub late: AtomicU64,
    /// Forecasts made.
    pub forecasts: AtomicU64,
    /// Of those, forecasts issued again.
    pub revisions: AtomicU64,
    /// When its newest frame was judged.
    pub frame_at: AtomicU64,
    /// When its newest forecast was made.
    pub forecast_at: AtomicU64,
    /// The valid time of its newest frame that was used.
    pub valid_time: AtomicI64,
    /// How long it takes from a frame to the next, running mean in milliseconds.
    interval: AtomicU64,
    /// How far its codes have moved from those of the training data; unknown while the window that
    /// this is taken over is not full.
    pub drift: Gauge,
    /// The drift that is alarming.
    pub drift_limit: Gauge,
    /// Whether its drift is.
    pub drifted: AtomicBool,
    /// The share of missing pixels among the frames that drift is taken over.
    pub missing_pixels: Gauge,
    /// How often its gate closed: a baseline took the place of the network.
    pub gate_closed: AtomicU64,
    /// How many frames that is taken over by now, and how many it is to be taken over, in the upper
    /// and the lower half; 0 while nobody says.
    usage: AtomicU64,
    /// What its newest forecast is: a place in [`Serving::ALL`] and one, 0 for none yet.
    serving: AtomicUsize,
    /// When the frames that are under way were read.
    pub(super) arrivals: Mutex<VecDeque<(Time, Instant)>>,
    /// Its newest frame in little.
    pub(super) thumb: Mutex<Option<Thumb>>,
}

/// A number that many may look at while it changes, if it is known.
pub struct Gauge(AtomicU64);

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Gauge {
    /// The number, if anybody said.
    pub fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Relaxed))).filter(|number| !number.is_nan())
    }

    /// Says what it is; `None` if that is not known any more.
    pub fn set(&self, number: Option<f64>) {
        self.0.store(number.unwrap_or(f64::NAN).to_bits(), Relaxed);
    }
}

/// A frame in little: from 0 for the least value to 254 for the largest, 255 for missing.
#[derive(Clone)]
pub(super) struct Thumb {
    pub(super) pixels: [u8; THUMB * THUMB],
    pub(super) made: u64,
    /// How much of it the field fills.
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// How a sensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// No frame has come yet.
    Waiting,
    /// Frames come, and do not fill a window yet.
    Filling,
    /// Forecasts go out.
    Forecasting,
    /// No frame has come for much longer than usual.
    Silent,
}

impl SensorState {
    /// A frame was used. One that begins the sensor `anew` is its newest whatever was before: its
    /// clock was set. One that is read again after a restart was late then, if it was.
    pub(super) fn used(&self, valid_time: Time, anew: bool, again: bool) {
        if anew {
            self.valid_time.store(valid_time, Relaxed);
        }
        let late = valid_time < self.valid_time.fetch_max(valid_time, Relaxed);
        self.late.fetch_add((late && !again).into(), Relaxed);
        self.came();
    }

    /// A frame was not used.
    pub(super) fn refused(&self, late: bool) {
        self.rejected.fetch_add(1, Relaxed);
        self.late.fetch_add(late.into(), Relaxed);
        self.came();
    }

    fn came(&self) {
        let now = now();
        let before = self.frame_at.swap(now, Relaxed);
        if before > 0 {
            let (mean, last) = (self.interval.load(Relaxed), now.saturating_sub(before));
            self.interval.store(if mean == 0 { last } else { (7 * mean + last) / 8 }, Relaxed);
        }
        self.frames.fetch_add(1, Relaxed);
    }

    /// How many frames there are of the window that drift is taken over, and how many it wants, if
    /// anybody said; it wants none where the model does not say which codes are usual.
    pub fn usage(&self) -> Option<(u32, u32)> {
        let both = self.usage.load(Relaxed);
        (both > 0).then_some(((both >> 32) as u32, both as u32))
    }

    /// Says how many frames there are of the window that drift is taken over.
    pub fn set_usage(&self, frames: usize, window: usize) {
        let [frames, window] =
            [frames, window].map(|n| u64::from(u32::try_from(n).unwrap_or(u32::MAX)));
        self.usage.store((frames << 32) | window, Relaxed);
    }

    /// What its newest forecast is, if there is one.
    pub fn serving(&self) -> Option<Serving> {
        Serving::ALL.get(self.serving.load(Relaxed).checked_sub(1)?).copied()
    }

    /// Says what its newest forecast is.
    pub fn set_serving(&self, serving: Serving) {
        let place = Serving::ALL.iter().position(|known| *known == serving);
        self.serving.store(place.map_or(0, |place| place + 1), Relaxed);
    }

    /// How it does at `now`, given its cadence.
    pub(super) fn standing(&self, now: u64, sensor: &Sensor) -> Standing {
        let frame_at = self.frame_at.load(Relaxed);
        if frame_at == 0 {
            return Standing::Waiting;
        }
        if now.saturating_sub(frame_at) > self.patience(now, sensor) {
            return Standing::Silent;
        }
        let filling = self.forecasts.load(Relaxed) == 0;
        if filling { Standing::Filling } else { Standing::Forecasting }
    }

    /// How long it may say nothing, in milliseconds. What is measured now comes at its cadence,
    /// though it may have been caught up with in a moment; anything else at its own pace.
    fn patience(&self, now: u64, sensor: &Sensor) -> u64 {
        let cadence = sensor.cadence.nanoseconds().unsigned_abs() / 1_000_000;
        let newest = self.valid_time.load(Relaxed) / 1_000_000;
        let live = newest.abs_diff(now as i64) < 20 * cadence;
        let interval = if live { cadence } else { self.interval.load(Relaxed) };
        (INTERVALS * interval).max(SOON)
    }
}

/// The sensors that workers of this process own; those that a catalogue knows by name are there
/// from the start.
pub struct Sensors {
    catalogue: Catalogue,
    /// The workers of this process, and how many there are in all.
    ours: Range<usize>,
    peers: usize,
    states: RwLock<BTreeMap<SensorId, Arc<SensorState>>>,
}

impl Sensors {
    pub(super) fn new(catalogue: Catalogue, ours: Range<usize>, peers: usize) -> Self {
        let mut sensors = Self { catalogue, ours, peers, states: RwLock::default() };
        let known = sensors.catalogue.known().map(|sensor| sensor.id.clone());
        let known = known.filter(|id| sensors.owns(id)).take(MOST);
        let states = known.map(|id| (id, Arc::default())).collect();
        sensors.states = RwLock::new(states);
        sensors
    }

    fn owns(&self, id: &SensorId) -> bool {
        self.ours.contains(&((route(id) % self.peers as u64) as usize))
    }

    /// Whether the job has this sensor, and a worker of this process owns it.
    pub(super) fn ours(&self, id: &SensorId) -> bool {
        self.owns(id) && self.catalogue.get(id).is_some()
    }

    /// The sensor of this name, if it is the job's and ours and there is room for it.
    pub fn get(&self, id: &SensorId) -> Option<Arc<SensorState>> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get(id) {
            return Some(Arc::clone(state));
        }
        drop(states);
        if !self.ours(id) {
            return None;
        }
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if states.len() >= MOST {
            return None;
        }
        Some(Arc::clone(states.entry(id.clone()).or_default()))
    }

    /// Whether there is a sensor of this name, known or met.
    pub(super) fn has(&self, id: &SensorId) -> bool {
        self.states.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// What the catalogue says of it.
    pub(super) fn about(&self, id: &SensorId) -> Option<Arc<Sensor>> {
        self.catalogue.get(id)
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<(SensorId, Arc<SensorState>)> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|(id, state)| (id.clone(), Arc::clone(state))).collect()
    }
}
