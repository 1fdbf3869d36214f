use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use physicnet_stream::{Cadence, Forecast, Frame, Serving};
use serde_json::{Map, Value};

use super::{catalogue, forecast, frame, grid};
use crate::zarr::sink::Writer;
use crate::zarr::{Archive, ArchiveWriter, ZarrSink, ZarrSource};

/// The other side: a Python with xarray and zarr, for a script of ours. Without one these tests are skipped, except in
/// continuous integration, where they must run.
pub(super) fn python(arguments: &[&str]) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = std::env::var_os("PHYSICNET_PYTHON")
        .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    if !python.exists() {
        let why = format!("no Python with xarray at {} (see scripts/test)", python.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped: {why}");
        return None;
    }
    let mut command = Command::new(python);
    if let [script, rest @ ..] = arguments {
        command.arg("-Wignore").arg(root.join("tests/python").join(script)).args(rest);
    }
    Some(command)
}

pub(super) fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_xarray_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let stores = folder.path().join("stores");
    let Some(write) = python(&["zarr_stores.py", "write", stores.to_str().unwrap()]) else {
        return;
    };
    succeeds(write);
    let manifest = std::fs::read(stores.join("manifest.json")).unwrap();
    let manifest: Vec<Value> = serde_json::from_slice(&manifest).unwrap();
    assert!(manifest.len() > 100);
    let wrong: Vec<String> = manifest.iter().filter_map(|case| differs(&stores, case)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), manifest.len(), wrong.join("\n"));
}

/// In what we differ from xarray over one store.
fn differs(stores: &Path, case: &Value) -> Option<String> {
    let name = case["name"].as_str().unwrap();
    let mut config = ZarrSource::new(stores.join(format!("{name}.zarr")));
    if let Some(names) = case["options"]["variables"].as_array() {
        config.variables = names.iter().map(|n| n.as_str().unwrap().to_owned()).collect();
    }
    let archive = match Archive::open(&config) {
        Ok(archive) => archive,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    let numbers = |key: &str| serde_json::from_value::<Vec<f64>>(case[key].clone()).unwrap();
    let times: Vec<i64> = serde_json::from_value(case["times"].clone()).unwrap();
    let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
    let sensor = &archive.sensors()[0];
    if archive.sensors().len() != shape[0] || sensor.grid.shape() != shape[2..] {
        return Some(format!("{name}: shape {:?}, not {shape:?}", sensor.grid.shape()));
    }
    if sensor.grid.y.values != numbers("y") || sensor.grid.x.values != numbers("x") {
        return Some(format!("{name}: axes {:?} {:?}", sensor.grid.y, sensor.grid.x));
    }
    // Float times may differ by their own rounding.
    let near = |(a, b): (&i64, &i64)| (a - b).abs() < 20_000;
    if archive.times(0).len() != times.len() || !archive.times(0).iter().zip(&times).all(near) {
        return Some(format!("{name}: times {:?}, not {times:?}", archive.times(0)));
    }
    if (sensor.cadence.nanoseconds() - case["cadence"].as_i64().unwrap()).abs() > 20_000 {
        return Some(format!("{name}: cadence {:?}", sensor.cadence));
    }
    let bytes = std::fs::read(stores.join(format!("{name}.values"))).unwrap();
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut frames = values.chunks_exact(shape[2..].iter().product());
    for sensor in 0..shape[0] {
        for at in 0..shape[1] {
            let frame = match archive.read(sensor, at) {
                Ok(frame) => frame.data,
                Err(error) => return Some(format!("{name}: {error}")),
            };
            let expected = frames.next().unwrap();
            let same = |(a, b): (&f32, &f32)| {
                (a.is_nan() && b.is_nan()) || (a - b).abs() <= 2e-7 * b.abs()
            };
            if !frame.iter().zip(expected).all(same) {
                return Some(format!("{name}: frame {at}: {frame:?}, not {expected:?}"));
            }
        }
    }
    None
}

fn config(path: &Path) -> ZarrSink {
    let mut config = ZarrSink::new(path.to_str().unwrap());
    config.fsync = false;
    config
}

#[test]
fn what_we_write_is_read_by_xarray() {
    let folder = tempfile::tempdir().unwrap();
    let Some(check) = python(&["zarr_stores.py", "check", folder.path().to_str().unwrap()]) else {
        return;
    };
    let grid = grid(2, 3);
    for (name, step) in [("seconds", 300_000_000_000), ("nanoseconds", 1_500_000_000)] {
        let mut config = config(&folder.path().join(format!("{name}.zarr")));
        config.products = vec!["persistence".into()];
        let mut writer = Writer::new(&config, &catalogue(&["a"], &grid)).unwrap();
        let start = forecast("a", &grid, 0).reference_time;
        let forecasts = (0..7).map(|at| Forecast {
            reference_time: start + at as i64 * step,
            cadence: Cadence::new(step).unwrap(),
            serving: [None, Some(Serving::Blend), Some(Serving::Persistence)][at as usize % 3],
            ..forecast("a", &grid, at)
        });
        writer.write(forecasts.collect()).unwrap();
    }
    let archive = folder.path().join("archive.zarr");
    let mut writer = ArchiveWriter::create(&archive, &grid, Some(2), Map::new()).unwrap();
    for sample in 0..2 {
        for at in 0..20 {
            let frame: Frame = frame("", &grid, at);
            writer.append(sample, &frame).unwrap();
        }
    }
    writer.finish().unwrap();
    succeeds(check);
}

#[test]
fn a_reader_of_a_growing_store_never_sees_a_torn_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zarr");
    let Some(mut reader) = python(&["zarr_stores.py", "loop", path.to_str().unwrap(), "100"])
    else {
        return;
    };
    let grid = grid(2, 3);
    let mut writer = Writer::new(&config(&path), &catalogue(&["a"], &grid)).unwrap();
    writer.write(vec![forecast("a", &grid, 0)]).unwrap();
    let mut reader = reader.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(reader.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    for at in 1..100 {
        writer.write(vec![forecast("a", &grid, at)]).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    line.clear();
    said.read_line(&mut line).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(line.contains("none torn"), "{line}");
    // It has read while it grew: now at one length, now at another.
    let lengths = line.split("reads of ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(lengths.parse::<usize>().unwrap() > 2, "{line}");
}

#[test]
fn netcdf_comes_by_the_recipe_of_the_docs() {
    const MAKE: &str = "\
import numpy as np, xarray as xr
for part in range(3):
    time = np.datetime64('2020-01-01', 'ns') + (20 * part + np.arange(20)) * np.timedelta64(300, 's')
    values = (np.arange(20 * 6 * 9).reshape(20, 6, 9) + 1080 * part).astype('f4') / 10
    axes = {'time': time, 'y': np.arange(6.0), 'x': np.arange(9.0)}
    array = xr.DataArray(values, axes, ('time', 'y', 'x'), 'rain', {'units': 'mm h-1'})
    packed = {'dtype': 'i2', 'scale_factor': 0.1, '_FillValue': -1, 'zlib': True}
    array.to_dataset().to_netcdf(f'radar-{part}.nc', engine='h5netcdf', encoding={'rain': packed})
";
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/stores.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let recipe = docs.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for code in [MAKE, recipe] {
        let Some(mut command) = python(&[]) else { return };
        command.args(["-Wignore", "-c", code]).current_dir(folder.path());
        succeeds(command);
    }
    let archive = Archive::open(&ZarrSource::new(folder.path().join("radar.zarr"))).unwrap();
    let sensor = &archive.sensors()[0];
    assert_eq!(sensor.grid.shape(), [1, 6, 9]);
    assert_eq!((sensor.cadence.nanoseconds(), archive.times(0).len()), (300_000_000_000, 60));
    for at in [0, 19, 20, 59] {
        let expected = (0..54).map(|i| (54 * at + i) as f32 / 10.0);
        let read = archive.read(0, at).unwrap().data;
        assert!(read.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "frame {at}");
    }
}
