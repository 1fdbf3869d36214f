use std::path::Path;

use physicnet_stream::Frame;
use serde_json::Map;

use super::{frame, grid};
use crate::zarr::{Archive, ArchiveWriter, ZarrSource};

fn bits(frame: &Frame) -> Vec<u32> {
    frame.data.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn what_was_written_is_read_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    let grid = grid(5, 7);
    let mut writer = ArchiveWriter::create(&path, &grid, Some(2), Map::new()).unwrap();
    for sample in 0..2 {
        for at in 0..20 {
            let frame = frame("", &grid, at + 100 * sample);
            let valid_time = frame.valid_time - 100 * sample as i64 * 300_000_000_000;
            writer.append(sample as usize, &Frame { valid_time, ..frame }).unwrap();
        }
    }
    writer.finish().unwrap();

    let archive = Archive::open(&ZarrSource::new(&path)).unwrap();
    let names: Vec<_> = archive.sensors().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(names, ["radar/0000", "radar/0001"]);
    assert_eq!(archive.sensors()[0].grid, grid);
    assert_eq!(archive.sensors()[0].cadence.nanoseconds(), 300_000_000_000);
    assert_eq!(archive.times(1).len(), 20);
    for at in [19, 0, 15, 16] {
        let read = archive.read(1, at).unwrap();
        assert_eq!(bits(&read), bits(&frame("", &grid, at as u64 + 100)));
        assert_eq!((read.offset, read.valid_time), (at as u64, archive.times(1)[at]));
    }
    assert!(archive.read(2, 0).is_err() && archive.read(0, 20).is_err());
}

#[test]
fn a_data_set_is_its_writers_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    let grid = grid(3, 3);
    let create = || ArchiveWriter::create(&path, &grid, None, Map::new());
    let mut first = create().unwrap();
    let error = create().err().unwrap().to_string();
    assert!(error.contains("is being written by another job"), "{error}");
    (0..3).for_each(|at| first.append(0, &frame("", &grid, at)).unwrap());
    first.finish().unwrap();
    let error = create().err().unwrap().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(Archive::open(&ZarrSource::new(&path)).unwrap().times(0).len(), 3);
    std::fs::remove_dir_all(&path).unwrap();
    drop(create().unwrap());
    assert!(!path.exists(), "what is not finished leaves nothing");
}

#[test]
fn a_period_keeps_the_offsets_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    let grid = grid(3, 3);
    let mut writer = ArchiveWriter::create(&path, &grid, None, Map::new()).unwrap();
    for at in 0..12 {
        writer.append(0, &frame("", &grid, at)).unwrap();
    }
    writer.finish().unwrap();
    let mut config = ZarrSource::new(&path);
    config.from = Some("2020-01-01T00:10".into());
    config.to = Some("2020-01-01T00:20".into());
    let archive = Archive::open(&config).unwrap();
    assert_eq!(archive.times(0).len(), 2);
    let read = archive.read(0, 1).unwrap();
    assert_eq!((read.sensor.as_str(), read.offset), ("radar", 3));
    assert_eq!(bits(&read), bits(&frame("", &grid, 3)));
    config.variables = vec!["snow".into()];
    let error = Archive::open(&config).err().unwrap().to_string();
    assert!(error.contains("no variable snow") && error.contains("rain, t2m"), "{error}");
}

#[test]
fn real_stores_open() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    for (name, frames, shape, step) in [
        ("knmi_20100826", 92, [1, 256, 256], 300),
        ("bom66_20201031", 144, [1, 256, 256], 600),
        ("era5_t2m_uk_201903", 744, [1, 33, 49], 3600),
    ] {
        let path = data.join(format!("{name}.zarr"));
        if !path.exists() {
            eprintln!("skipped: no {}", path.display());
            continue;
        }
        let archive = Archive::open(&ZarrSource::new(&path)).unwrap();
        let sensor = &archive.sensors()[0];
        assert_eq!(sensor.id.as_str(), name);
        assert_eq!((archive.times(0).len(), sensor.grid.shape()), (frames, shape));
        assert_eq!(sensor.cadence.nanoseconds(), step * 1_000_000_000);
        let last = archive.read(0, frames - 1).unwrap();
        assert!(last.data.iter().any(|value| value.is_finite()));
    }
}
