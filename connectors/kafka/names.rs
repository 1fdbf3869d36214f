//! Names that others choose: whether brokers take a topic of it, and whether it can be a sensor's.

use physicnet_stream::{Error, Result, SensorId};

use crate::zarr::file_name;

/// The most characters of a topic's name: with a number behind it, it is a folder at the brokers.
const LONGEST_TOPIC: usize = 249;
/// The longest name of a sensor, in bytes: folders and keys bear it.
const LONGEST_SENSOR: usize = 200;

/// Checks the name of a topic that the settings have at `key`.
///
/// # Errors
/// When brokers take no topic of that name.
pub(super) fn topic(key: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let why = match name {
        "" => "is empty; name a topic".to_owned(),
        "." | ".." => format!("no topic can be called {name}; give it another name"),
        _ if !name.chars().all(plain) => {
            format!("{name:?} is no name of a topic: write letters, digits, `.`, `_` and `-`")
        }
        _ if name.len() > LONGEST_TOPIC => {
            format!("{name} has {} characters, and topics at most {LONGEST_TOPIC}", name.len())
        }
        _ => return Ok(()),
    };
    Err(Error::new(key, why))
}

/// The sensor of this name, which will name folders, keys and records.
///
/// # Errors
/// What is wrong with it.
pub(super) fn sensor(name: &str) -> std::result::Result<SensorId, String> {
    let sensor = SensorId::from(name);
    let plain = name.len() <= LONGEST_SENSOR && file_name(&sensor).is_ok();
    let why = || format!("no name of a sensor: it has 1 to {LONGEST_SENSOR} bytes, and no `..`");
    plain.then_some(sensor).ok_or_else(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_take_these_names_and_no_others() {
        for good in ["f", "radar.frames", "a_b-C.9", "...", &"x".repeat(249)] {
            topic("topics", good).unwrap();
        }
        for bad in ["", ".", "..", "f 1", "a/b", "ä", "^all", "a\n", &"x".repeat(250)] {
            let told = topic("topics", bad).unwrap_err();
            assert_eq!(told.what, "topics", "{told}");
        }
        let told = topic("name", &"x".repeat(250)).unwrap_err().to_string();
        assert!(told.contains("has 250 characters, and topics at most 249"), "{told}");
    }

    #[test]
    fn a_sensor_can_name_a_folder() {
        assert_eq!(sensor("radar/east"), Ok("radar/east".into()));
        for bad in ["", "..", "a/../b", &"é".repeat(101)] {
            assert!(sensor(bad).unwrap_err().contains("1 to 200 bytes"), "{bad}");
        }
    }
}
