//! Learning: forecasts are blended, or replaced by a baseline, as their own verification says.
//!
//! ```text
//! forecasts ────┐        what came ─► sums ─► weights, gate ─┐
//!               ├─► by epoch, per sensor                     ├─► forecasts as served
//! observations ─┘        forecasts of the epoch ─────────────┘   Learnt (for the file of scores)
//! ```
//!
//! What is served is `a + w (n - a)` for each lead and channel: the network n towards the advected
//! field a, by the weight w in 0..=1 that would have had the least squared error of late. Where
//! even that was worse than the better of advection and persistence, the gate serves the baseline.
//!
//! Nothing here knows of files: the state goes out as it changes, and comes back at a start.

mod operator;
mod state;

pub use operator::{Learn, Learning, Taught};
pub(crate) use operator::{Pupil, teach, teaches};
pub use state::{LearnConfig, Learner, Learnt};

#[cfg(test)]
mod tests;
