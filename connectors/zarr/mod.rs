//! Zarr on the local disk: any store that xarray writes as a source, WeatherBench 2 as a sink.
//!
//! ```text
//! store ─► layout (which dim is what) ─► Archive (frames at random) ─► source ─► frames
//! forecasts ─► sink ─► commit (data, time, arrays' metadata, consolidated root last) ─► durable
//! ```

mod archive;
mod cache;
mod config;
mod decode;
mod encode;
mod files;
mod layout;
mod store;
mod time;
mod writer;

#[cfg(test)]
mod tests;

pub use archive::Archive;
pub use config::{Absent, ZarrSource};
pub use time::parse_time;
pub use writer::ArchiveWriter;
