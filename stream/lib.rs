//! What flows through PhysicNet, and nothing else: every other crate shares these types.
//!
//! ```text
//! Frame ──► (operators) ──► Forecast ──► (sinks)
//!   └─────► Reject ────────────────────► (rejects store)
//! ```
//!
//! This crate knows nothing of candle, Zarr, Kafka or configuration.

mod error;
mod forecast;
mod frame;
mod grid;
mod pace;
mod pile;
mod progress;
mod route;
mod time;

pub use error::{Error, Result};
pub use forecast::{Ensemble, Forecast, Product, Serving};
pub use frame::{Frame, Reason, Record, Reject};
pub use grid::{Axis, Catalogue, Grid, Sensor, SensorId, Variable};
pub use pace::{Failure, Pace, Stop};
pub use pile::Pile;
pub use progress::{Mark, Position, Resume};
pub use route::route;
pub use time::{Cadence, Time, format_time, parse_duration, with_unit};
