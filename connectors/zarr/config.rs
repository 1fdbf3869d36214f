//! What a job file says about a Zarr store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use physicnet_stream::{Catalogue, Error, Result, SensorId, Time, parse_duration, with_unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::place::shown;
use super::time::parse_time;

/// How a chunk that the store does not hold is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// As the array's fill value, as Zarr says: writers leave out chunks that hold nothing else,
    /// dry frames among them. Only where that cannot be meant, in packed integers whose fill
    /// value is not marked as missing and unpacks to something other than zero, as missing.
    #[default]
    Auto,
    /// Always as the array's fill value.
    Fill,
    /// Always as missing.
    Missing,
}

/// A Zarr store, version 2 or 3, in a folder or under a URL, as a source of frames.
///
/// ```yaml
/// path: radar.zarr
/// variables: [precip_rate]
/// follow: true
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZarrSource {
    /// The directory of the store, or its URL: `s3://`, `gs://`, `https://`.
    pub path: PathBuf,
    /// The variables that become channels, in this order; empty: every variable that has time
    /// and two more dims, by name.
    #[serde(default)]
    pub variables: Vec<String>,
    /// The sensor's name; by default that of the directory without `.zarr`. With a sample dim
    /// the sensors are `name/0000`, `name/0001`, ...
    #[serde(default)]
    pub sensor: Option<String>,
    /// The cadence, e.g. `5min`; by default the median step between the valid times.
    #[serde(default, deserialize_with = "with_unit")]
    pub cadence: Option<String>,
    /// The first valid time to read, e.g. `2010-08-26` or `2010-08-26T05:00`, UTC.
    #[serde(default)]
    pub from: Option<String>,
    /// The valid time to stop before, e.g. `2010-08-26T07:30`, UTC.
    #[serde(default)]
    pub to: Option<String>,
    /// Whether to wait for more at the end: the store is still growing.
    #[serde(default)]
    pub follow: bool,
    /// How often to look for more when following.
    #[serde(default = "second", deserialize_with = "with_unit")]
    pub poll: String,
    /// Frames a second and sensor; by default as fast as the job goes.
    #[serde(default)]
    pub rate: Option<f64>,
    /// How chunks that the store does not hold are read.
    #[serde(default)]
    pub absent: Absent,
    /// The most that decoded chunks may take, in MiB.
    #[serde(default = "cache_mib")]
    pub cache_mib: usize,
}

fn second() -> String {
    "1s".to_owned()
}

fn cache_mib() -> usize {
    128
}

impl ZarrSource {
    /// Everything in the store at `path`, to its end.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            variables: Vec::new(),
            sensor: None,
            cadence: None,
            from: None,
            to: None,
            follow: false,
            poll: second(),
            rate: None,
            absent: Absent::Auto,
            cache_mib: cache_mib(),
        }
    }

    /// Checks what can be checked without the store.
    ///
    /// # Errors
    /// When a duration, a time or the rate makes no sense, naming the key.
    pub fn validate(&self) -> Result<()> {
        let cadence = self.cadence.as_deref().map(parse_duration).transpose();
        cadence.map_err(|e| Error::new("cadence", e))?;
        parse_duration(&self.poll).map_err(|e| Error::new("poll", e))?;
        let (from, to) = self.period()?;
        if from >= to {
            return Err(Error::new("to", "lies not after `from`: nothing would be read"));
        }
        match self.rate {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => {
                Err(Error::new("rate", format!("{rate} is not a positive number of frames/s")))
            }
            _ => Ok(()),
        }
    }

    /// The valid times that are read: from the first up to, not including, the second.
    pub(super) fn period(&self) -> Result<(Time, Time)> {
        let read = |text: &Option<String>, key: &str, otherwise| match text {
            Some(text) => parse_time(text).map_err(|e| Error::new(key, e)),
            None => Ok(otherwise),
        };
        Ok((read(&self.from, "from", Time::MIN)?, read(&self.to, "to", Time::MAX)?))
    }

    /// The sensor's name, or what the names of its samples begin with.
    pub(super) fn stem(&self) -> String {
        let stem = self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.sensor.clone().or(stem).unwrap_or_else(|| "sensor".to_owned())
    }
}

/// Zarr stores of forecasts in folders or under a URL, one for each sensor.
///
/// ```yaml
/// path: forecasts/{sensor}.zarr
/// products: [persistence, advection]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZarrSink {
    /// The directory of a sensor's store, or its URL (`s3://`, `gs://`); `{sensor}` stands for its name, and must be there
    /// where a job has several sensors.
    pub path: String,
    /// Products to store beside the served one, as `variable_product`.
    #[serde(default)]
    pub products: Vec<String>,
    /// Whether a commit waits until the disk has it, so that a power cut undoes none.
    #[serde(default = "yes")]
    pub fsync: bool,
    /// Whether reference times count nanoseconds though the first is on a whole second.
    #[serde(default)]
    pub nanoseconds: bool,
}

fn yes() -> bool {
    true
}

/// What stands for the sensor's name in a path.
const NAME: &str = "{sensor}";

impl ZarrSink {
    /// The served product, durably, under `path`.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), products: Vec::new(), fsync: true, nanoseconds: false }
    }

    /// The path of a sensor's store.
    ///
    /// # Errors
    /// When the sensor's name cannot be part of a path.
    pub fn path(&self, sensor: &SensorId) -> Result<PathBuf> {
        Ok(PathBuf::from(self.path.replace(NAME, &file_name(sensor)?)))
    }

    /// The path of every known sensor's store.
    ///
    /// # Errors
    /// When `{sensor}` is missing where it is needed, or two sensors would share a path.
    pub fn paths(&self, catalogue: &Catalogue) -> Result<BTreeMap<SensorId, PathBuf>> {
        let what = || format!("path {}", self.path);
        if self.path.is_empty() {
            return Err(Error::new("path", "is empty; write forecasts/{sensor}.zarr"));
        }
        let rest = self.path.replace(NAME, "");
        if let Some(brace) = rest.find(['{', '}']) {
            let why =
                format!("has \"{}\", and {NAME} is all that stands for something", &rest[brace..]);
            return Err(Error::new(what(), why));
        }
        let several = catalogue.known().len() > 1 || catalogue.any().is_some();
        if several && !self.path.contains(NAME) {
            let why = format!("stands for several sensors; put {NAME} into it");
            return Err(Error::new(what(), why));
        }
        let mut taken = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for sensor in catalogue.known().map(|sensor| &sensor.id) {
            let path = self.path(sensor)?;
            if let Some(other) = taken.insert(path.clone(), sensor) {
                let why = format!("would be the store of both {other} and {sensor}; rename one");
                return Err(Error::new(shown(&path), why));
            }
            paths.insert(sensor.clone(), path);
        }
        Ok(paths)
    }
}

/// A sensor's name as one component of a path: letters, digits, `.`, `-` and `_` as they are,
/// anything else as `_`.
///
/// # Errors
/// When the name is empty, or climbs out with `..`.
pub(crate) fn file_name(sensor: &SensorId) -> Result<String> {
    let name = sensor.as_str();
    if name.is_empty() || name.split('/').any(|part| part == ".." || part == ".") {
        let why = "cannot name a directory; use letters, digits, `-`, `_`, `.` and `/`";
        return Err(Error::new(format!("sensor \"{name}\""), why));
    }
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    Ok(name.chars().map(safe).collect())
}
