//! PhysicNet: one Timely dataflow from live gridded sensors to verified forecasts.
//!
//! [`dataflow`] is the picture as code; [`engine`] runs it; everything else makes its parts
//! ([`config`], [`training`], [`simulate`], [`publish`]) or looks at what comes out ([`evaluate`],
//! [`scores`], [`health`], [`inspect`], [`tail`], [`render`], [`demo`]).

pub mod cli;
pub mod config;
pub mod dataflow;
pub mod demo;
pub mod engine;
pub mod evaluate;
pub mod health;
pub mod inspect;
pub mod publish;
pub mod render;
pub mod scores;
pub mod simulate;
pub mod tail;
pub mod training;
