//! The command and the engine, as their users meet them.

mod architecture;
mod bucket;
mod drift;
mod extending;
mod faults;
mod files;
mod first_errors;
mod following;
mod house;
mod inspecting;
mod kafka;
mod kafka_tools;
mod learning;
mod licences;
mod monitoring;
mod outside;
mod page;
mod report;
mod revisions;
mod simulators;
mod skill;
mod streaming;
mod swapping;
mod training;
mod twin;
mod watching;
