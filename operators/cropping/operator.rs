//! Cropping over a stream.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use physicnet_stream::{Catalogue, Failure, Sensor, SensorId};
use timely::dataflow::StreamVec;

use crate::admission::Admitted;
use crate::cropping::{Cropped, crop};
use crate::model::PhysicNet;
use crate::stage::{Turn, stage};

/// Extension trait: turns admitted frames into the views of the network.
pub trait Crop<'scope> {
    /// The views of each frame.
    fn crop(
        self,
        net: &Rc<PhysicNet>,
        catalogue: &Catalogue,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Cropped>;
}

impl<'scope> Crop<'scope> for StreamVec<'scope, u64, Admitted> {
    fn crop(
        self,
        net: &Rc<PhysicNet>,
        catalogue: &Catalogue,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Cropped> {
        let (net, catalogue) = (Rc::clone(net), catalogue.clone());
        let mut sensors = HashMap::<SensorId, Arc<Sensor>>::new();
        stage(
            self,
            "Crop",
            Turn::All,
            |_| usize::MAX,
            failure.clone(),
            |_| (),
            move |frames| {
                let mut view = |frame: Admitted| {
                    if !sensors.contains_key(&frame.sensor) {
                        let why = format!("{}: is not in the catalogue", frame.sensor);
                        let stranger = || candle_core::Error::Msg(why);
                        let sensor = catalogue.get(&frame.sensor).ok_or_else(stranger)?;
                        sensors.insert(frame.sensor.clone(), sensor);
                    }
                    let sensor = Arc::clone(&sensors[&frame.sensor]);
                    Ok(crop(frame, &sensor, &net.config))
                };
                frames.into_iter().map(&mut view).collect()
            },
        )
    }
}
