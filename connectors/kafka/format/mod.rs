//! What a message's bytes mean: frames in, frames and forecasts out, as `da00`, `ad00` or JSON.
//!
//! ```text
//! bytes ─► da00 | ad00 | json ─► Message ─┬► when, fit (grid, units) ─► Measured, or a reason
//!   └► looks: what else they are          └► describe ─► Described, for people
//! Frame, Forecast ─► compose ─► Message ─► da00 | ad00 | json ─► bytes
//! ```
//!
//! The bytes come from anyone. Every offset is checked where it is followed and every size before
//! it is allocated; whatever they say, the answer is a frame or a reason, never a panic. A decoder
//! allocates no more than a small multiple of the message's length.
//!
//! Nothing here knows of topics, clients or jobs. `docs/messages.md` promises the layouts.

mod ad00;
mod axes;
mod compose;
mod da00;
mod describe;
mod dtype;
mod fit;
mod flat;
mod json;
mod looks;
mod message;
mod when;

#[cfg(test)]
mod tests;

use std::ops::Range;

use physicnet_stream::{Error, Forecast, Frame, Grid, Reason, Result, Sensor, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use describe::Described;
use message::Message;
pub use when::TimeFrom;

/// How messages are laid out. The config chooses; the bytes are never guessed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// FlatBuffers `da00`: arrays with axes, units and coordinates.
    #[default]
    Da00,
    /// FlatBuffers `ad00`: area detectors and cameras; no axes, no units.
    Ad00,
    /// JSON that a person can write: small grids, trying things out.
    Json,
}

/// What a job expects of a message: how it becomes a frame.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The grid of the sensor.
    pub grid: &'a Grid,
    /// Where the valid time stands.
    pub time: &'a TimeFrom,
}

/// What a message measured, on the grid that was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Who sent it, as the message says.
    pub source_name: String,
    /// When it was valid: nanoseconds since 1970-01-01T00:00:00 UTC.
    pub valid_time: Time,
    /// `[channel, y, x]`, the shape of the grid.
    pub shape: [usize; 3],
    /// f32, row-major in `shape`, in the units of the grid; missing pixels are NaN.
    pub data: Vec<f32>,
    /// Where they stand in the message, if as they are: f32, little-endian, in one piece.
    pub verbatim: Option<Range<usize>>,
}

/// The frame in a message.
///
/// # Errors
/// What is wrong with the message, naming the field and the numbers: `Undecodable` where it is none
/// of this format or has no time, `Misshapen` where what it says does not fit the grid. The text is
/// of at most a few hundred characters, whatever the message holds.
pub fn decode(format: Format, bytes: &[u8], expected: &Expected) -> Result<Measured, Reason> {
    let undecodable = |why| Reason::Undecodable { why };
    let message = parse(format, bytes).map_err(undecodable)?;
    let valid_time = when::valid_time(&message, expected.time).map_err(undecodable)?;
    fit::fit(&message, bytes, expected.grid, valid_time).map_err(|why| Reason::Misshapen { why })
}

/// The name of the sender alone, where the rest may not fit; `None` if even that cannot be read.
pub fn source_name(format: Format, bytes: &[u8]) -> Option<String> {
    match format {
        Format::Da00 => da00::source_name(bytes),
        Format::Ad00 => ad00::source_name(bytes),
        Format::Json => json::source_name(bytes),
    }
}

/// A frame as a message, named after its sensor.
///
/// # Errors
/// When the frame's shape is not that of the sensor's grid, or its message would be over 2 GiB.
pub fn frame(format: Format, frame: &Frame, sensor: &Sensor) -> Result<Vec<u8>> {
    write(format, &compose::frame(frame, sensor, format == Format::Ad00)?)
}

/// The served product of a forecast as a message, named after its sensor.
///
/// # Errors
/// When the forecast's shape is not that of the sensor's grid, or its message would be over 2 GiB.
pub fn forecast(format: Format, forecast: &Forecast, sensor: &Sensor) -> Result<Vec<u8>> {
    write(format, &compose::forecast(forecast, sensor)?)
}

/// Whatever can be read of a message, frames and forecasts alike, without a job's expectations.
///
/// # Errors
/// What is wrong with the message, as [`decode`] says it.
pub fn describe(format: Format, bytes: &[u8]) -> Result<Described, String> {
    describe::describe(&parse(format, bytes)?)
}

fn parse(format: Format, bytes: &[u8]) -> Result<Message<'_>, String> {
    let message = match format {
        Format::Da00 => da00::parse(bytes),
        Format::Ad00 => ad00::parse(bytes),
        Format::Json => json::parse(bytes),
    }?;
    message.check()?;
    Ok(message)
}

fn write(format: Format, message: &Message) -> Result<Vec<u8>> {
    match format {
        Format::Da00 => da00::write(message),
        Format::Ad00 => ad00::write(message),
        Format::Json => json::write(message),
    }
    .map_err(|why| Error::new(format!("message of {}", message.source_name), why))
}
