//! Kafka: topics of frames as a source; forecasts, dead letters and progress exactly once.
//!
//! ```text
//! topics ─► source (partitions by worker) ─► frames
//! forecasts, rejects, marks ─► sink ─► ledger (one transaction after another) ─► durable
//!                                         └─► progress ─► where the next start goes on
//! ```

mod cluster;
mod config;
mod fence;
pub mod format;
mod grid;
mod lag;
mod ledger;
mod limits;
mod mirror;
mod names;
mod producer;
mod progress;
mod property;
mod publish;
mod read;
mod sink;
mod source;
mod tail;
mod topics;

pub use cluster::{Cluster, Mechanism, Sasl, Secret, Tls};
pub use config::{Delivery, KafkaSink, KafkaSource, SensorFrom};
pub use grid::{AxisSection, GridSection};
pub use lag::Lag;
pub use ledger::Claim;
pub use publish::{Published, Publisher};
pub use sink::{Ledger, Said};
pub use source::source;
pub use tail::{Look, Seen, Tail};
pub use topics::Topics;
