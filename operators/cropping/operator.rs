//! Cropping over a stream.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use physicnet_stream::{Catalogue, Failure, Sensor, SensorId};
use timely::dataflow::StreamVec;

use crate::cropping::{Cropped, crop};
use crate::stage::{Turn, stage};
use crate::swapping::{Appointed, Seat};

/// A frame as its network sees it.
pub struct Viewed {
    /// The frame.
    pub frame: Cropped,
    /// Whose view it is.
    pub seat: Seat,
}

/// Extension trait: turns frames into the views of their networks.
pub trait Crop<'scope> {
    /// The views of each frame. With `keep` it keeps its physical values too: another network may
    /// come that wants views of its own.
    fn crop(
        self,
        catalogue: &Catalogue,
        keep: bool,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Viewed>;
}

impl<'scope> Crop<'scope> for StreamVec<'scope, u64, Appointed> {
    fn crop(
        self,
        catalogue: &Catalogue,
        keep: bool,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Viewed> {
        let catalogue = catalogue.clone();
        let mut sensors = HashMap::<SensorId, Arc<Sensor>>::new();
        stage(
            self,
            "Crop",
            Turn::All,
            |_| usize::MAX,
            failure.clone(),
            |_| (),
            move |frames| {
                let mut view = |Appointed { frame, seat }: Appointed| {
                    if !sensors.contains_key(&frame.sensor) {
                        let why = format!("{}: is not in the catalogue", frame.sensor);
                        let stranger = || candle_core::Error::Msg(why);
                        let sensor = catalogue.get(&frame.sensor).ok_or_else(stranger)?;
                        sensors.insert(frame.sensor.clone(), sensor);
                    }
                    let sensor = Arc::clone(&sensors[&frame.sensor]);
                    let physical = keep.then(|| Rc::clone(&frame.data));
                    let mut frame = crop(frame, &sensor, &seat.net.config);
                    frame.head.data = physical.unwrap_or_default();
                    Ok(Viewed { frame, seat })
                };
                frames.into_iter().map(&mut view).collect()
            },
        )
    }
}
