//! Swapping: which network forecasts, and how another one takes its place while frames flow.
//!
//! ```text
//! Admitted ─┐
//!           ├─► appoint ─► a frame for each seat ─► cropping ─► … ─► fusion ─┬─► the one that serves ─► learning, sinks
//! Change ───┘                                                                └─► both ─► pairs ─► scoring ─► trial
//! ```
//!
//! The network is data: every frame goes on with the network that is to see it, so stages know of
//! no swap, and no frame of an epoch meets another network than the epoch's.

mod operator;
mod trial;

pub use operator::{Appoint, Appointed, Change, Seat};
pub use trial::{Rival, Trial, tally};

#[cfg(test)]
mod tests;
