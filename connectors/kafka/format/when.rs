//! When a message was valid.

use physicnet_stream::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::message::{Message, Variable, quoted};
use crate::zarr::parse_time;

/// Where the valid time stands in a message: `timestamp`, or `{coordinate: time}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeFrom {
    /// In the message's own `timestamp`.
    #[default]
    Timestamp,
    /// In the variable of this name: one integer, whose unit is `datetime64[s]`, `[ms]`, `[us]`
    /// or `[ns]` (nanoseconds where it has no unit).
    Coordinate(String),
}

/// When the message was valid.
pub(super) fn valid_time(message: &Message, from: &TimeFrom) -> Result<Time, String> {
    match from {
        TimeFrom::Timestamp => {
            message.timestamp.ok_or_else(|| "timestamp: the message has none".to_owned())
        }
        TimeFrom::Coordinate(name) => {
            let variable = message.get(name).ok_or_else(|| {
                let names = message.names();
                format!("the time's coordinate {} is missing; there is {names}", quoted(name))
            })?;
            time_of(variable)
        }
    }
}

/// The one time that a variable holds.
pub(super) fn time_of(variable: &Variable) -> Result<Time, String> {
    let wrong = |why: String| format!("variable {}: {why}", quoted(&variable.name));
    if let Some(text) = variable.values.as_text() {
        return parse_time(text).map_err(|_| wrong(format!("{} is not a time", quoted(text))));
    }
    if variable.shape.iter().any(|dim| *dim != 1) {
        return Err(wrong(format!("shape {:?} where one time is needed", variable.shape)));
    }
    let Some(&[count]) = variable.values.to_i64().as_deref() else {
        let dtype = variable.values.dtype().name();
        return Err(wrong(format!("a time must be an int64, not {dtype}")));
    };
    if count == i64::MIN {
        return Err(wrong("holds NaT, which is no time".to_owned()));
    }
    let unit = match &*variable.unit {
        "" => "ns",
        unit => unit
            .strip_prefix("datetime64[")
            .and_then(|unit| unit.strip_suffix(']'))
            .ok_or_else(|| wrong(format!("unit {} is not datetime64[...]", quoted(unit))))?,
    };
    let scale = nanoseconds(unit)
        .ok_or_else(|| wrong(format!("unit {} is none of s, ms, us, ns", quoted(unit))))?;
    count
        .checked_mul(scale)
        .ok_or_else(|| wrong(format!("{count} {unit} lies outside the years 1678 to 2262")))
}

/// How many nanoseconds a unit of time has.
pub(super) fn nanoseconds(unit: &str) -> Option<i64> {
    match unit {
        "s" => Some(1_000_000_000),
        "ms" => Some(1_000_000),
        "us" => Some(1_000),
        "ns" => Some(1),
        _ => None,
    }
}
