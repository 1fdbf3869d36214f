//! A sensor that shows something else than the model was trained on is told from one that does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use physicnet::config::{Job, load};
use physicnet::engine;
use physicnet::health::SensorHealth;
use physicnet_connectors::synthetic::{Field, NavierStokes, Rain, Recording, SyntheticSource};
use physicnet_connectors::zarr::ArchiveWriter;
use physicnet_operators::model::Checkpoint;
use physicnet_stream::{Frame, Stop};
use serde_json::Map;

use crate::house::{MINUTE, physicnet};

/// The model that is shipped, trained on the flows that are simulated here.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/demo/checkpoint.safetensors");
/// Frames of each sensor; the shipped model compares 45.
const FRAMES: u64 = 52;

/// The first frames of a field, as the shipped model's data call and scale them.
fn record(field: Field, seed: u64) -> Vec<Frame> {
    let source =
        SyntheticSource { frames: Some(FRAMES), seed, ..SyntheticSource::new(field.clone()) };
    let mut recording = Recording::new(&source, 0).unwrap();
    let mut frames: Vec<Frame> = std::iter::from_fn(|| recording.next_frame().unwrap()).collect();
    if let Field::Rain(_) = field {
        let vorticity = |rate: &mut f32| *rate = (*rate / 0.1).ln_1p() - 1.0;
        frames.iter_mut().for_each(|frame| frame.data.iter_mut().for_each(vorticity));
    }
    frames
}

fn flow(seed: u64) -> Vec<Frame> {
    record(Field::NavierStokes(NavierStokes::default()), seed)
}

/// Adds noise of this amplitude, the same in every run.
fn noisy(mut frames: Vec<Frame>, amplitude: f32) -> Vec<Frame> {
    let mut state = 1_u64;
    for value in frames.iter_mut().flat_map(|frame| &mut frame.data) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *value += amplitude * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0);
    }
    frames
}

/// A job of the shipped model over a store for each of the `sensors`.
fn job(folder: &Path, sensors: &[(&str, Vec<Frame>)], more: &str) -> PathBuf {
    let grid = Field::NavierStokes(NavierStokes::default()).grid();
    let mut sources = String::new();
    for (name, frames) in sensors {
        let path = folder.join(name).with_extension("zarr");
        let mut writer = ArchiveWriter::create(&path, &grid, None, Map::new()).unwrap();
        frames.iter().for_each(|frame| writer.append(0, frame).unwrap());
        writer.finish().unwrap();
        sources += &format!("  - {{type: zarr, path: '{}', cadence: 300s}}\n", path.display());
    }
    let model = format!("model: {{checkpoint: '{MODEL}'}}");
    let path = folder.join("job.yaml");
    std::fs::write(&path, format!("sources:\n{sources}{model}\n{more}\n")).unwrap();
    path
}

fn health(job: &Path) -> BTreeMap<String, SensorHealth> {
    let job: Job = load(job).unwrap();
    let parts = job.open().unwrap();
    let health = parts.health.clone();
    engine::run(parts, &job.cluster(), &Stop::default()).unwrap();
    health.sensors().into_iter().map(|(id, health)| (id.to_string(), health)).collect()
}

#[test]
fn other_fields_are_alarming_and_unseen_ones_of_the_same_kind_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let thick = NavierStokes { viscosity: 1e-3, ..NavierStokes::default() };
    let rain = Rain { height: 64, width: 64, ..Rain::default() };
    let half = |mut frames: Vec<Frame>| {
        let pixels = frames.iter_mut().flat_map(|frame| &mut frame.data[..64 * 32]);
        pixels.for_each(|value| *value = f32::NAN);
        frames
    };
    let sensors = [
        ("same", flow(11)),
        ("also", flow(12)),
        ("half", half(flow(11))),
        ("noisy", noisy(flow(11), 2.0)),
        ("thick", record(Field::NavierStokes(thick), 11)),
        ("rain", record(Field::Rain(rain), 11)),
    ];
    let path = job(folder.path(), &sensors, "workers: 2\nbatch: 8");
    let told = health(&path);
    let usage = Checkpoint::load(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/demo/checkpoint.safetensors"),
    );
    let limit = usage.unwrap().usage.unwrap().alarm();
    for (name, alarming) in
        [("same", 0), ("also", 0), ("half", 0), ("noisy", 1), ("thick", 1), ("rain", 1)]
    {
        let health = &told[name];
        let furthest = health.furthest.unwrap();
        assert_eq!(health.alarms, alarming, "{name}: {furthest:.3}, alarm above {limit:.3}");
        let missing = health.drift.as_ref().unwrap().missing;
        // Cells that saw nothing do not count: half a frame is like the whole of it.
        assert_eq!(missing, if name == "half" { 0.5 } else { 0.0 });
    }

    let alone = std::fs::read_to_string(&path).unwrap().replace("workers: 2", "workers: 1");
    std::fs::write(&path, alone.replace("batch: 8", "batch: 1")).unwrap();
    assert_eq!(health(&path), told);
}

#[test]
fn an_alarm_is_said_once_and_again_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut frames = flow(11);
    frames.extend(noisy(flow(12), 2.0));
    frames.extend(flow(13));
    for (step, frame) in frames.iter_mut().enumerate() {
        frame.valid_time = step as i64 * 5 * MINUTE;
    }
    let path = job(folder.path(), &[("moody", frames)], "drift: {alarm: 0.4}");
    let output =
        physicnet().args(["run", path.to_str().unwrap()]).env("RUST_LOG", "info").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let count = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    let (begins, ends) = (count("moody has drifted"), count("moody is like the training data"));
    assert_eq!((begins, ends), (1, 1), "{said}");
    let warning = said.lines().find(|line| line.contains("moody has drifted")).unwrap();
    assert!(warning.contains("WARN") && warning.contains("limit=0.400"), "{warning}");
    let summary = said.lines().find(|line| line.contains("everything durable")).unwrap();
    assert!(summary.contains("drifted=[\"moody 0."), "{summary}");
}

#[test]
fn refused_frames_are_counted_under_their_sensor() {
    let folder = tempfile::tempdir().unwrap();
    let calm = flow(11)[..20].to_vec();
    let mut wrong = calm.clone();
    let mut again = |step: usize, minutes: i64, change: f32| {
        let mut frame = calm[step].clone();
        frame.valid_time += minutes * MINUTE;
        frame.data[0] += change;
        wrong.push(frame);
    };
    again(18, 0, 0.0);
    again(17, 0, 1.0);
    again(3, 1, 0.0);
    again(4, 1, 0.0);
    let told = health(&job(folder.path(), &[("calm", calm.clone()), ("wrong", wrong)], ""));
    assert!(told["calm"].rejects.is_empty());
    let expected = BTreeMap::from([("corrected", 1), ("duplicate", 1), ("late", 2)]);
    assert_eq!(told["wrong"].rejects, expected);
    // Too few frames to say how far they are, and no reason for an alarm.
    let drift = told["wrong"].drift.clone().unwrap();
    assert_eq!((drift.valid_time, drift.distance), (calm[19].valid_time, None));
    assert_eq!(told["wrong"].alarms, 0);
}
