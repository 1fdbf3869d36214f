//! `physicnet train`: from archives of frames to a checkpoint.
//!
//! ```text
//! stores ─► footage ─► windows (split) ─► sampler (crop, augment, flow) ─► loader ═► step ─► optimiser
//!                                                                         channel    │         │
//!                                         validation ◄── averaged weights ◄──────────┴─────────┘
//! ```
//!
//! The weights after n steps depend on the config, the seed and the data alone: not on the number
//! of threads, nor on interruptions.

mod augment;
mod codebook;
mod config;
mod data;
mod footage;
mod loader;
mod loss;
mod optimiser;
mod progress;
mod rng;
mod run;
mod sample;
mod state;
mod statistics;
mod step;
mod validation;
mod weights;
mod windows;

#[cfg(test)]
mod tests;

pub use augment::{Augment, Roll};
pub use config::{
    Adam, Choice, CropConfig, Metric, Product, Split, Store, Synthetic, TrainConfig, Validate,
};
pub use loss::{LossConfig, Penalty, SoftCsi, Term};
pub use run::{Summary, train};
