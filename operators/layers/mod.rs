//! The layers of the networks, NHWC: kernels of our own with exact gradients.
//!
//! candle's own convolutions, up-samplings and pools are slow on CPU, and several have wrong or
//! missing gradients; each layer here has a slow obvious oracle and a finite-difference check
//! beside it. Every kernel sums each output on one thread and in one fixed order, so a sample's
//! result depends neither on its batch nor on how many cores there are. Each has another form for a
//! GPU.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bilinear;
mod code;
mod conv;
mod correlate;
pub(crate) mod crew;
pub(crate) mod gpu;
mod join;
mod kernel;
mod linear;
pub(crate) mod moments;
pub(crate) mod simd;
mod upsampling;
mod warp;
mod written;

#[cfg(test)]
mod tests;

pub use code::nearest_code;
pub use conv::{Conv, Start};
pub use crew::helped;
pub use join::join;
pub(crate) use join::{sum, sum_relu};
pub use linear::{avg_pool, pixel_shuffle, pixel_unshuffle, upsample_bilinear};
pub(crate) use upsampling::{gated, onto, per_lead};
pub use warp::warp;
pub(crate) use warp::warp_planes;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a domain continues past its border.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// The border's values are repeated.
    #[default]
    Open,
    /// The domain wraps around.
    Periodic,
}

impl Boundary {
    /// The index in `0..len` that stands for `at`.
    #[inline]
    pub fn index(self, at: isize, len: usize) -> usize {
        match self {
            Self::Open => at.clamp(0, len as isize - 1) as usize,
            Self::Periodic => at.rem_euclid(len as isize) as usize,
        }
    }
}

/// The values of a contiguous f32 tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(all) = storage else {
        bail!("a layer takes f32, not {:?}; convert with .to_dtype()", storage.dtype())
    };
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => bail!("a layer takes contiguous tensors; call .contiguous() first"),
    }
}
