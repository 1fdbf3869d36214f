//! Random access to the frames of a store: the sensors, their valid times, any frame of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use physicnet_stream::{
    Cadence, Error, Frame, Grid, Result, Sensor, Time, format_time, parse_duration,
};

use super::cache::Cache;
use super::cadence::{check, irregular, median};
use super::channels::{Channels, variables};
use super::config::ZarrSource;
use super::layout::{listed, time_dim};
use super::leads;
use super::place::shown;
use super::store::{Store, Unread};

/// A store open for reading any frame, from any thread. Decoded chunks are kept up to a bound,
/// so reading frame by frame decodes a chunk of many frames once.
pub struct Archive {
    config: ZarrSource,
    sensors: Vec<Arc<Sensor>>,
    /// The rows of the store that lie in the period asked for, and their valid times.
    rows: Vec<u64>,
    times: Vec<Time>,
    variables: Vec<Channels>,
    leads: Vec<i64>,
    cache: Cache,
    consolidated: bool,
    /// The root's metadata.
    root: Vec<u8>,
    /// Frames of which it was said that they cannot be decoded.
    missed: Mutex<BTreeSet<(usize, usize)>>,
}

impl Archive {
    /// Opens the store that `config` names.
    ///
    /// # Errors
    /// When it is no store, lacks a variable, or its dims, times or types are not understood:
    /// the error names the store, the array, and what there is instead.
    pub fn open(config: &ZarrSource) -> Result<Self> {
        config.validate().map_err(|e| Error::new(shown(&config.path), e))?;
        let mut store = Store::open(&config.path)?;
        // Another program may be appending this very moment: xarray takes the consolidated
        // metadata away meanwhile. A store that never has it is taken as it is.
        for _ in 0..20 {
            if store.consolidated || !config.follow {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            store = Store::open(&config.path)?;
        }
        if config.follow && !store.consolidated {
            tracing::warn!(
                "{}: has no consolidated metadata, so a frame may be read before all of it is \
                 written; let its writer consolidate (xarray's `to_zarr` does by default)",
                store.name()
            );
        }
        let archive = Self::of(&store, config, None)?;
        if let (Some(_), Some(sensor)) = (&config.cadence, archive.sensors.first()) {
            check(sensor.cadence, &archive.times, store.name())?;
        }
        Ok(archive)
    }

    /// The archive in a store that is open; `member` is the dim of an ensemble's members, each with
    /// sensors of its own.
    pub(super) fn of(store: &Store, config: &ZarrSource, member: Option<&str>) -> Result<Self> {
        let path = &shown(&config.path);
        let time = time_dim(store)?;
        let variables = variables(store, config, &time, member)?;
        let Some(first) = variables.first() else {
            let why = format!("has no variable over {time} and two more dims");
            return Err(Error::new(path, format!("{why}; its arrays are: {}", listed(store))));
        };
        let (y, x) = (first.axis(store, first.layout.y)?, first.axis(store, first.layout.x)?);
        for other in &variables[1..] {
            if other.extent() != first.extent() {
                return Err(other.array.error(format!(
                    "differs from {} in (samples, times, rows, columns): {:?} and {:?}; list \
                     under `variables` those that belong together",
                    first.array.name(),
                    other.extent(),
                    first.extent()
                )));
            }
        }
        let Some(coordinate) = store.array(&time)? else {
            return Err(Error::new(path, format!("lost its {time} while it was opened")));
        };
        let mut times = coordinate.times()?;
        // A store that grows may be seen between the resizing of two arrays.
        let [samples, length, ..] = first.extent();
        let lead = first.array.dims.iter().find_map(|dim| leads::coordinate(store, dim));
        // What cannot be read as spans of time may be anything.
        let leads = lead.and_then(|lead| lead.spans().ok()).unwrap_or_default();
        times.truncate(length as usize);
        if config.follow && !store.consolidated {
            // Arrays grow before they are filled.
            let unwritten = [Some(Time::MIN), coordinate.unwritten_time()];
            while times.last().is_some_and(|time| unwritten.contains(&Some(*time))) {
                times.pop();
            }
        }
        let cadence = match &config.cadence {
            Some(text) => Cadence::new(parse_duration(text)?)?,
            None => median(&times).ok_or_else(|| {
                let valid = times.iter().filter(|time| **time != Time::MIN).count();
                let why = match times.len() {
                    0 => format!("holds no frames: its {time} is empty"),
                    1 => "has a single time: say the `cadence`, e.g. 5min".to_owned(),
                    all if valid == all && times.windows(2).any(|pair| pair[1] < pair[0]) => {
                        format!(
                            "has times that go backwards, all {all} of them: put them in order, \
                         `ds.sortby(\"{time}\")` in xarray, and write the store anew"
                        )
                    }
                    all => format!(
                        "has no two times of which the later stands behind the earlier ({valid} of \
                         its {all} times can be understood): say the `cadence`, e.g. 5min"
                    ),
                };
                Error::new(path, why)
            })?,
        };
        let (from, to) = config.period()?;
        let whole = config.from.is_none() && config.to.is_none();
        let rows: Vec<u64> = (0_u64..)
            .zip(&times)
            .filter(|(_, time)| whole || (from..to).contains(*time))
            .map(|(row, _)| row)
            .collect();
        let grid = Grid { variables: variables.iter().flat_map(Channels::names).collect(), y, x };
        let sensor =
            |name: String| Arc::new(Sensor { id: name.into(), grid: grid.clone(), cadence });
        let stem = config.stem();
        let sensors = match (first.layout.sample, first.layout.member) {
            (None, None) => vec![sensor(stem)],
            _ => (0..samples).map(|i| sensor(format!("{stem}/{i:04}"))).collect(),
        };
        Ok(Self {
            times: rows.iter().map(|row| times[*row as usize]).collect(),
            rows,
            sensors,
            variables,
            leads,
            cache: Cache::new(config.cache_mib << 20),
            config: config.clone(),
            consolidated: store.consolidated,
            root: store.root.clone(),
            missed: Mutex::default(),
        })
    }

    /// Opens the same store again, as it is now; nothing where it has not changed, or while
    /// another program is appending to it and has taken its consolidated metadata away, since
    /// arrays grow before they are filled.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the store has become another one: other sensors.
    pub fn reopen(&self) -> Result<Option<Self>> {
        let store = Store::open(&self.config.path)?;
        if self.consolidated && (!store.consolidated || store.root == self.root) {
            return Ok(None);
        }
        let mut config = self.config.clone();
        // The median of more times may differ, but a sensor's cadence is for life.
        let cadence = self.sensors.first().map_or(1, |sensor| sensor.cadence.nanoseconds());
        config.cadence.get_or_insert_with(|| format!("{cadence}ns"));
        let new = Self { config: self.config.clone(), ..Self::of(&store, &config, None)? };
        if new.sensors != self.sensors {
            let why = "changed its grid or sensors while it was read; restart the job";
            return Err(Error::new(shown(&self.config.path), why));
        }
        Ok(Some(new))
    }

    /// What was asked for.
    pub fn config(&self) -> &ZarrSource {
        &self.config
    }

    /// The sensors: one, or one for every index of a sample dim.
    pub fn sensors(&self) -> &[Arc<Sensor>] {
        &self.sensors
    }

    /// The lead times, nanoseconds, of a store that holds forecasts: then the times are those that
    /// they start from, and where there are several leads each is a sensor. None in one of frames.
    pub fn leads(&self) -> &[i64] {
        &self.leads
    }

    /// The valid times of a sensor's frames as they are stored: they may repeat or run back, and
    /// one that is not set is `i64::MIN`. Nothing for a sensor that there is not.
    pub fn times(&self, sensor: usize) -> &[Time] {
        if sensor < self.sensors.len() { &self.times } else { &[] }
    }

    /// What is irregular about its times, and what to do; nothing where each is a cadence after
    /// the one before.
    pub fn irregular(&self) -> Option<String> {
        let cadence = self.sensors.first()?.cadence;
        irregular(cadence, &self.times, self.config.cadence.is_none())
    }

    /// The offset of a sensor's frame: its row in the store, whatever the period asked for.
    pub fn offset(&self, frame: usize) -> Option<u64> {
        self.rows.get(frame).copied()
    }

    /// The valid time of a sensor's frame by its offset; nothing outside the period asked for.
    pub fn time_at(&self, offset: u64) -> Option<Time> {
        self.rows.binary_search(&offset).ok().map(|frame| self.times[frame])
    }

    /// Reads frame `frame` of sensor `sensor`: f32 `(channel, y, x)`, NaN where missing.
    ///
    /// # Errors
    /// When there is no such frame, or a chunk cannot be read or decoded.
    pub fn read(&self, sensor: usize, frame: usize) -> Result<Frame> {
        self.fetch(sensor, frame).map_err(Unread::error)
    }

    /// The same, but a frame that cannot be decoded is one of which every pixel is missing; the
    /// log says so, once for each.
    ///
    /// # Errors
    /// When there is no such frame, or the store cannot be read.
    pub fn read_or_miss(&self, sensor: usize, frame: usize) -> Result<Frame> {
        let error = match self.fetch(sensor, frame) {
            Err(Unread::Corrupt(error)) => error,
            read => return read.map_err(Unread::error),
        };
        let (Some(known), Some(&valid_time)) = (self.sensors.get(sensor), self.times.get(frame))
        else {
            return Err(error);
        };
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.insert((sensor, frame)) {
            let (id, time) = (&known.id, format_time(valid_time));
            tracing::warn!(
                "{id}: the frame of {time} cannot be decoded and counts as missing: {error}"
            );
        }
        let shape = known.grid.shape();
        Ok(Frame {
            sensor: known.id.clone(),
            valid_time,
            offset: self.rows[frame],
            shape,
            data: vec![f32::NAN; shape.iter().product()],
            replay: false,
            scored: false,
            record: None,
        })
    }

    /// The same, telling a store that does not hand a chunk out from one that makes no sense.
    pub(super) fn fetch(&self, sensor: usize, frame: usize) -> Result<Frame, Unread> {
        let (Some(known), Some(&row)) = (self.sensors.get(sensor), self.rows.get(frame)) else {
            let there = format!("{} sensors, {} frames", self.sensors.len(), self.rows.len());
            let why = format!("has no frame {frame} of sensor {sensor}: {there}");
            return Err(Unread::Corrupt(Error::new(shown(&self.config.path), why)));
        };
        let shape = known.grid.shape();
        let plane = shape[1] * shape[2];
        let mut data = vec![f32::NAN; shape.iter().product()];
        let mut rest = data.as_mut_slice();
        for (index, channels) in self.variables.iter().enumerate() {
            let (out, behind) = rest.split_at_mut(channels.count * plane);
            channels.read(index, row, sensor as u64, &self.cache, out, [plane, shape[2], 1])?;
            rest = behind;
        }
        let (sensor, valid_time) = (known.id.clone(), self.times[frame]);
        Ok(Frame {
            sensor,
            valid_time,
            offset: row,
            shape,
            data,
            replay: false,
            scored: false,
            record: None,
        })
    }
}
