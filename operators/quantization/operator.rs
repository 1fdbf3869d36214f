//! The codebook over a stream.

use std::sync::Arc;

use candle_core::Tensor;
use physicnet_stream::{Failure, Sensor};
use timely::dataflow::StreamVec;

use crate::admission::Admitted;
use crate::cropping::{Cropped, Viewed, crop};
use crate::encoding::{Encoded, Features, encode};
use crate::stage::{Turn, stage};
use crate::swapping::Seat;

/// A frame with its features and its code map: what windows hold.
#[derive(Clone)]
pub struct Coded {
    /// The frame.
    pub frame: Cropped,
    /// Its features, the latent as the experts see it.
    pub features: Option<Features>,
    /// The code of each latent cell, row-major; `None` without a codebook.
    pub codes: Option<Vec<u32>>,
    /// How far each latent lies from its code, row-major; `None` where the model doubts none.
    pub apart: Option<Vec<f32>>,
    /// Whose they are.
    pub seat: Seat,
}

/// Extension trait: names each latent vector by its code.
pub trait Quantize<'scope> {
    /// The codes of each frame.
    fn quantize(self, batch: usize, failure: &Failure) -> StreamVec<'scope, u64, Coded>;
}

impl<'scope> Quantize<'scope> for StreamVec<'scope, u64, Encoded> {
    fn quantize(self, batch: usize, failure: &Failure) -> StreamVec<'scope, u64, Coded> {
        let kind = |encoded: &Encoded| (encoded.frame.extent, encoded.seat.mark());
        let each = |all: Vec<Encoded>| all.into_iter().map(quantize).collect();
        stage(self, "Quantize", Turn::All, move |_| batch, failure.clone(), kind, each)
    }
}

impl Coded {
    /// The code map, row-major, and its rows and columns; `None` without a codebook. Its last cells
    /// may lie on padding for the most part.
    pub fn map(&self) -> Option<(&[u32], [usize; 2])> {
        let (side, extent) = (self.seat.net.config.stride(), self.frame.extent);
        Some((self.codes.as_deref()?, [extent.rows / side, extent.columns / side]))
    }

    /// What another network makes of a frame that was seen before it came, to the bit what it
    /// would have made of it then. `head` has the physical values.
    pub(crate) fn anew(
        head: Admitted,
        sensor: &Arc<Sensor>,
        seat: &Seat,
    ) -> candle_core::Result<Self> {
        if head.data.is_empty() {
            candle_core::bail!("{}: its older frames were not kept", head.sensor);
        }
        let frame = crop(head, sensor, &seat.net.config);
        let viewed = Viewed { frame, seat: seat.clone() };
        Ok(code(vec![viewed])?.remove(0))
    }
}

/// Frames of one size for one network, encoded and named by their codes.
pub(crate) fn code(frames: Vec<Viewed>) -> candle_core::Result<Vec<Coded>> {
    encode(frames)?.into_iter().map(quantize).collect()
}

fn quantize(encoded: Encoded) -> candle_core::Result<Coded> {
    let Encoded { frame, mut features, seat } = encoded;
    let (mut codes, mut apart) = (None, None);
    if let (Some(codebook), Some(features)) = (&seat.net.codebook, &mut features) {
        let map: Tensor = codebook.codes(&features.latent)?;
        if seat.net.config.faults.is_some() {
            apart = Some(codebook.apart(&features.latent, &map)?);
        }
        features.latent = codebook.pass(&features.latent, &map)?;
        codes = Some(map.flatten_all()?.to_vec1()?);
    }
    Ok(Coded { frame, features, codes, apart, seat })
}
