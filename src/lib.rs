//! PhysicNet: one Timely dataflow from live gridded sensors to verified forecasts.
//!
//! [`dataflow`] is the picture as code; [`engine`] runs it; everything else makes its parts
//! ([`config`], [`training`], [`simulate`], [`publish`]), looks at what comes out ([`evaluate`],
//! [`study`], [`report`], [`inspect`], [`tail`], [`render`], [`demo`]), or looks on while it runs ([`scores`], [`health`],
//! [`telemetry`], [`dashboard`], [`top`]).

pub mod cli;
pub mod config;
pub mod dashboard;
pub mod dataflow;
pub mod demo;
pub mod engine;
pub mod evaluate;
mod greeting;
pub mod health;
pub mod inspect;
mod peers;
pub mod publish;
pub mod render;
pub mod report;
pub mod scores;
pub mod simulate;
pub mod study;
pub mod swap;
pub mod tail;
pub mod telemetry;
pub mod top;
pub mod training;
