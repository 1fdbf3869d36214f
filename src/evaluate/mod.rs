//! Evaluation: a period of an archive replayed through the dataflow, and the report on it.

mod ensembles;
mod report;
mod rivals;
mod run;
mod table;

pub use ensembles::{Ensembles, Verified};
pub use report::{Lead, Report, VariableReport};
pub(crate) use report::{fss_name, named};
pub use rivals::{Against, Rivals};
pub use run::{Evaluation, Period, Wanted, data_ranges, evaluate};
pub use table::table;
pub(crate) use table::{number, percent, scores};
