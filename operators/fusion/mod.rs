//! Stage 5, fusion: gates the carried fields, adds what motion cannot explain, and serves.

mod ceiling;
mod net;
mod operator;
mod pool;
mod rollout;

pub use net::{Fused, Fusion};
pub use operator::{Fuse, FuseConfig, PRODUCTS};
