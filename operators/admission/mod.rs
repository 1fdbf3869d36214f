//! Before the stages, admission: which frames a sensor's window may hold, in which order.
//!
//! ```text
//! Frame ──► order, cadence, shape ──┬──► Admitted (gaps filled by policy)
//!                                   └──► Reject (with its reason)
//! ```

mod gate;
mod operator;
mod plan;
#[cfg(test)]
mod tests;

pub use gate::{AdmissionConfig, Admitted, Gap, Gate, Memory};
pub use operator::{Admit, Judged};
pub use plan::{Plan, Planned};
