//! Simulated sensors: seeded physics as endless streams and as data sets, with what goes wrong
//! between a sensor and its receiver on request.
//!
//! ```text
//! config ─► Recording (one per sensor: seed + index ─► simulation ─► frames ─► faults) ─► source ─► frames
//!                                                                                    └──► data sets
//! ```
//!
//! A recording depends on the configuration and the sensor's index alone, never on workers, time
//! or other sensors. A replay on the same kind of machine is the same to the bit; another
//! instruction set may round a Fourier transform differently. `docs/simulators.md` has the
//! equations and the schemes.

mod arrivals;
mod climate;
mod config;
mod faults;
mod field;
mod fire;
mod fitzhugh_nagumo;
mod fourier;
mod gray_scott;
mod limiter;
mod medium;
mod navier_stokes;
mod rain;
mod random;
mod recording;
mod shallow_water;
mod source;
mod texture;

pub use config::SyntheticSource;
pub use faults::Faults;
pub use field::Field;
pub use fire::Fire;
pub use fitzhugh_nagumo::FitzHughNagumo;
pub use gray_scott::GrayScott;
pub use navier_stokes::NavierStokes;
pub use rain::Rain;
pub use recording::Recording;
pub use shallow_water::ShallowWater;
pub use source::source;
