//! Properties of librdkafka as a job file may have them: to it they are text.

use std::collections::BTreeMap;

use physicnet_stream::Error;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The value of a property.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Property {
    Text(String),
    Number(serde_json::Number),
    Switch(bool),
}

/// Properties as text, by their names.
pub(super) fn properties<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let said = BTreeMap::<String, serde_json::Value>::deserialize(from)?;
    let text = |(key, value)| match Property::deserialize(value) {
        Ok(Property::Text(text)) => Ok((key, text)),
        Ok(Property::Number(number)) => Ok((key, number.to_string())),
        Ok(Property::Switch(switch)) => Ok((key, switch.to_string())),
        Err(_) => {
            let why = "write a text, a number, true or false";
            Err(D::Error::custom(format!("properties: {key}: {why}")))
        }
    };
    said.into_iter().map(text).collect()
}

/// Whether librdkafka knows them, and takes their values.
///
/// # Errors
/// When it does not, naming the key.
pub(super) fn check(properties: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut config = ClientConfig::new();
    properties.iter().for_each(|(key, value)| _ = config.set(key, value));
    config.create_native_config().map(drop).map_err(|error| match error {
        KafkaError::ClientConfig(_, why, key, _) => {
            Error::new(format!("cluster.properties.{key}"), why)
        }
        other => Error::new("cluster.properties", other),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Cluster;
    use super::check;

    #[test]
    fn what_librdkafka_does_not_take_is_named() {
        let of = |key: &str, value: &str| check(&[(key.to_owned(), value.to_owned())].into());
        of("linger.ms", "5").unwrap();
        for (key, value) in [("linger.mss", "5"), ("linger.ms", "abc")] {
            let error = of(key, value).unwrap_err();
            assert_eq!(error.what, format!("cluster.properties.{key}"), "{error}");
        }
    }

    #[test]
    fn a_property_is_text_however_it_is_written() {
        let read = |properties: &str| {
            let text = format!(r#"{{"brokers": "a:1", "properties": {properties}}}"#);
            serde_json::from_str::<Cluster>(&text)
        };
        let written = r#"{"linger.ms": 5, "acks": "all", "check.crcs": true, "x": -0.5}"#;
        let found = read(written).unwrap().properties;
        let expected = [("linger.ms", "5"), ("acks", "all"), ("check.crcs", "true"), ("x", "-0.5")];
        assert_eq!(found, expected.map(|(key, value)| (key.into(), value.into())).into());
        for wrong in [r#"{"linger.ms": [5]}"#, r#"{"acks": 1, "linger.ms": null}"#] {
            let told = read(wrong).unwrap_err().to_string();
            assert!(told.starts_with("properties: linger.ms: write a text"), "{told}");
        }
    }
}
