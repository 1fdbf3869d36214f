//! The encoder over a stream: one call per frame, batched across sensors.

use std::rc::Rc;

use candle_core::Tensor;
use physicnet_stream::Failure;
use timely::dataflow::StreamVec;

use crate::cropping::{Cropped, model_input};
use crate::encoding::Features;
use crate::model::PhysicNet;
use crate::stage::{Turn, most, stage};

/// A frame and its features; the batch dimension is 1. Without an encoder there are none.
pub struct Encoded {
    /// The frame.
    pub frame: Cropped,
    /// Its features.
    pub features: Option<Features>,
}

/// Extension trait: encodes every frame once.
pub trait Encode<'scope> {
    /// The features of each frame, in batches of at most `batch` frames of one size.
    fn encode(
        self,
        net: &Rc<PhysicNet>,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Encoded>;
}

impl<'scope> Encode<'scope> for StreamVec<'scope, u64, Cropped> {
    fn encode(
        self,
        net: &Rc<PhysicNet>,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Encoded> {
        let net = Rc::clone(net);
        let extent = |cropped: &Cropped| cropped.extent;
        let most = most(net.device.is_cpu(), batch, extent);
        stage(self, "Encode", Turn::All, most, failure.clone(), extent, move |frames| {
            let Some(encoder) = &net.encoder else {
                let bare = |frame| Encoded { frame, features: None };
                return Ok(frames.into_iter().map(bare).collect());
            };
            let inputs: Vec<_> = frames
                .iter()
                .map(|frame| model_input(frame, &net.device))
                .collect::<Result<_, _>>()?;
            let all = encoder.forward(&Tensor::cat(&inputs, 0)?, None)?;
            let split = |(i, frame)| Ok(Encoded { frame, features: Some(all.sample(i)?) });
            frames.into_iter().enumerate().map(split).collect()
        })
    }
}

impl Features {
    /// The features of one frame of the batch, as storage of its own: a window must not keep
    /// the whole batch alive.
    fn sample(&self, i: usize) -> candle_core::Result<Self> {
        let own = |tensor: &Tensor| tensor.narrow(0, i, 1)?.copy();
        let local = self.local.as_ref().map(own).transpose()?;
        Ok(Self { latent: own(&self.latent)?, skip: own(&self.skip)?, local })
    }
}
