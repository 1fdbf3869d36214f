//! Simulated sensors: seeded physics as endless streams and as data sets.
//!
//! ```text
//! config ─► Recording (one per sensor: seed + index ─► simulation ─► frames) ─► source ─► frames
//!                                                                          └──► data sets
//! ```
//!
//! A recording depends on the configuration and the sensor's index alone, never on workers, time
//! or other sensors. A replay on the same kind of machine is the same to the bit; another
//! instruction set may round a Fourier transform differently.

mod climate;
mod config;
mod fourier;
mod navier_stokes;
mod rain;
mod random;
mod recording;
mod source;
mod texture;

pub use config::{Field, SyntheticSource};
pub use navier_stokes::NavierStokes;
pub use rain::Rain;
pub use recording::Recording;
pub use source::source;
