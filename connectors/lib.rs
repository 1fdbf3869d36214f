//! Sources and sinks of PhysicNet: one room for every system outside.

mod behind;
mod durable;
pub mod kafka;
mod own;
pub mod rejects;
pub mod synthetic;
pub mod zarr;

mod sink;
mod source;

pub use behind::behind;
pub use own::{Feed, Next, Reader};
pub use sink::{Call, Opened, RejectsSink, Sink, SinkConfig};
pub use source::{Source, SourceConfig};

#[cfg(test)]
mod conformance;
