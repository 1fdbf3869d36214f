//! The Python client `ess-streaming-data-types` on the other side.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::super::{describe, forecast as write_forecast, frame as write_frame};
use super::*;

/// A Python with the client. Without one these tests are skipped, except in continuous
/// integration, where they must run.
fn python(task: &str, folder: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = std::env::var_os("PHYSICNET_PYTHON")
        .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    if !python.exists() {
        let why = format!("no Python with the client at {} (see scripts/test)", python.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped: {why}");
        return false;
    }
    let script = root.join("tests/python/messages.py");
    let output = Command::new(python).arg(script).arg(task).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn what_the_client_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    if !python("write", folder.path()) {
        return;
    }
    let manifest = std::fs::read(folder.path().join("manifest.json")).unwrap();
    let manifest: Vec<Value> = serde_json::from_slice(&manifest).unwrap();
    assert!(manifest.len() > 40, "{}", manifest.len());
    for case in manifest {
        let name = case["name"].as_str().unwrap();
        let format = serde_json::from_value(case["format"].clone()).unwrap();
        let time = serde_json::from_value(case["time"].clone()).unwrap();
        let grid = if case["channels"] == 2 { wind() } else { rain() };
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        let values = std::fs::read(folder.path().join(format!("{name}.f32"))).unwrap();
        let values: Vec<f32> =
            values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let measured = decode(format, &bytes, &Expected { grid: &grid, time: &time });
        let measured = measured.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(measured.source_name, "cam\u{e9}ra");
        assert_eq!(Some(measured.valid_time), case["valid_time"].as_i64(), "{name}");
        assert!(same(&measured.data, &values), "{name}: {:?}, not {values:?}", measured.data);
        let said = describe(format, &bytes).unwrap();
        assert_eq!(Some(said.dtype), case["dtype"].as_str(), "{name}");
    }
}

#[test]
fn what_we_write_is_read_by_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let count = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let mut data: Vec<f32> = (0..count).map(|k| k as f32 / 8.0 - 3.0).collect();
        data[1] = f32::NAN;
        data
    };
    for (grid, channels) in [(rain(), 1), (wind(), 2)] {
        let mut sensor = sensor(grid.clone());
        sensor.grid.y.units = "degrees_north".into();
        let shape = grid.shape();
        let (valid_time, data) = (TIME + 1, count(&shape));
        let frame = Frame {
            sensor: "any".into(),
            valid_time,
            offset: 0,
            shape,
            data,
            replay: false,
            scored: false,
            record: None,
        };
        for (name, late) in [("seconds", 0), ("nanoseconds", 5)] {
            let mut forecast = forecast(&grid, 3, &mut Random(0));
            forecast.products[0].data = count(&forecast.shape).into();
            forecast.reference_time += late;
            for format in FORMATS {
                let end = format!("{channels}.{format:?}").to_lowercase();
                let write = |name: &str, bytes: Vec<u8>| {
                    std::fs::write(folder.path().join(format!("{name}.{end}")), bytes).unwrap();
                };
                write(name, write_forecast(format, &forecast, &sensor).unwrap());
                write("frame", write_frame(format, &frame, &sensor).unwrap());
            }
        }
    }
    python("check", folder.path());
}
