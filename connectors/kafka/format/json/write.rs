//! Writing JSON messages.

use physicnet_stream::format_time;
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::super::dtype::{Dtype, Values};
use super::super::message::{Message, Variable};

/// Writes a message. JSON has no NaN and no infinities: both are `null`.
pub(in super::super) fn write(message: &Message) -> Result<Vec<u8>, String> {
    serde_json::to_vec(message).map_err(|error| error.to_string())
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("Message", 3)?;
        body.serialize_field("source_name", &self.source_name)?;
        body.serialize_field("timestamp", &self.timestamp.map(format_time))?;
        body.serialize_field("variables", &Variables(&self.variables))?;
        body.end()
    }
}

struct Variables<'a>(&'a [Variable<'a>]);

impl Serialize for Variables<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|variable| (&variable.name, variable)))
    }
}

impl Serialize for Variable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { unit, label, axes, shape, values, .. } = self;
        let mut fields = serializer.serialize_map(None)?;
        for (key, text) in [("units", unit), ("label", label)] {
            if !text.is_empty() {
                fields.serialize_entry(key, text)?;
            }
        }
        if !axes.is_empty() {
            fields.serialize_entry("axes", axes)?;
        }
        // The types that frames and forecasts are composed of.
        match (values, values.dtype()) {
            (Values::F32(values), _) => fields.serialize_entry("data", &Nested { shape, values }),
            (_, Dtype::Text) => fields.serialize_entry("data", &values.as_text()),
            (_, Dtype::Float32) => {
                let values = values.to_f32().unwrap_or_default();
                fields.serialize_entry("data", &Nested { shape, values: &values })
            }
            (_, Dtype::Float64) => {
                let values = values.to_f64().unwrap_or_default();
                fields.serialize_entry("data", &Nested { shape, values: &values })
            }
            _ => {
                let values = values.to_i64().unwrap_or_default();
                fields.serialize_entry("data", &Nested { shape, values: &values })
            }
        }?;
        fields.end()
    }
}

/// An array as lists of lists; a scalar as itself.
struct Nested<'a, T> {
    shape: &'a [usize],
    values: &'a [T],
}

impl<T: Serialize> Serialize for Nested<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.shape {
            [] => self.values.first().serialize(serializer),
            [_] => serializer.collect_seq(self.values),
            [_, shape @ ..] => {
                let size = shape.iter().product::<usize>().max(1);
                let parts = self.values.chunks(size);
                serializer.collect_seq(parts.map(|values| Nested { shape, values }))
            }
        }
    }
}
