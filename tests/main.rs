//! The command and the engine, as their users meet them.

mod architecture;
mod faults;
mod house;
mod kafka;
mod streaming;
