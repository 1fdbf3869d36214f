//! What is kept of the sensors that somebody watches: their last frames and forecasts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use physicnet_stream::{Cadence, SensorId, Time};

use super::events::now;

/// How many may be watched at once.
pub(super) const MOST: usize = 6;
/// How many milliseconds after the last look a sensor is still watched.
const WATCHED: u64 = 20_000;
/// One that was not looked at for so many milliseconds makes room for another: whoever shows a sensor
/// asks every second.
const IDLE: u64 = 4_000;
/// Rows or columns of a field that is kept: a larger one is averaged over squares of pixels.
pub(super) const SIDE: usize = 192;

/// The sensors that are watched.
pub(super) struct Views {
    open: RwLock<Vec<Arc<View>>>,
    any: AtomicBool,
    /// When somebody last asked how the job does.
    looked: AtomicU64,
    /// What was not kept because its place was taken just then.
    pub(super) dropped: AtomicU64,
    horizon: usize,
    history: usize,
}

/// One watched channel of a sensor.
pub(super) struct View {
    pub(super) sensor: SensorId,
    pub(super) channel: usize,
    until: AtomicU64,
    kept: Mutex<Kept>,
}

/// What is kept of it, oldest first.
#[derive(Clone, Default)]
pub(super) struct Kept {
    /// Grows with every change.
    pub(super) version: u64,
    pub(super) frames: VecDeque<(Time, Field)>,
    pub(super) made: VecDeque<(Time, Made)>,
    pub(super) codes: VecDeque<(Time, Codes)>,
    pub(super) flows: VecDeque<(Time, Field)>,
}

/// Values of planes, shared: row-major `[plane, height, width]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Field {
    pub(super) shape: [usize; 3],
    pub(super) values: Arc<[f32]>,
}

/// One forecast of the channel.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) reference_time: Time,
    pub(super) cadence: Cadence,
    pub(super) revision: u32,
    pub(super) missing: f32,
    pub(super) model: Arc<str>,
    pub(super) fields: Field,
}

/// A code map, row-major.
#[derive(Clone)]
pub(super) struct Codes {
    pub(super) shape: [usize; 2],
    pub(super) codes: Arc<[u32]>,
}

impl Views {
    pub(super) fn new(horizon: usize, history: usize) -> Self {
        let (open, any, looked) = (RwLock::default(), AtomicBool::default(), AtomicU64::default());
        Self { open, any, looked, dropped: AtomicU64::new(0), horizon, history }
    }

    /// Somebody asks how the job does.
    pub(super) fn look(&self) {
        self.looked.store(now(), Relaxed);
    }

    /// Whether somebody did, lately.
    pub(super) fn looked(&self) -> bool {
        now().saturating_sub(self.looked.load(Relaxed)) < WATCHED
    }

    /// Watches a channel of a sensor for a while. Where as many as may be are watched already, the
    /// one that was longest not looked at makes room; `None` if all of them are being looked at:
    /// taking turns, none would ever see a whole forecast.
    pub(super) fn watch(&self, sensor: &SensorId, channel: usize) -> Option<Arc<View>> {
        let now = now();
        let until = now + WATCHED;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let same = |view: &&Arc<View>| view.sensor == *sensor && view.channel == channel;
        if let Some(view) = open.iter().find(same) {
            view.until.store(until, Relaxed);
            return Some(Arc::clone(view));
        }
        if open.len() >= MOST {
            open.sort_by_key(|view| view.until.load(Relaxed));
            if open[0].until.load(Relaxed) + IDLE > until {
                return None;
            }
            open.remove(0);
        }
        let view = Arc::new(View {
            sensor: sensor.clone(),
            channel,
            until: AtomicU64::new(until),
            kept: Mutex::default(),
        });
        open.push(Arc::clone(&view));
        self.any.store(true, Relaxed);
        Some(view)
    }

    /// As if nobody had looked for so many milliseconds.
    #[cfg(test)]
    pub(super) fn age(&self, by: u64) {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.iter().for_each(|view| _ = view.until.fetch_sub(by, Relaxed));
    }

    /// Lets go of what nobody watches any more, but for the last one that was: whoever looks again,
    /// perhaps because nothing comes any more, sees at once what there was.
    pub(super) fn forget(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        // One of which something is kept, if there is one: what says nothing shows nothing.
        open.sort_by_key(|view| (view.version() > 0, view.until.load(Relaxed)));
        let last = open.last().cloned();
        let is_last = |view: &Arc<View>| last.as_ref().is_some_and(|last| Arc::ptr_eq(view, last));
        open.retain(|view| view.until.load(Relaxed) > now || is_last(view));
    }

    /// Of these sensors, watches the first one where none is, though nobody has looked yet.
    pub(super) fn begin(&self, sensor: &SensorId) {
        if !self.any.load(Relaxed)
            && let Some(view) = self.watch(sensor, 0)
        {
            view.until.store(0, Relaxed);
        }
    }

    /// The sensor that was looked at last, if one was.
    pub(super) fn last(&self) -> Option<SensorId> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let known = |view: &Arc<View>| (view.version() > 0, view.until.load(Relaxed));
        let last = open.iter().max_by_key(|view| known(view));
        last.map(|view| view.sensor.clone())
    }

    /// Keeps what `make` makes for the watched channels of `sensor`; whoever finds the place
    /// taken goes on without.
    pub(super) fn keep<T>(
        &self,
        sensor: &SensorId,
        make: impl Fn(usize) -> Option<T>,
        put: impl Fn(&mut Kept, T),
    ) {
        if !self.any.load(Relaxed) {
            return;
        }
        let drop_one = || _ = self.dropped.fetch_add(1, Relaxed);
        let Ok(open) = self.open.try_read() else { return drop_one() };
        let watched: Vec<_> = open.iter().filter(|v| v.sensor == *sensor).cloned().collect();
        drop(open);
        for view in watched {
            let Some(made) = make(view.channel) else { continue };
            match view.kept.try_lock() {
                Ok(mut kept) => {
                    put(&mut kept, made);
                    kept.version += 1;
                    kept.bound(self.horizon, self.history);
                }
                Err(_) => drop_one(),
            }
        }
    }
}

impl View {
    fn version(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).version
    }

    /// What is kept now; fields are shared, not copied.
    pub(super) fn read(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Kept {
    /// Forecasts until their last lead is observed, and the frames that those want.
    fn bound(&mut self, horizon: usize, history: usize) {
        shorten(&mut self.made, horizon + 2);
        shorten(&mut self.frames, 2 * horizon + history + 2);
        shorten(&mut self.codes, horizon + 2);
        shorten(&mut self.flows, horizon + 2);
    }
}

/// Puts something of the time `at` in its place, instead of what was there: late frames and
/// revised forecasts come out of turn.
pub(super) fn put<T>(all: &mut VecDeque<(Time, T)>, at: Time, new: T) {
    let place = all.partition_point(|(time, _)| *time < at);
    match all.get_mut(place) {
        Some((time, old)) if *time == at => *old = new,
        _ => all.insert(place, (at, new)),
    }
}

fn shorten<T>(all: &mut VecDeque<T>, most: usize) {
    while all.len() > most {
        all.pop_front();
    }
}

impl Field {
    /// Planes of `height` x `width`, averaged over squares until neither side exceeds `side`.
    pub(super) fn little(planes: &[f32], [height, width]: [usize; 2], side: usize) -> Self {
        let step = height.max(width).div_ceil(side.max(1)).max(1);
        let (rows, columns) = (height.div_ceil(step), width.div_ceil(step));
        let pixels = (height * width).max(1);
        let count = planes.len() / pixels;
        if step == 1 {
            return Self { shape: [count, rows, columns], values: planes.into() };
        }
        let mut values = Vec::with_capacity(count * rows * columns);
        for plane in planes.chunks_exact(pixels) {
            for at in 0..rows * columns {
                let (row, column) = (at / columns * step, at % columns * step);
                let (mut sum, mut n) = (0.0, 0.0);
                for y in row..(row + step).min(height) {
                    let line = &plane[y * width + column..y * width + (column + step).min(width)];
                    for value in line.iter().filter(|value| value.is_finite()) {
                        sum += value;
                        n += 1.0;
                    }
                }
                values.push(sum / n);
            }
        }
        Self { shape: [count, rows, columns], values: values.into() }
    }
}
