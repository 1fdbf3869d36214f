//! Frames that were not used, kept with the reason: nothing is lost in silence.
//!
//! ```text
//! rejects/SENSOR/OFFSET.npy    f32 (channel, y, x), for numpy.load
//! rejects/SENSOR/OFFSET.json   why, whose, when
//! ```

use std::path::PathBuf;

use physicnet_stream::{Catalogue, Failure, Reject, Result, format_time, route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use timely::dataflow::StreamVec;

use crate::durable::durable;
use crate::zarr::{Folder, Writing, file_name};

/// A directory of rejected frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectsConfig {
    /// The directory; a folder for each sensor is made in it.
    pub path: PathBuf,
    /// Whether to wait until the disk has them.
    #[serde(default = "yes")]
    pub fsync: bool,
}

fn yes() -> bool {
    true
}

impl RejectsConfig {
    /// Rejects kept durably under `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), fsync: true }
    }
}

/// Keeps rejected frames under the directory of `config`: `OFFSET.npy` with the values and, last,
/// `OFFSET.json` with the reason, the sensor, its valid time, offset, shape, and the units that
/// `catalogue` knows. Writing one again changes nothing. The frontier of the output is what is
/// durable; a disk that refuses is reported to `failure`.
pub fn sink<'scope>(
    rejects: StreamVec<'scope, u64, Reject>,
    config: &RejectsConfig,
    catalogue: &Catalogue,
    failure: Failure,
) -> StreamVec<'scope, u64, ()> {
    let (config, catalogue) = (config.clone(), catalogue.clone());
    let by_sensor = |reject: &Reject| route(&reject.frame.sensor);
    let write = move |rejects: Vec<Reject>| write(&config, &catalogue, rejects);
    durable(rejects, "Rejects", by_sensor, write, failure)
}

fn write(config: &RejectsConfig, catalogue: &Catalogue, rejects: Vec<Reject>) -> Result<()> {
    for reject in rejects {
        let frame = &reject.frame;
        // A name that cannot be a folder is no reason to lose the frame.
        let folder = file_name(&frame.sensor).unwrap_or_else(|_| "_".to_owned());
        let mut files = Folder::new(&config.path.join(folder), config.fsync);
        files.tidy()?;
        let known = catalogue.get(&frame.sensor);
        let units: Option<Vec<_>> =
            known.map(|sensor| sensor.grid.variables.iter().map(|v| v.units.clone()).collect());
        let mut about = json!({
            "reason": reject.reason.label(),
            "sensor": frame.sensor,
            "valid_time": format_time(frame.valid_time),
            "valid_time_ns": frame.valid_time,
            "offset": frame.offset,
            "shape": frame.shape,
            "units": units,
        });
        if let Ok(serde_json::Value::Object(mut details)) = serde_json::to_value(&reject.reason) {
            details.remove("reason");
            about["details"] = details.into();
        }
        files.put(&format!("{}.npy", frame.offset), &npy(frame.shape, &frame.data))?;
        files.put(&format!("{}.json", frame.offset), format!("{about:#}\n").as_bytes())?;
        files.flush()?;
    }
    Ok(())
}

/// The bytes of a `.npy` file of version 1.0. Values that do not fill `shape` are a flat list.
fn npy(shape: [usize; 3], data: &[f32]) -> Vec<u8> {
    let shape = if shape.iter().product::<usize>() == data.len() {
        format!("({}, {}, {})", shape[0], shape[1], shape[2])
    } else {
        format!("({},)", data.len())
    };
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    // The values begin at a multiple of 64, after ten bytes and a line feed.
    header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header);
    bytes.extend(data.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use physicnet_stream::{Frame, Reason};

    use super::*;

    #[test]
    fn a_reject_is_a_frame_and_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let config = RejectsConfig::new(folder.path());
        let frame = Frame {
            sensor: "radar/../7".into(),
            valid_time: 0,
            offset: 12,
            shape: [1, 1, 2],
            data: vec![1.0, f32::NAN],
            replay: false,
            scored: false,
            record: None,
        };
        let reject = Reject { frame, reason: Reason::Late { newest: 5 } };
        for _ in 0..2 {
            write(&config, &Catalogue::default(), vec![reject.clone()]).unwrap();
        }
        let about = std::fs::read_to_string(folder.path().join("_/12.json")).unwrap();
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        assert_eq!(about["reason"], "late");
        assert_eq!(about["details"]["newest"], 5);
        assert_eq!(about["valid_time"], "1970-01-01T00:00:00Z");
        let array = std::fs::read(folder.path().join("_/12.npy")).unwrap();
        assert_eq!((array.len(), &array[128..132]), (136, &1_f32.to_le_bytes()[..]));
        assert_eq!(std::fs::read_dir(folder.path().join("_")).unwrap().count(), 2);
    }
}
