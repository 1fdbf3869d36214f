//! The whole network: the stages' nets under one config, as training and the stream use them.

mod checkpoint;
mod config;
mod net;
mod precision;
mod processor;
mod stored;

pub use checkpoint::{Checkpoint, Parent, Provenance};
pub use config::{Expert, ModelConfig, Quantization, Serve, VariableConfig};
pub use net::{Batch, Outputs, PhysicNet};
pub use precision::Precision;
pub use processor::Processor;
pub use stored::Stored;
