//! Scoring: every forecast beside what then came, as sums that add and subtract exactly.
//!
//! ```text
//! forecasts ────┐ by sensor
//!               ├─► join on (sensor, valid time) ─► ((sensor, product, lead, channel), Sums) ─► Totals
//! observations ─┘                 └─► settled: a forecast with all that came, once it is final
//! ```
//!
//! One policy for missing pixels, from here to the report: a pixel whose observation is missing
//! is never scored; a pixel whose forecast is missing while the observation is not is left out
//! and lowers the `coverage`.

mod ensemble;
mod fixed;
mod fss;
mod memory;
mod metrics;
mod operator;
mod settle;
mod ssim;
mod sums;
mod totals;

pub use ensemble::{EnsembleSums, Reliability};
pub use fixed::Fixed;
pub use metrics::{Categorical, Fss, Metrics, Scores};
pub use operator::{Key, Pair, Score, ScoringConfig};
pub use settle::{Settle, Settled};
pub use ssim::Scale;
pub use sums::{Sums, Table};
pub use totals::{Series, Span, Totals, Verified, total_into};

#[cfg(test)]
mod tests;
