//! Stage 3, quantization: each latent vector named by the nearest entry of a codebook, an
//! interpretable bank of priors.
//!
//! ```text
//! encoded ─► codes ─► coded ─┬─► windowing
//!                            └─► the last frames' codes, beside training's ─► drift
//! ```

mod drift;
mod net;
mod operator;
mod ring;
mod usage;

#[cfg(test)]
mod tests;

pub use drift::{Drift, DriftConfig, Watch};
pub use net::Codebook;
pub(crate) use operator::code;
pub use operator::{Coded, Quantize};
pub use ring::{Ring, Tally, saw};
pub use usage::{Usage, distance};
