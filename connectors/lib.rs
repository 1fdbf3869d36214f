//! Sources and sinks of PhysicNet: one room for every system outside.

mod durable;
pub mod kafka;
pub mod rejects;
pub mod synthetic;
pub mod zarr;

mod sink;
mod source;

pub use sink::{Call, RejectsSink, Sink, SinkConfig};
pub use source::{Source, SourceConfig};

#[cfg(test)]
mod conformance;
