//! Kafka: what a topic's messages hold.

pub mod format;
