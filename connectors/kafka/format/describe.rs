//! A message for people to look at.

use std::borrow::Cow;

use physicnet_stream::Time;

use super::message::{Message, SIGNAL, Variable, quoted};
use super::when;

/// What a message holds: of several arrays the `signal`, else the first with most dims.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Who sent it.
    pub source_name: String,
    /// The message's own time, nanoseconds since 1970-01-01T00:00:00 UTC, where it says one.
    pub timestamp: Option<Time>,
    /// What the array is called.
    pub name: String,
    /// Its unit; empty where it has none.
    pub unit: String,
    /// The name of every dim; empty where the message names none.
    pub axes: Vec<String>,
    /// The length of every dim.
    pub shape: Vec<usize>,
    /// The type of its elements in the message, e.g. `float32`.
    pub dtype: &'static str,
    /// f32, row-major in `shape`; missing pixels are NaN.
    pub data: Vec<f32>,
    /// The reference time, where this is a forecast.
    pub reference_time: Option<Time>,
    /// The lead times in nanoseconds, where this is a forecast; else empty.
    pub lead_times: Vec<i64>,
    /// Which model made it, where this is a forecast that says so.
    pub model: Option<String>,
    /// Which forecast of its reference time it is, where this is a forecast that says so.
    pub revision: Option<i64>,
}

/// What a message holds.
pub(super) fn describe(message: &Message) -> Result<Described, String> {
    let numbers = message.variables.iter().rev().filter(|v| v.values.as_text().is_none());
    let signal = message.get(SIGNAL).or_else(|| numbers.max_by_key(|v| v.shape.len()));
    let signal = signal.ok_or("the message holds no array")?;
    let data = signal.values.to_f32();
    let data = data.ok_or_else(|| format!("variable {}: holds text", quoted(&signal.name)))?;
    let name = if signal.label.is_empty() { &signal.name } else { &signal.label };
    let reference = message.get("forecast_reference_time").map(when::time_of).transpose()?;
    let leads = message.get("lead_time").map(lead_times).transpose()?;
    let model = message.get("model").and_then(|model| model.values.as_text());
    let revision = message.get("revision").and_then(|revision| revision.values.to_i64());
    Ok(Described {
        source_name: message.source_name.to_string(),
        timestamp: message.timestamp,
        name: name.to_string(),
        unit: signal.unit.to_string(),
        axes: signal.axes.iter().map(Cow::to_string).collect(),
        shape: signal.shape.clone(),
        dtype: signal.values.dtype().name(),
        data,
        reference_time: reference,
        lead_times: leads.unwrap_or_default(),
        model: model.map(str::to_owned),
        revision: revision.as_deref().and_then(<[i64]>::first).copied(),
    })
}

fn lead_times(variable: &Variable) -> Result<Vec<i64>, String> {
    let wrong = |why: &str| format!("variable \"lead_time\": {why}");
    let scale = when::nanoseconds(&variable.unit).ok_or_else(|| wrong("unit is not s or ns"))?;
    let counts = variable.values.to_i64().ok_or_else(|| wrong("not integers"))?;
    let leads: Option<_> = counts.into_iter().map(|count| count.checked_mul(scale)).collect();
    leads.ok_or_else(|| wrong("longer than 292 years"))
}
