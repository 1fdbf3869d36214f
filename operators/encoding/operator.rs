//! The encoder over a stream: one call per frame, batched across sensors.

use candle_core::{Device, Tensor};
use physicnet_stream::Failure;
use timely::dataflow::StreamVec;

use crate::cropping::{Cropped, Viewed, model_input};
use crate::encoding::Features;
use crate::stage::{Turn, most, stage};
use crate::swapping::Seat;

/// A frame and its features; the batch dimension is 1. Without an encoder there are none.
pub struct Encoded {
    /// The frame.
    pub frame: Cropped,
    /// Its features.
    pub features: Option<Features>,
    /// Whose they are.
    pub seat: Seat,
}

/// Extension trait: encodes every frame once.
pub trait Encode<'scope> {
    /// The features of each frame, in batches of at most `batch` frames of one size and network.
    fn encode(self, batch: usize, failure: &Failure) -> StreamVec<'scope, u64, Encoded>;
}

impl<'scope> Encode<'scope> for StreamVec<'scope, u64, Viewed> {
    fn encode(self, batch: usize, failure: &Failure) -> StreamVec<'scope, u64, Encoded> {
        let most = most(batch, |viewed: &Viewed| (&viewed.seat, viewed.frame.extent));
        let kind = |viewed: &Viewed| (viewed.frame.extent, viewed.seat.mark());
        stage(self, "Encode", Turn::All, most, failure.clone(), kind, encode)
    }
}

/// Encodes frames of one size for one network.
pub(crate) fn encode(frames: Vec<Viewed>) -> candle_core::Result<Vec<Encoded>> {
    let net = frames.first().map(|viewed| &viewed.seat.net);
    let Some((net, encoder)) = net.and_then(|net| Some((net, net.encoder.as_ref()?))) else {
        let bare = |Viewed { frame, seat }| Encoded { frame, features: None, seat };
        return Ok(frames.into_iter().map(bare).collect());
    };
    // To the device in one piece.
    let input = |viewed: &Viewed| model_input(&viewed.frame, &Device::Cpu);
    let inputs: Vec<_> = frames.iter().map(input).collect::<Result<_, _>>()?;
    let all = encoder.forward(&Tensor::cat(&inputs, 0)?.to_device(&net.device)?, None)?;
    let split =
        |(i, Viewed { frame, seat })| Ok(Encoded { frame, features: Some(all.sample(i)?), seat });
    frames.into_iter().enumerate().map(split).collect()
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
