//! Zarr on the disk or in an object store: any store that xarray writes as a source, WeatherBench 2 as a sink.
//!
//! ```text
//! store ─► layout (which dim is what) ─► Archive (frames at random) ─► source ─► frames
//! store of forecasts ─► Hindcast (forecasts at random, by reference time)
//! forecasts ─► sink ─► commit (data, time, arrays' metadata, consolidated root last) ─► durable
//! ```

mod archive;
mod cache;
mod cadence;
mod channels;
mod commit;
mod config;
mod decode;
mod encode;
mod forecasts;
mod foreign;
mod hindcast;
mod layout;
mod leads;
mod place;
mod places;
mod progress;
mod sink;
mod source;
mod store;
mod time;
mod writer;

#[cfg(test)]
mod tests;

pub use archive::Archive;
pub(crate) use config::file_name;
pub use config::{Absent, ZarrSink, ZarrSource};
pub use foreign::foreign;
pub use hindcast::Hindcast;
pub(crate) use place::{Folder, Writing};
pub use place::{is_url, shown};
pub use progress::{Progress, progress};
pub use sink::sink;
pub use source::source;
pub use time::parse_time;
pub use writer::ArchiveWriter;
