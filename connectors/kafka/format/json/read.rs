//! Reading JSON messages.

use std::borrow::Cow;
use std::fmt;

use physicnet_stream::Time;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::super::looks;
use super::super::message::{MOST_VARIABLES, Message, Variable, quoted};
use super::nested::Nested;
use super::object::Object;
use crate::zarr::parse_time;

/// Numbers take up to four times their text in memory, so there is an end.
const MOST_BYTES: usize = 64 << 20;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    source_name: Cow<'a, str>,
    #[serde(default)]
    timestamp: Option<Stamp>,
    #[serde(borrow)]
    variables: Variables<'a>,
}

/// Only the sender of a message, whatever the rest may be.
#[derive(Deserialize)]
struct Sender {
    source_name: String,
}

#[derive(Deserialize)]
struct Array<'a> {
    #[serde(borrow, default, alias = "unit")]
    units: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    label: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    axes: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    shape: Option<Vec<usize>>,
    data: Nested,
}

/// The name of the sender alone.
pub(in super::super) fn source_name(bytes: &[u8]) -> Option<String> {
    let Object(Sender { source_name }) =
        serde_json::from_slice(bytes.get(..MOST_BYTES).unwrap_or(bytes)).ok()?;
    Some(source_name)
}

/// Reads a message.
pub(in super::super) fn parse(bytes: &[u8]) -> Result<Message<'_>, String> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("{} bytes of JSON, more than {MOST_BYTES}", bytes.len()));
    }
    let Object(Body { source_name, timestamp, variables }) = serde_json::from_slice(bytes)
        .map_err(|error| {
            if !bytes.is_empty() && looks::text(bytes).is_none() {
                return format!("no JSON: {}", looks::looks(bytes));
            }
            // The error quotes what it found, however long that is.
            let mut why = format!("JSON: {error}");
            if let Some((cut, _)) = why.char_indices().nth(300) {
                why.truncate(cut);
            }
            why
        })?;
    let variables = variables.0.into_iter().map(|(name, array)| variable(name, array));
    Ok(Message {
        source_name,
        timestamp: timestamp.map(|stamp| stamp.0),
        variables: variables.collect::<Result<_, _>>()?,
    })
}

fn variable<'a>(name: Cow<'a, str>, array: Array<'a>) -> Result<Variable<'a>, String> {
    let Array { units, label, axes, shape, data } = array;
    let (spelt, values) = data.into_parts();
    // A flat list may be given a shape; lists of lists have one.
    let shape = match shape {
        Some(shape) if spelt.len() > 1 && shape != spelt => {
            let name = quoted(&name);
            let most = shape.len().min(super::super::message::MOST_DIMS);
            let shape = &shape[..most];
            return Err(format!("variable {name}: shape {shape:?} where the lists are {spelt:?}"));
        }
        Some(shape) => shape,
        None => spelt,
    };
    let (unit, label) = (units.unwrap_or_default(), label.unwrap_or_default());
    Ok(Variable { name, unit, label, axes: axes.unwrap_or_default(), shape, values })
}

/// Nanoseconds, or a date.
struct Stamp(Time);

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Date;
        impl Visitor<'_> for Date {
            type Value = Stamp;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("timestamp as 2010-08-26T00:00:00Z or nanoseconds since 1970")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Stamp, E> {
                Ok(Stamp(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Stamp, E> {
                let far = |_| E::custom(format!("timestamp {value} lies after the year 2262"));
                i64::try_from(value).map(Stamp).map_err(far)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Stamp, E> {
                let wrong = |_| E::custom(format!("timestamp {} is not a time", quoted(text)));
                parse_time(text).map(Stamp).map_err(wrong)
            }
        }
        deserializer.deserialize_any(Date)
    }
}

/// Arrays by name, in their order; one that is there twice stays so, to be refused.
struct Variables<'a>(Vec<(Cow<'a, str>, Array<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Variables<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Variables<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("variables by name: {\"NAME\": {\"units\": ..., \"data\": ...}}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut variables = Vec::new();
                while let Some((name, Object(array))) = map.next_entry::<String, Object<Array>>()? {
                    if variables.len() == MOST_VARIABLES {
                        let why = format!("variables: more than {MOST_VARIABLES}");
                        return Err(A::Error::custom(why));
                    }
                    variables.push((Cow::Owned(name), array));
                }
                Ok(Variables(variables))
            }
        }
        deserializer.deserialize_map(Map)
    }
}
