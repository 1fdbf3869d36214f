//! What training promises: the same weights for the same seed, whatever interrupts or helps it.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use physicnet_connectors::zarr::{ArchiveWriter, ZarrSource};
use physicnet_operators::cropping::{Transform, View};
use physicnet_operators::experts::between;
use physicnet_operators::layers::Boundary;
use physicnet_operators::model::{
    Checkpoint, ModelConfig, Outputs, Processor, Stored, VariableConfig,
};
use physicnet_stream::{Axis, Frame, Grid, Stop, Variable};

use super::loss::Loss;
use super::optimiser::{Named, Optimiser, rate_at};
use super::random::Random;
use super::sample::{Planes, Sample};
use super::*;

mod augment;
mod data;
mod loss;
mod measures;
mod missing;
mod parent;
mod sizes;
mod stopping;
mod stored;

const SIDE: usize = 16;

fn frames(count: usize, hole: bool) -> Vec<Frame> {
    let frame = |step: usize| {
        let value = |at: usize| {
            let (y, x) = ((at / SIDE) as f32, (at % SIDE) as f32);
            let (y, x) = (y - 0.5 * step as f32, x - step as f32);
            let turn = std::f32::consts::TAU / SIDE as f32;
            (turn * x).sin() + 0.5 * (turn * (2.0 * y + x)).cos()
        };
        let mut data: Vec<f32> = (0..SIDE * SIDE).map(value).collect();
        if hole {
            data[5] = f32::NAN;
        }
        let (offset, valid_time) = (step as u64, step as i64 * 60_000_000_000);
        Frame {
            sensor: "a".into(),
            valid_time,
            offset,
            shape: [1, SIDE, SIDE],
            data,
            replay: false,
            scored: false,
            record: None,
        }
    };
    (0..count).map(frame).collect()
}

fn archive(folder: &Path, frames: &[Frame]) -> PathBuf {
    let grid = Grid {
        variables: vec![Variable { name: "u".into(), units: "m s-1".into() }],
        y: Axis::index("y", SIDE),
        x: Axis::index("x", SIDE),
    };
    let path = folder.join("a.zarr");
    let mut writer = ArchiveWriter::create(&path, &grid, None, serde_json::Map::new()).unwrap();
    frames.iter().for_each(|frame| writer.append(0, frame).unwrap());
    writer.finish().unwrap();
    path
}

fn small() -> ModelConfig {
    ModelConfig {
        history: 3,
        horizon: 2,
        boundary: Boundary::Periodic,
        hidden: 16,
        latent: 4,
        skip: 8,
        decoder: 8,
        codes: 16,
        sharp: true,
        local: true,
        local_view: 34,
        ..ModelConfig::default()
    }
}

fn config(folder: &Path, frames: &[Frame], out: &str) -> TrainConfig {
    let path = folder.join("a.zarr");
    let path = if path.exists() { path } else { archive(folder, frames) };
    TrainConfig {
        data: vec![ZarrSource::new(path)],
        mix: Vec::new(),
        out: folder.join(out),
        weights: Stored::F32,
        model: small(),
        split: Split { by: By::Time, train: 0.7, validation: 0.3 },
        crop: 0,
        min_measured: 0.5,
        augment: Augment { noise: 0.1, ..Augment::default() },
        loss: LossConfig { thresholds: vec![0.5], ..LossConfig::default() },
        batch: 3,
        steps: 6,
        minutes: None,
        learning_rate: 3e-3,
        warm_up: 0.05,
        weight_decay: 1e-4,
        clip: 1.0,
        ema: 0.9,
        seed: 7,
        threads: 1,
        device: Processor::Cpu,
        validate_every: 3,
        validate_windows: 4,
        init_from: None,
        resume: false,
    }
}

fn run(config: &TrainConfig) -> Summary {
    train(config, &Stop::default(), &mut |_| ()).unwrap()
}

fn bytes(config: &TrainConfig, name: &str) -> Vec<u8> {
    let path = config.out.join(name);
    let checkpoint = Checkpoint::load(&path).unwrap();
    let values = checkpoint.weights.values();
    let all = values.flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    all.flat_map(|v| v.to_bits().to_le_bytes()).collect()
}

#[test]
fn neither_threads_nor_interruptions_change_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, true);
    let whole = config(folder.path(), &frames, "whole");
    let summary = run(&whole);
    assert_eq!((summary.steps, summary.stopped), (6, false));
    assert!(summary.best.is_some());

    let threads = TrainConfig { threads: 4, ..config(folder.path(), &frames, "threads") };
    run(&threads);
    assert!(bytes(&threads, "last.safetensors") == bytes(&whole, "last.safetensors"));

    let mut parts = config(folder.path(), &frames, "parts");
    let stop = Stop::default();
    let asked = stop.clone();
    let told = train(&parts, &stop, &mut |told| {
        if told.step == 2 {
            asked.stop();
        }
    });
    assert!(told.unwrap().stopped);
    parts.resume = true;
    let stopped = run(&parts);
    assert_eq!(stopped.steps, 6);
    for name in ["last.safetensors", "best.safetensors"] {
        assert!(bytes(&parts, name) == bytes(&whole, name), "{name}");
    }
    let other = TrainConfig { seed: 8, ..parts.clone() };
    let error = train(&other, &Stop::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("belongs to another training file"), "{error}");
    assert!(error.contains("these differ: seed (7 then, 8 now). "), "{error}");
    let longer = TrainConfig { steps: 9, ..parts.clone() };
    let error = train(&longer, &Stop::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("these differ: steps (6 then, 9 now). "), "{error}");
    assert!(error.contains("`init_from: ") && error.contains("last.safetensors"), "{error}");
}

#[test]
fn the_metrics_of_a_killed_run_are_those_of_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, false);
    // What differs between runs is how long they took.
    let rows = |config: &TrainConfig| -> Vec<String> {
        let csv = std::fs::read_to_string(config.out.join("metrics.csv")).unwrap();
        let timed = |row: &&str| [",waited,", ",read,"].iter().any(|part| row.contains(part));
        let csv = csv.lines().filter(|row| !timed(row));
        let untimed = |row: &str| {
            let mut parts: Vec<_> = row.split(',').collect();
            parts.remove(1);
            parts.join(",")
        };
        csv.map(untimed).collect()
    };
    let whole = config(folder.path(), &frames, "whole");
    run(&whole);
    let killed = TrainConfig { resume: true, ..config(folder.path(), &frames, "killed") };
    let told = std::panic::catch_unwind(|| {
        train(&killed, &Stop::default(), &mut |told| assert!(told.step < 5, "killed"))
    });
    assert!(told.is_err());
    // Steps 4 and 5 are behind the state, and the last row is cut off.
    let path = killed.out.join("metrics.csv");
    let csv = std::fs::read_to_string(&path).unwrap();
    assert!(csv.lines().last().unwrap().starts_with("5,"), "{csv}");
    std::fs::write(&path, &csv[..csv.len() - 9]).unwrap();
    run(&killed);
    assert_eq!(rows(&killed), rows(&whole));
    for name in ["last.safetensors", "best.safetensors"] {
        assert!(bytes(&killed, name) == bytes(&whole, name), "{name}");
    }
}

#[test]
fn the_best_weights_are_those_of_the_least_validation() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, false);
    let settings =
        TrainConfig { validate_every: 1, steps: 8, ..config(folder.path(), &frames, "out") };
    let mut scores = Vec::new();
    let told = train(&settings, &Stop::default(), &mut |told| {
        let score = told.validation.as_ref().map(|scores| scores["mae_sharp"]);
        scores.push((score.unwrap(), told.step));
    });
    let &(least, step) = scores.iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert_eq!(told.unwrap().best, Some((least, step)));
    let [best, last] = ["best.safetensors", "last.safetensors"]
        .map(|name| Checkpoint::load(&settings.out.join(name)).unwrap().provenance);
    assert_eq!((best.steps, best.validation["mae_sharp"]), (step, least));
    assert_eq!(last.steps, 8);
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, false);
    let config = config(folder.path(), &frames, "out");
    let mut told = None;
    train(&config, &Stop::default(), &mut |_| {
        told.get_or_insert_with(|| train(&config, &Stop::default(), &mut |_| ()).map(drop));
    })
    .unwrap();
    let error = told.unwrap().unwrap_err().to_string();
    assert!(error.contains("another training writes there"), "{error}");
}

#[test]
fn training_ends_by_counting_its_codes() {
    let folder = tempfile::tempdir().unwrap();
    // 40 frames, 28 of which train and 12 choose the weights; one pixel is never measured.
    let config = config(folder.path(), &frames(40, true), "counted");
    run(&config);
    for name in ["best.safetensors", "last.safetensors"] {
        let path = config.out.join(name);
        let trained = Checkpoint::load(&path).unwrap();
        let usage = trained.usage.clone().unwrap();
        assert_eq!(usage.counts.len(), 16);
        assert_eq!(usage.counts.iter().sum::<u64>(), 28 * 16, "each cell of each frame");
        assert_eq!(usage.window, 12);
        assert!((0.0..1.0).contains(&usage.usual));

        // An older checkpoint has no usage: it can be counted later, to the same numbers.
        let older = Checkpoint { usage: None, ..trained };
        older.save(&path).unwrap();
        let before = Checkpoint::load(&path).unwrap();
        assert_eq!(before.usage, None);
        assert_eq!(calibrate(&config, &path, false).unwrap(), usage);
        let after = Checkpoint::load(&path).unwrap();
        assert_eq!((&after.usage, &after.id), (&Some(usage.clone()), &before.id));

        // A model that doubts is another one, and forecasts otherwise.
        calibrate(&config, &path, true).unwrap();
        let doubting = Checkpoint::load(&path).unwrap();
        let far = doubting.config.faults;
        assert!(far.is_some_and(|far| far > 0.0 && far.is_finite()), "{far:?}");
        assert_eq!((&doubting.usage, after.config.faults), (&Some(usage), None));
        assert_ne!(doubting.id, after.id);
        assert!(doubting.weights.iter().all(|(name, weight)| {
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            flat(weight) == flat(&after.weights[name])
        }));
    }
    // Without a validation part, a quarter of the training part stands in for it.
    let split = Split { by: By::Time, train: 1.0, validation: 0.0 };
    let path = config.out.join("last.safetensors");
    let usage = calibrate(&TrainConfig { split, ..config }, &path, false).unwrap();
    assert_eq!((usage.counts.iter().sum::<u64>(), usage.window), (40 * 16, 10));
    assert!(usage.usual > 0.0);
}

#[test]
fn training_cuts_local_views_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(40, false), "views");
    let views = |config: &TrainConfig| {
        let mut model = config.model.clone();
        let data = Data::open(config, &mut model).unwrap();
        let view = |step| data.training(config, &model, step, 0).unwrap().batch.view;
        (0..9).map(view).collect::<Vec<_>>()
    };
    // The frames are smaller than a view, so that it is all of them.
    let whole = View { top: 0, left: 0, rows: SIDE, columns: SIDE };
    assert_eq!(views(&config), [Some(whole); 9]);
    config.model.local_view = 0;
    assert_eq!(views(&config), [None; 9]);
}

#[test]
fn a_translation_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(40, false), "learnt");
    config.model.expert = physicnet_operators::model::Expert::Persistence;
    config.augment = Augment::default();
    (config.steps, config.validate_every) = (60, 60);
    let mut scores = BTreeMap::new();
    let mut keep = |told: &Told| scores.extend(told.validation.clone().into_iter().flatten());
    train(&config, &Stop::default(), &mut keep).unwrap();
    assert!(scores["mse_mean"] < 0.5 * scores["mse_expert"], "{scores:?}");
    let csv = std::fs::read_to_string(config.out.join("metrics.csv")).unwrap();
    assert!(
        csv.lines().any(|line| line.starts_with("60,") && line.contains("validation_mse_mean"))
    );
}

#[test]
fn a_tendency_starts_from_least_squares() {
    let folder = tempfile::tempdir().unwrap();
    // Every pixel swings with a phase of its own and nothing moves: two frames tell the next.
    let mut swings = frames(40, true);
    for (step, frame) in swings.iter_mut().enumerate() {
        let swing = |(at, value): (usize, &mut f32)| {
            if !value.is_nan() {
                *value = (0.4 * step as f32 + at as f32).sin();
            }
        };
        frame.data.iter_mut().enumerate().for_each(swing);
    }
    let mut config = config(folder.path(), &swings, "swings");
    config.model.expert = physicnet_operators::model::Expert::Persistence;
    config.model.tendency = 2;
    config.augment = Augment::default();
    (config.steps, config.learning_rate) = (1, 1e-9);
    let mut scores = BTreeMap::new();
    let mut keep = |told: &Told| scores.extend(told.validation.clone().into_iter().flatten());
    train(&config, &Stop::default(), &mut keep).unwrap();
    assert!(scores["mse_mean"] < 1e-3 * scores["mse_expert"], "{scores:?}");
}

#[test]
fn a_loss_that_is_not_finite_names_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(40, false), "wild");
    config.learning_rate = 1e30;
    let error = train(&config, &Stop::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("step ") && error.contains("a from 1970-01-01T"), "{error}");
    assert!(error.contains("learning_rate"), "{error}");
    assert!(error.contains("gone astray before that, and are not kept"), "{error}");
    assert!(!config.out.join("last.safetensors").exists());

    // Weights that are numbers are kept: here frames are beyond what a difference can hold.
    let folder = tempfile::tempdir().unwrap();
    let mut frames = frames(40, false);
    for (at, value) in frames.iter_mut().flat_map(|frame| &mut frame.data).enumerate() {
        *value = if at % 2 == 0 { f32::MAX } else { f32::MIN };
    }
    let mut config = self::config(folder.path(), &frames, "huge");
    config.model.variables = model().variables;
    let error = train(&config, &Stop::default(), &mut |_| ()).unwrap_err().to_string();
    let path = config.out.join("last.safetensors");
    assert!(error.contains("step ") && error.contains(&path.display().to_string()), "{error}");
    Checkpoint::load(&path).unwrap();
}

#[test]
fn bad_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path(), &frames(40, false), "bad");
    let refused = |change: &dyn Fn(&mut TrainConfig)| {
        let mut bad = good.clone();
        change(&mut bad);
        format!("{:#}", train(&bad, &Stop::default(), &mut |_| ()).unwrap_err())
    };
    assert!(refused(&|c| c.data.clear()).starts_with("data"));
    assert!(refused(&|c| c.mix = vec![1.0, 1.0]).starts_with("mix"));
    assert!(refused(&|c| c.mix = vec![0.0]).starts_with("mix"));
    assert!(refused(&|c| c.split.train = 0.9).starts_with("split"));
    assert!(refused(&|c| c.augment.scale = f32::NAN).starts_with("augment.noise, augment.scale"));
    assert!(refused(&|c| c.augment.dropout = 2.0).starts_with("augment.dropout"));
    type Change<'a> = &'a dyn Fn(&mut TrainConfig);
    let named: [(&str, Change); 9] = [
        ("weight_decay", &|c| c.weight_decay = -1.0),
        ("loss.warp", &|c| c.loss.warp = -0.1),
        ("loss.smooth", &|c| c.loss.smooth = f64::NAN),
        ("loss.thresholds", &|c| c.loss.thresholds = vec![f64::INFINITY]),
        ("min_measured", &|c| c.min_measured = 2.0),
        ("validate_windows", &|c| c.validate_windows = 0),
        ("threads", &|c| c.threads = 100_000),
        ("out", &|c| c.out = PathBuf::new()),
        ("augment.roll_diagonal", &|c| {
            (c.augment.roll_diagonal, c.model.boundary) = (true, Boundary::Open);
        }),
    ];
    for (key, change) in named {
        let error = refused(change);
        assert!(error.starts_with(key), "{key}: {error}");
    }
    assert!(refused(&|c| c.crop = 6).starts_with("crop"));
    assert!(refused(&|c| c.crop = 8).starts_with("crop"));
    assert!(refused(&|c| c.model.horizon = 100).contains("no window of 3 + 100"));
    assert!(refused(&|c| c.split.validation = 0.1).starts_with("split.validation"));
    let blind = tempfile::tempdir().unwrap();
    let mut unseen = frames(40, false);
    unseen[..28].iter_mut().for_each(|frame| frame.data.fill(f32::NAN));
    archive(blind.path(), &unseen);
    let path = blind.path().join("a.zarr");
    assert!(
        refused(&|c| c.data[0].path.clone_from(&path)).contains("training part has a measured")
    );
    assert!(refused(&|c| c.data[0].path = "absent.zarr".into()).contains("absent.zarr"));
    assert!(refused(&|c| c.init_from = Some("absent".into())).contains("absent"));
}

fn model() -> ModelConfig {
    let variable = VariableConfig {
        name: "u".into(),
        units: String::new(),
        transform: Transform::Identity,
        keep: Vec::new(),
        ceiling: None,
    };
    ModelConfig { variables: vec![variable], ..small() }
}

#[test]
fn the_optimiser_is_its_definition() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path(), &frames(6, false), "adam");
    (settings.clip, settings.weight_decay, settings.ema) = (1e9, 0.1, 0.5);
    let mut optimiser = Optimiser::new(Named::from([("w".into(), vec![1.0, -2.0])]));
    let (mut w, mut m, mut v, mut average) = ([1.0, -2.0_f64], [0.0; 2], [0.0; 2], [1.0, -2.0]);
    for step in 1..=5 {
        let gradient = [0.3 * f64::from(step), -1.0];
        let given = Named::from([("w".into(), gradient.map(|g| g as f32).to_vec())]);
        optimiser.descend(&given, 0.01, &settings);
        let keep = 0.5_f64.min((1.0 + f64::from(step)) / (10.0 + f64::from(step)));
        for i in 0..2 {
            m[i] = 0.9 * m[i] + 0.1 * gradient[i];
            v[i] = 0.98 * v[i] + 0.02 * gradient[i] * gradient[i];
            let (mh, vh) = (m[i] / (1.0 - 0.9_f64.powi(step)), v[i] / (1.0 - 0.98_f64.powi(step)));
            w[i] = w[i] * (1.0 - 0.01 * 0.1) - 0.01 * mh / (vh.sqrt() + 1e-8);
            average[i] = keep * average[i] + (1.0 - keep) * w[i];
        }
    }
    for i in 0..2 {
        assert!((f64::from(optimiser.weights["w"][i]) - w[i]).abs() < 1e-5);
        assert!((f64::from(optimiser.ema["w"][i]) - average[i]).abs() < 1e-5);
    }
    settings.clip = 1.0;
    let mut clipped = Optimiser::new(Named::from([("w".into(), vec![0.0])]));
    assert_eq!(clipped.descend(&Named::from([("w".into(), vec![30.0])]), 0.0, &settings), 30.0);
    assert!((clipped.first["w"][0] - 0.1).abs() < 1e-6);

    (settings.learning_rate, settings.warm_up) = (1.0, 0.1);
    let rates = [0.05, 0.1, 0.55, 1.0].map(|done| rate_at(done, &settings));
    for (rate, expected) in rates.into_iter().zip([0.5, 1.0, 0.5, 0.0]) {
        assert!((rate - expected).abs() < 1e-9, "{rates:?}");
    }
}

#[test]
fn draws_are_spread() {
    let mut random = Random::new(1, &[2, 3]);
    let draws: Vec<f64> = (0..4000).map(|_| random.normal()).collect();
    let mean = draws.iter().sum::<f64>() / 4000.0;
    let variance = draws.iter().map(|d| d * d).sum::<f64>() / 4000.0 - mean * mean;
    assert!(mean.abs() < 0.06 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
    let again: Vec<usize> = (0..5).map(|_| Random::new(1, &[2, 3]).below(1000)).collect();
    assert!(again.iter().all(|d| *d == again[0]));
}
