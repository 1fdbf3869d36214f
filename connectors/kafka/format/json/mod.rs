//! JSON that a person can write.
//!
//! ```json
//! {"source_name": "hill", "timestamp": "2010-08-26T00:00:00Z", "variables":
//!   {"precip_rate": {"units": "mm/h", "data": [[0, 0.5, null], [1.5, 2, 4]]}}}
//! ```
//!
//! The same names and arrays as `da00`, so that what is true of one is true of the other.

mod nested;
mod object;
mod read;
mod write;

pub(super) use read::{parse, source_name};
pub(super) use write::write;
