//! Forecasts into stores, one for each sensor, durable before their epochs are done.

use std::collections::HashMap;

use physicnet_stream::{Catalogue, Error, Failure, Forecast, Result, SensorId, route};
use timely::dataflow::StreamVec;

use super::commit::ForecastStore;
use super::config::ZarrSink;
use super::place;
use crate::durable::durable;

/// Writes forecasts into the stores that `config` names: Zarr version 3 in the layout of
/// WeatherBench 2, f32 `(time, prediction_timedelta, y, x)`, a chunk for each forecast.
///
/// All forecasts of a sensor that are pending when the disk is free become one commit, whose new
/// reference times readers see all or none of. They are stored in the order in which they come. A
/// later revision takes the place of the one before it; what the store holds already is left out,
/// so a replay changes nothing. The frontier of the output is what is durable. A disk that refuses
/// is reported to `failure`, and nothing after that is called durable.
///
/// # Errors
/// When the paths that `config` gives to the sensors of `catalogue` make no sense.
pub fn sink<'scope>(
    forecasts: StreamVec<'scope, u64, Forecast>,
    config: &ZarrSink,
    catalogue: &Catalogue,
    failure: Failure,
) -> Result<StreamVec<'scope, u64, ()>> {
    let write = Writer::new(config, catalogue)?;
    let by_sensor = |forecast: &Forecast| route(&forecast.sensor);
    Ok(durable(forecasts, "ZarrSink", by_sensor, write.into_fn(), failure))
}

/// The stores of the sensors seen so far.
pub(super) struct Writer {
    config: ZarrSink,
    catalogue: Catalogue,
    stores: HashMap<SensorId, ForecastStore>,
}

impl Writer {
    pub(super) fn new(config: &ZarrSink, catalogue: &Catalogue) -> Result<Self> {
        config.paths(catalogue)?;
        let (config, catalogue) = (config.clone(), catalogue.clone());
        Ok(Self { config, catalogue, stores: HashMap::new() })
    }

    fn into_fn(mut self) -> impl FnMut(Vec<Forecast>) -> Result<()> + Send + 'static {
        move |forecasts| self.write(forecasts)
    }

    /// Commits a batch, sensor by sensor.
    pub(super) fn write(&mut self, mut forecasts: Vec<Forecast>) -> Result<()> {
        // Stable: a sensor's forecasts keep their order.
        forecasts.sort_by(|a, b| a.sensor.cmp(&b.sensor));
        for group in forecasts.chunk_by(|a, b| a.sensor == b.sensor) {
            self.store(&group[0])?.commit(group)?;
        }
        Ok(())
    }

    fn store(&mut self, first: &Forecast) -> Result<&mut ForecastStore> {
        let id = &first.sensor;
        if !self.stores.contains_key(id) {
            let stranger = || Error::new(id, "a forecast of a sensor that is not in the catalogue");
            let sensor = self.catalogue.get(id).ok_or_else(stranger)?;
            let path = self.config.path(id)?;
            let shares = |other: &&SensorId| self.config.path(other).is_ok_and(|its| its == path);
            if let Some(other) = self.stores.keys().find(shares) {
                let why = format!("would be the store of both {other} and {id}; rename one");
                return Err(Error::new(place::shown(&path), why));
            }
            let ZarrSink { products, nanoseconds, fsync, .. } = &self.config;
            let files = place::hold(&path, *fsync)?;
            let store = ForecastStore::open(&path, files, &sensor, first, products, *nanoseconds)?;
            self.stores.insert(id.clone(), store);
        }
        self.stores.get_mut(id).ok_or_else(|| Error::new(id, "has no store"))
    }
}
