//! Sensors and the grids that their frames lie on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Cadence;

/// The name of a sensor: the key of everything.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct SensorId(Arc<str>);

impl SensorId {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: AsRef<str>> From<S> for SensorId {
    fn from(name: S) -> Self {
        Self(Arc::from(name.as_ref()))
    }
}

impl fmt::Display for SensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One physical quantity of a frame: a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name in stores and messages, e.g. `precip_rate`.
    pub name: String,
    /// Its unit as the data says it, e.g. `mm h-1`; empty where there is none.
    #[serde(default)]
    pub units: String,
}

/// One spatial axis of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// `y`, `x`, `latitude`, `longitude`, or whatever the data calls it.
    pub name: String,
    /// The unit of the values; empty where there is none.
    #[serde(default)]
    pub units: String,
    /// The coordinate of every pixel centre, in the order of the frame's rows or columns.
    pub values: Vec<f64>,
}

impl Axis {
    /// An axis that just counts pixels.
    pub fn index(name: &str, len: usize) -> Self {
        let values = (0..len).map(|i| i as f64).collect();
        Self { name: name.to_owned(), units: String::new(), values }
    }
}

/// The grid of a sensor: its channels and its two axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The channels, in order.
    pub variables: Vec<Variable>,
    /// Rows.
    pub y: Axis,
    /// Columns.
    pub x: Axis,
}

impl Grid {
    /// `[channel, y, x]`, the shape of a frame.
    pub fn shape(&self) -> [usize; 3] {
        [self.variables.len(), self.y.values.len(), self.x.values.len()]
    }
}

/// What is known of a sensor before its first frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    /// Its name.
    pub id: SensorId,
    /// Its grid.
    pub grid: Grid,
    /// Its cadence.
    pub cadence: Cadence,
}

/// Every sensor of a job; the same on every worker and process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    known: BTreeMap<SensorId, Arc<Sensor>>,
    /// What any other sensor is like, where names are not known before its first frame.
    any: Option<Arc<Sensor>>,
}

impl Catalogue {
    /// Adds a sensor; whether its name was new.
    pub fn insert(&mut self, sensor: Arc<Sensor>) -> bool {
        self.known.insert(sensor.id.clone(), sensor).is_none()
    }

    /// Says that sensors of other names are the job's too, each like `sensor` but for its name;
    /// whether that was new.
    pub fn insert_any(&mut self, sensor: Arc<Sensor>) -> bool {
        self.any.replace(sensor).is_none()
    }

    /// The sensor of this name.
    pub fn get(&self, id: &SensorId) -> Option<Arc<Sensor>> {
        let any = |any: &Arc<Sensor>| Arc::new(Sensor { id: id.clone(), ..Sensor::clone(any) });
        self.known.get(id).map(Arc::clone).or_else(|| self.any.as_ref().map(any))
    }

    /// Whether there can be no frame of the job.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.any.is_none()
    }

    /// The sensors known by name, in the order of their names.
    pub fn known(&self) -> impl ExactSizeIterator<Item = &Arc<Sensor>> {
        self.known.values()
    }

    /// What sensors of other names are like, if there may be any.
    pub fn any(&self) -> Option<&Arc<Sensor>> {
        self.any.as_ref()
    }
}

impl FromIterator<Arc<Sensor>> for Catalogue {
    fn from_iter<I: IntoIterator<Item = Arc<Sensor>>>(sensors: I) -> Self {
        let mut catalogue = Self::default();
        sensors.into_iter().for_each(|sensor| _ = catalogue.insert(sensor));
        catalogue
    }
}
