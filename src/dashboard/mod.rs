//! A running job to look at: one page, the numbers behind it, and what monitoring asks for.
//!
//! ```text
//! /                 the page, with /app.js and /style.css
//! /api/state        how the job does, JSON
//! /api/sensor       one sensor's fields, bytes (see `telemetry::shown`)
//! /metrics          Prometheus
//! /healthz /readyz  for supervisors, without a token
//! ```

mod access;
mod config;
mod door;
mod server;

pub use access::{Access, MAX_TOKEN};
pub use config::DashboardConfig;
pub use server::{Served, serve};
