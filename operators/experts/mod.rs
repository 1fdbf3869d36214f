//! Stage 4, the flow experts: a bank that estimates motion and carries the field along it,
//! classical first, learned on top, globally and locally.

mod bank;
pub mod flow;
mod local;
mod motion;
mod net;
mod operator;
mod recall;
mod tendency;

pub use bank::{Bank, Member};
pub use local::{Global, LocalExpert};
pub use motion::between;
pub use net::{Carried, Experts, Known};
pub(crate) use operator::consult;
pub use operator::{Consult, Consulted};
pub(crate) use recall::{Sources, recall, sources};
pub use tendency::Tendency;
