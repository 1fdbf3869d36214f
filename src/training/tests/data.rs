//! Which windows are drawn, and from which part.

use std::collections::BTreeSet;
use std::path::Path;

use physicnet_connectors::zarr::{ArchiveWriter, ZarrSource};
use physicnet_stream::{Axis, Grid, Variable};

use super::*;

/// An archive of eight sensors that have the same frames.
fn eight(folder: &Path, frames: &[Frame]) -> ZarrSource {
    let grid = Grid {
        variables: vec![Variable { name: "u".into(), units: "m s-1".into() }],
        y: Axis::index("y", SIDE),
        x: Axis::index("x", SIDE),
    };
    let path = folder.join("eight.zarr");
    let mut writer = ArchiveWriter::create(&path, &grid, Some(8), serde_json::Map::new()).unwrap();
    for frame in frames {
        (0..8).for_each(|sensor| writer.append(sensor, frame).unwrap());
    }
    writer.finish().unwrap();
    ZarrSource::new(path)
}

#[test]
fn transforms_are_fitted_to_all_of_a_short_series() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(16, false), "short");
    // Sensors of one window each, whose frames are 0, 1, 2, 3 and 4 all over.
    let rising = |frame: Frame| Frame { data: vec![frame.offset as f32; SIDE * SIDE], ..frame };
    let short: Vec<_> = frames(5, false).into_iter().map(rising).collect();
    config.data = vec![eight(folder.path(), &short)];
    config.split = Split { by: By::Sensor, train: 0.625, validation: 0.375 };
    let mut model = config.model.clone();
    Data::open(&config, &mut model).unwrap();
    let Transform::Standardise { mean: Some(mean), std: Some(std) } = model.variables[0].transform
    else {
        panic!("{:?}", model.variables[0].transform);
    };
    assert!((mean - 2.0).abs() < 1e-9 && (std - 2.0_f64.sqrt()).abs() < 1e-9, "{mean} {std}");
}

/// The parts of a split by `by`: who is in them, and which of their frames, counted in the parts
/// and by drawing from them.
fn parts(by: By) -> [BTreeSet<(String, usize)>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(16, false), "parts");
    config.data = vec![eight(folder.path(), &frames(16, false))];
    config.split = Split { by, train: 0.5, validation: 0.375 };
    let mut model = config.model.clone();
    let data = Data::open(&config, &mut model).unwrap();
    let length = model.history + model.horizon;
    let mut listed = data.series(&model).map(|all| {
        let places = all.iter().flat_map(|series| series.places());
        let named = places.map(|(series, frame)| {
            let (sensor, _) = data.frame(series, frame).unwrap();
            (sensor.id.to_string(), frame)
        });
        named.collect::<BTreeSet<_>>()
    });
    // `<sensor> from 2000-01-01T00:mm...`: the first frame of a window, a minute each.
    let whole = |name: String| {
        let (sensor, time) = name.split_once(" from ").unwrap();
        let minute: usize = time.split(':').nth(1).unwrap().parse().unwrap();
        let sensor = sensor.to_owned();
        (minute..minute + length).map(move |frame| (sensor.clone(), frame))
    };
    let drawn = (0..600).map(|index| data.training(&config, &model, 0, index).unwrap().place);
    let drawn: BTreeSet<_> = drawn.flat_map(whole).collect();
    assert_eq!(drawn, listed[0], "windows outside their part are drawn");
    let all = data.validation(usize::MAX).into_iter();
    let all = all.map(|place| data.whole(place, &model).unwrap().place);
    let all: BTreeSet<_> = all.flat_map(whole).collect();
    assert_eq!(all, listed[1]);
    listed.iter_mut().for_each(|part| assert!(!part.is_empty()));
    listed
}

#[test]
fn no_sensor_is_in_two_parts_of_a_split_by_sensor() {
    let of = |part: &BTreeSet<(String, usize)>| -> Vec<String> {
        let sensors: BTreeSet<String> = part.iter().map(|(sensor, _)| sensor.clone()).collect();
        sensors.into_iter().collect()
    };
    let [training, validation] = parts(By::Sensor);
    assert_eq!(of(&training), ["eight/0000", "eight/0001", "eight/0002", "eight/0003"]);
    assert_eq!(of(&validation), ["eight/0004", "eight/0005", "eight/0006"]);
    // All of their frames: the last sensor alone is left for `evaluate`.
    assert_eq!([training.len(), validation.len()], [4 * 16, 3 * 16]);
}

#[test]
fn no_frame_is_in_two_parts_of_a_split_by_time() {
    let [training, validation] = parts(By::Time);
    assert!(training.is_disjoint(&validation));
    assert!(training.iter().all(|(_, frame)| *frame < 8));
    assert!(validation.iter().all(|(_, frame)| (8..14).contains(frame)));
    assert_eq!([training.len(), validation.len()], [8 * 8, 8 * 6]);
}

#[test]
fn archives_are_drawn_as_often_as_the_mix_says() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(one.path(), &frames(40, false), "mixed");
    // Fewer windows, and later: from 01:00 on.
    config.data.push(ZarrSource::new(archive(two.path(), &frames(76, false)[60..])));
    let mut model = config.model.clone();
    let shares = [vec![], vec![3.0, 1.0], vec![0.0, 2.0]].map(|mix| {
        config.mix = mix;
        let data = Data::open(&config, &mut model).unwrap();
        let draw = |index| data.training(&config, &model, 0, index).unwrap().place;
        let later = (0..400).filter(|&index| draw(index).contains("T01:")).count();
        later as f64 / 400.0
    });
    // 24 windows of the first train, and 7 of the second.
    for (share, expected) in shares.into_iter().zip([7.0 / 31.0, 0.25, 1.0]) {
        assert!((share - expected).abs() < 0.07, "{share} instead of {expected}");
    }
}

#[test]
fn archives_of_several_grids_and_cadences_train_one_network() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(40, false), "several");
    config.model = ModelConfig { boundary: Boundary::Open, ..config.model };
    // Twice as wide and three times as slow.
    let grid = Grid {
        variables: vec![Variable { name: "u".into(), units: "m s-1".into() }],
        y: Axis::index("y", SIDE),
        x: Axis::index("x", 2 * SIDE),
    };
    let path = folder.path().join("wide.zarr");
    let mut writer = ArchiveWriter::create(&path, &grid, None, serde_json::Map::new()).unwrap();
    for frame in frames(30, false) {
        let rows = frame.data.chunks(SIDE).flat_map(|row| row.repeat(2)).collect();
        let (shape, valid_time) = ([1, SIDE, 2 * SIDE], 3 * frame.valid_time);
        writer.append(0, &Frame { shape, valid_time, data: rows, ..frame }).unwrap();
    }
    writer.finish().unwrap();
    config.data.push(ZarrSource::new(path));
    config.mix = vec![1.0, 1.0];
    let mut model = config.model.clone();
    let data = Data::open(&config, &mut model).unwrap();
    let widths: BTreeSet<_> = (0..20)
        .map(|index| data.training(&config, &model, 0, index).unwrap().target.dims()[2])
        .collect();
    assert_eq!(widths, [SIDE, 2 * SIDE].into());
    assert!(run(&config).best.is_some());
}
