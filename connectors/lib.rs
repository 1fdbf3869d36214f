//! Sources and sinks of PhysicNet: one room for every system outside.

pub mod zarr;
