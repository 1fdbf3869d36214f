//! What a job file says about a Zarr store.

use std::path::{Path, PathBuf};

use physicnet_stream::{Error, Result, Time, parse_duration};
use serde::{Deserialize, Serialize};

use super::time::parse_time;

/// How a chunk that the store does not hold is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A Zarr store, version 2 or 3, on the local disk, as a source of frames.
///
/// ```yaml
/// path: radar.zarr
/// variables: [precip_rate]
/// follow: true
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZarrSource {
    /// The directory of the store.
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
    #[serde(default)]
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
    #[serde(default = "second")]
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
