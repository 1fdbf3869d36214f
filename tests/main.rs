//! The command and the engine, as their users meet them.

mod architecture;
mod drift;
mod faults;
mod following;
mod house;
mod kafka;
mod kafka_tools;
mod learning;
mod outside;
mod report;
mod revisions;
mod streaming;
mod swapping;
mod twin;
mod watching;
