//! Stage 3, quantization: each latent vector named by the nearest entry of a codebook, an
//! interpretable bank of priors.

mod net;
mod operator;
mod ring;
mod usage;

pub use net::Codebook;
pub use operator::{Coded, Quantize};
pub use ring::{Ring, Tally};
pub use usage::{Usage, distance};
