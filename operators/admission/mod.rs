//! Before the stages, admission: which frames a sensor's window may hold, in which order.
//!
//! ```text
//! Frame ──► order, cadence, shape ──┬──► Admitted (gaps filled by policy)
//!                                   └──► Reject (with its reason)
//! ```

mod gate;
mod operator;

pub use gate::{AdmissionConfig, Admitted, Gap, Gate};
pub use operator::{Admit, Judged};
