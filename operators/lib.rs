//! The stages of PhysicNet, in the order in which a frame meets them.
//!
//! ```text
//! admission ─► swapping ─► cropping ─► encoding ─► quantization ─► windowing ─► experts ─► fusion ─► learning ─► ensemble ─► scoring
//! ```
//!
//! Each neural room holds a pure tensor-to-tensor net and the thin Timely operator around it.
//! No wall clock, no unseeded randomness, no input or output happens here.

pub mod admission;
pub mod cropping;
pub mod encoding;
pub mod ensemble;
pub mod experts;
pub mod fusion;
pub mod learning;
pub mod quantization;
pub mod scoring;
pub mod swapping;
pub mod windowing;

pub mod layers;
pub mod model;
mod stage;

/// What a program needs to put the stages on streams of its own.
pub mod prelude {
    pub use crate::admission::{AdmissionConfig, Admit, Memory};
    pub use crate::cropping::Crop;
    pub use crate::encoding::Encode;
    pub use crate::ensemble::Dress;
    pub use crate::experts::{Bank, Consult};
    pub use crate::fusion::{Fuse, FuseConfig};
    pub use crate::learning::Learn;
    pub use crate::model::{Checkpoint, ModelConfig, VariableConfig};
    pub use crate::quantization::{Quantize, Watch};
    pub use crate::scoring::Score;
    pub use crate::swapping::Appoint;
    pub use crate::windowing::Windowed;
}

#[cfg(test)]
mod tests;
