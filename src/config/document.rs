//! A document as JSON has it, and where it has a number that JSON has not: `.nan` would become
//! nothing, and nothing a default, in silence.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What a file holds.
pub(super) struct Document {
    pub(super) value: Value,
    /// The path of a number that is not finite, if there is one.
    pub(super) infinite: Option<String>,
}

impl<T: Into<Value>> From<T> for Document {
    fn from(value: T) -> Self {
        Self { value: value.into(), infinite: None }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("keys and their values")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        let number = Number::from_f64(value);
        let infinite = number.is_none().then(String::new);
        Ok(Document { value: number.map_or(Value::Null, Value::Number), infinite })
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Value::Null.into())
    }

    fn visit_none<E>(self) -> Result<Document, E> {
        Ok(Value::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Document, A::Error> {
        let (mut items, mut infinite) = (Vec::new(), None);
        while let Some(item) = list.next_element::<Document>()? {
            let at = items.len();
            infinite = infinite.or(item.infinite.map(|below| format!("[{at}]{below}")));
            items.push(item.value);
        }
        Ok(Document { value: items.into(), infinite })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let (mut fields, mut infinite) = (Map::new(), None);
        while let Some((key, item)) = map.next_entry::<String, Document>()? {
            infinite = infinite.or(item.infinite.map(|below| format!(".{key}{below}")));
            fields.insert(key, item.value);
        }
        Ok(Document { value: fields.into(), infinite })
    }
}
