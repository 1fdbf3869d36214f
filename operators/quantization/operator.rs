//! The codebook over a stream.

use std::rc::Rc;

use candle_core::Tensor;
use physicnet_stream::Failure;
use timely::dataflow::StreamVec;

use crate::cropping::Cropped;
use crate::encoding::{Encoded, Features};
use crate::model::PhysicNet;
use crate::stage::stage;

/// A frame with its features and its code map: what windows hold.
#[derive(Clone)]
pub struct Coded {
    /// The frame.
    pub frame: Cropped,
    /// Its features, the latent as the experts see it.
    pub features: Option<Features>,
    /// The code of each latent cell, row-major; `None` without a codebook.
    pub codes: Option<Vec<u32>>,
}

/// Extension trait: names each latent vector by its code.
pub trait Quantize<'scope> {
    /// The codes of each frame.
    fn quantize(
        self,
        net: &Rc<PhysicNet>,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Coded>;
}

impl<'scope> Quantize<'scope> for StreamVec<'scope, u64, Encoded> {
    fn quantize(
        self,
        net: &Rc<PhysicNet>,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Coded> {
        let net = Rc::clone(net);
        let extent = |encoded: &Encoded| encoded.frame.extent;
        stage(
            self,
            "Quantize",
            move |_| batch,
            failure.clone(),
            extent,
            move |all| all.into_iter().map(|encoded| quantize(&net, encoded)).collect(),
        )
    }
}

fn quantize(net: &PhysicNet, encoded: Encoded) -> candle_core::Result<Coded> {
    let Encoded { frame, mut features } = encoded;
    let mut codes = None;
    if let (Some(codebook), Some(features)) = (&net.codebook, &mut features) {
        let map: Tensor = codebook.codes(&features.latent)?;
        features.latent = codebook.pass(&features.latent, &map)?;
        codes = Some(map.flatten_all()?.to_vec1()?);
    }
    Ok(Coded { frame, features, codes })
}
