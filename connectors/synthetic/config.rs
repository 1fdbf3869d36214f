//! What a job or a data set says about simulated sensors.

use std::sync::Arc;

use physicnet_stream::{Cadence, Error, Result, Sensor, Time, parse_duration, with_unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Faults, Field};
use crate::zarr::parse_time;

/// Simulated sensors as a source of frames.
///
/// ```yaml
/// field: {kind: rain, height: 128, width: 128}
/// sensors: 4
/// seed: 7
/// rate: 2
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticSource {
    /// What is simulated, and how.
    pub field: Field,
    /// How many sensors there are.
    #[serde(default = "one")]
    pub sensors: usize,
    /// What their names begin with: `name/0`, `name/1`, ...; by default the kind of the field.
    #[serde(default)]
    pub name: Option<String>,
    /// What makes one run differ from another.
    #[serde(default)]
    pub seed: u64,
    /// Frames of each sensor; without it they never end.
    #[serde(default)]
    pub frames: Option<u64>,
    /// After so many frames each sensor's simulation begins anew, with another draw; without it
    /// one simulation goes on for ever.
    #[serde(default)]
    pub episode: Option<u64>,
    /// Frames a second and sensor; by default as fast as the job goes.
    #[serde(default)]
    pub rate: Option<f64>,
    /// The step between valid times.
    #[serde(default = "five_minutes", deserialize_with = "with_unit")]
    pub cadence: String,
    /// The valid time of the first frame.
    #[serde(default = "start")]
    pub start: String,
    /// What goes wrong between the sensors and the job.
    #[serde(default)]
    pub faults: Faults,
}

fn one() -> usize {
    1
}

fn five_minutes() -> String {
    "300s".to_owned()
}

fn start() -> String {
    "2000-01-01T00:00:00Z".to_owned()
}

impl SyntheticSource {
    /// One sensor that sees `field` for ever, as fast as the job goes.
    pub fn new(field: Field) -> Self {
        let (cadence, start) = (five_minutes(), start());
        let (name, frames, episode, rate) = (None, None, None, None);
        let faults = Faults::default();
        Self { field, sensors: 1, name, seed: 0, frames, episode, rate, cadence, start, faults }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// When one is out of its range, naming the key.
    pub fn validate(&self) -> Result<()> {
        let below = |key: &str, e: Error| Error::new(format!("{key}.{}", e.what), e.why);
        self.field.physics().validate().map_err(|e| below("field", e))?;
        self.faults.validate(&self.field.grid()).map_err(|e| below("faults", e))?;
        if self.sensors == 0 {
            return Err(Error::new("sensors", "there must be at least 1"));
        }
        if self.episode == Some(0) {
            return Err(Error::new("episode", "there must be at least 1 frame"));
        }
        if let Some(rate) = self.rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err(Error::new("rate", format!("{rate} is not a positive number of frames/s")));
        }
        self.clock().map(drop)
    }

    /// The sensors, in the order of their indices.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn sensors(&self) -> Result<Vec<Arc<Sensor>>> {
        self.validate()?;
        let (_, cadence) = self.clock()?;
        let (name, grid) = (self.name.as_deref().unwrap_or(self.field.kind()), self.field.grid());
        let sensor = |index| {
            let id = format!("{name}/{index}").into();
            Arc::new(Sensor { id, grid: grid.clone(), cadence })
        };
        Ok((0..self.sensors).map(sensor).collect())
    }

    /// The first valid time and the cadence.
    pub(super) fn clock(&self) -> Result<(Time, Cadence)> {
        let step = parse_duration(&self.cadence).map_err(|e| Error::new("cadence", e))?;
        let start = parse_time(&self.start).map_err(|e| Error::new("start", e))?;
        Ok((start, Cadence::new(step)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Rain;

    fn read(json: &str) -> serde_json::Result<SyntheticSource> {
        serde_json::from_str(json)
    }

    #[test]
    fn defaults_are_there_and_unknown_keys_are_refused() {
        let rain = read(r#"{"field": {"kind": "rain", "width": 128}, "sensors": 2}"#).unwrap();
        let expected = Rain { width: 128, ..Rain::default() };
        assert_eq!(
            rain,
            SyntheticSource { sensors: 2, ..SyntheticSource::new(Field::Rain(expected)) }
        );
        let sensors = rain.sensors().unwrap();
        assert_eq!(sensors[1].id.as_str(), "rain/1");
        assert_eq!(sensors[0].grid.shape(), [1, 96, 128]);

        for field in Field::all() {
            let kind = format!(r#"{{"field": {{"kind": "{}"}}}}"#, field.kind());
            let source = read(&kind).unwrap();
            source.validate().unwrap();
            assert_eq!(source.field, field);
            assert!(field.grid().variables.is_sorted_by(|a, b| a.name < b.name), "{field:?}");
        }
        let again = serde_json::to_string(&rain).unwrap();
        assert_eq!(read(&again).unwrap(), rain);
        assert!(read(r#"{"field": {"kind": "rain", "widht": 128}}"#).is_err());
        assert!(read(r#"{"field": {"kind": "rain"}, "sensor": 1}"#).is_err());
        assert!(read(r#"{"field": {"kind": "snow"}}"#).is_err());
    }

    #[test]
    fn bad_settings_are_named() {
        for (json, key) in [
            (r#"{"field": {"kind": "rain", "speed": [3, 1]}}"#, "field.speed"),
            (r#"{"field": {"kind": "rain", "height": 1}}"#, "field.height"),
            (r#"{"field": {"kind": "navier_stokes", "viscosity": -1}}"#, "field.viscosity"),
            (r#"{"field": {"kind": "navier_stokes", "size": 2}}"#, "field.size"),
            (r#"{"field": {"kind": "fitzhugh_nagumo", "diffusion": [1, -1]}}"#, "field.diffusion"),
            (r#"{"field": {"kind": "shallow_water", "outer_height": 0}}"#, "field.outer_height"),
            (r#"{"field": {"kind": "gray_scott", "feed": 2}}"#, "field.feed"),
            (r#"{"field": {"kind": "fire", "ignition": 200}}"#, "field.ignition"),
            (r#"{"field": {"kind": "rain"}, "faults": {"late": 2}}"#, "faults.late"),
            (r#"{"field": {"kind": "rain"}, "faults": {"noise": {"u": 1}}}"#, "faults.noise.u"),
            (r#"{"field": {"kind": "rain"}, "episode": 0}"#, "episode"),
            (r#"{"field": {"kind": "rain"}, "sensors": 0}"#, "sensors"),
            (r#"{"field": {"kind": "rain"}, "rate": 0}"#, "rate"),
            (r#"{"field": {"kind": "rain"}, "cadence": "soon"}"#, "cadence"),
            (r#"{"field": {"kind": "rain"}, "start": "soon"}"#, "start"),
        ] {
            assert_eq!(read(json).unwrap().validate().unwrap_err().what, key, "{json}");
        }
    }
}
