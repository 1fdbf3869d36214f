//! The dressers of a worker's sensors, behind learning.

use std::collections::BTreeMap;

use physicnet_stream::{Forecast, SensorId};
use timely::dataflow::StreamVec;

use super::{Dresser, EnsembleConfig, Known};
use crate::admission::Admitted;
use crate::learning::{Taught, teach};

/// Forecasts that know how sure they are.
pub type Dressed<'scope> = Taught<'scope, Known>;

/// Extension trait: makes forecasts into ensembles.
pub trait Dress<'scope> {
    /// Each forecast with the errors of those before it, from which its members are drawn. Both inputs
    /// must lie on the worker of the sensor. `before` is what was known at the start.
    fn dress(
        self,
        admitted: StreamVec<'scope, u64, Admitted>,
        config: &EnsembleConfig,
        before: &BTreeMap<SensorId, Known>,
    ) -> Dressed<'scope>;
}

impl<'scope> Dress<'scope> for StreamVec<'scope, u64, Forecast> {
    fn dress(
        self,
        admitted: StreamVec<'scope, u64, Admitted>,
        config: &EnsembleConfig,
        before: &BTreeMap<SensorId, Known>,
    ) -> Dressed<'scope> {
        let (config, mut before) = (config.clone(), before.clone());
        teach(self, admitted, "Dress", move |sensor| {
            Dresser::new(config.clone(), before.remove(sensor).unwrap_or_default())
        })
    }
}
