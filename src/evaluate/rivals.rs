//! Forecasts that others made, scored beside the job's own on the same frames.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use physicnet_connectors::zarr::{Hindcast, ZarrSink};
use physicnet_operators::fusion::PRODUCTS;
use physicnet_stream::{Error, Failure, Forecast, Product, Sensor, SensorId};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

/// A store of forecasts and what it is called: what a person names on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against {
    /// The product that it becomes.
    pub name: String,
    /// The path of the store; `{sensor}` stands for the sensor's name.
    pub store: String,
}

/// The stores, open, by sensor and name.
#[derive(Clone, Default)]
pub struct Rivals(Arc<BTreeMap<SensorId, Vec<Rival>>>);

/// What a store is called, and the store.
type Rival = (Arc<str>, Hindcast);

impl Rivals {
    /// Opens the stores for all `sensors`.
    ///
    /// # Errors
    /// When a name is taken, or a store is not there, holds no forecasts of a sensor's variables, or
    /// lies on another grid.
    pub fn open(against: &[Against], sensors: &[Arc<Sensor>]) -> Result<Self> {
        let mut taken = vec!["physicnet", "network"];
        taken.extend(PRODUCTS);
        for Against { name, store } in against {
            ensure!(
                !taken.contains(&&**name),
                "against {name}={store}: {name} is scored already; give the store another name"
            );
            ensure!(
                sensors.len() < 2 || store.contains("{sensor}"),
                "against {name}={store}: stands for {} sensors; put {{sensor}} into the path",
                sensors.len()
            );
            taken.push(name);
        }
        let mut rivals = BTreeMap::new();
        for sensor in sensors {
            let open = |Against { name, store }: &Against| -> Result<_> {
                let path = ZarrSink::new(store).path(&sensor.id)?;
                Ok((Arc::from(&**name), Hindcast::open(&path, sensor)?))
            };
            let all = against.iter().map(open).collect::<Result<Vec<_>>>()?;
            rivals.insert(sensor.id.clone(), all);
        }
        Ok(Self(Arc::new(rivals)))
    }

    /// The stores of a sensor that hold ensembles, by name.
    pub(super) fn ensembles(&self, sensor: &SensorId) -> impl Iterator<Item = &Rival> {
        self.0.get(sensor).into_iter().flatten().filter(|(_, store)| store.members() > 1)
    }

    /// Whether any store holds ensembles.
    pub(super) fn any_ensemble(&self) -> bool {
        self.0.keys().any(|sensor| self.ensembles(sensor).next().is_some())
    }

    /// Adds to each forecast what the stores have for its reference time, as further products (of an
    /// ensemble the mean of its members); NaN where they have nothing. Where there are no stores, nothing is added.
    pub(crate) fn beside<'scope>(
        &self,
        forecasts: StreamVec<'scope, u64, Forecast>,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Forecast> {
        if self.0.values().all(Vec::is_empty) {
            return forecasts;
        }
        let (rivals, failure) = (self.clone(), failure.clone());
        forecasts.map(move |mut forecast| {
            let [leads, ..] = forecast.shape;
            for (name, store) in rivals.0.get(&forecast.sensor).into_iter().flatten() {
                let data = store.read(forecast.reference_time, forecast.cadence, leads);
                let data = data.unwrap_or_else(|error| {
                    failure.report(Error::new(store.name(), error));
                    None
                });
                let data = data.unwrap_or_else(|| vec![f32::NAN; forecast.served().data.len()]);
                forecast.products.push(Product { name: Arc::clone(name), data: data.into() });
            }
            forecast
        })
    }
}
