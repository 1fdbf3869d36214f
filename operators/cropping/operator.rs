//! Cropping over a stream.

use std::rc::Rc;

use physicnet_stream::{Catalogue, Failure};
use timely::dataflow::StreamVec;

use crate::admission::Admitted;
use crate::cropping::{Cropped, crop};
use crate::model::PhysicNet;
use crate::stage::stage;

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
        stage(
            self,
            "Crop",
            |_| usize::MAX,
            failure.clone(),
            |_| (),
            move |frames| {
                let view = |frame: Admitted| {
                    // Admission let only sensors of the catalogue pass.
                    let sensor = &catalogue[&frame.sensor];
                    crop(frame, sensor, &net.config)
                };
                Ok(frames.into_iter().map(view).collect())
            },
        )
    }
}
