//! Evaluation: a period of an archive replayed through the dataflow, and the report on it.

mod report;
mod run;
mod table;

pub use report::{Lead, Report, VariableReport};
pub use run::{Period, data_ranges, evaluate};
pub use table::table;
