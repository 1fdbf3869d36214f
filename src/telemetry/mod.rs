//! Watching a running job: what it says of itself, and what others may say of it.
//!
//! ```text
//! timely's log ─► rooms ──┐
//! step loop ────► health ─┤
//! taps ─┬───────► sensors ┼─► state (JSON), metrics (Prometheus) ─► dashboard
//!       └───────► view ───┤
//! others ───────► events ─┘
//! ```
//!
//! Whoever has something to say takes [`Telemetry::events`] to tell it, and [`Telemetry::sensor`] to
//! add to what is known of a sensor; with nobody listening, both cost nothing.
//!
//! Nothing here slows the job: counters are atomic, what is kept is bounded, fields are copied of
//! watched sensors alone, and a tap that finds its place taken drops what it has.

mod events;
mod health;
mod histogram;
mod job;
mod metrics;
mod rates;
mod rooms;
mod sensors;
mod shown;
mod skill;
mod state;
mod taps;
mod view;

pub use events::{Event, Events, Kind};
pub use health::Beat;
pub use job::{About, Telemetry};
pub use metrics::METRICS;
pub(crate) use metrics::memory;
pub use sensors::{SensorState, Sensors};
pub use shown::{Choice, Shown};

#[cfg(test)]
mod tests;
