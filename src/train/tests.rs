//! The promises of training, on small nets and short runs.

use std::path::Path;
use std::sync::Arc;

use physicnet_operators::layers::Boundary;
use physicnet_operators::model::{Checkpoint, Expert, ModelConfig};
use physicnet_stream::{Axis, Cadence, Frame, Grid, Sensor, Stop, Variable};

use super::config::{CropConfig, Split, TrainConfig, Validate};
use super::data::Data;
use super::footage::{Footage, Reels};
use super::run::{Summary, run};
use super::sample::Sampler;
use super::state::State;
use super::step::{Objective, each, learn};
use super::weights::Weights;

const SIZE: usize = 16;

/// Waves that travel one pixel a frame, in some directions; one block is never measured.
fn footage(sensors: usize, frames: usize) -> Reels {
    let mut reels = Reels::default();
    for s in 0..sensors {
        let sensor = Arc::new(Sensor {
            id: format!("waves/{s}").into(),
            grid: Grid {
                variables: vec![Variable { name: "height".into(), units: "m".into() }],
                y: Axis::index("y", SIZE),
                x: Axis::index("x", SIZE),
            },
            cadence: Cadence::new(1_000_000_000).unwrap(),
        });
        let frame = |t: usize| {
            let value = |i: usize| {
                let (y, x) = (i / SIZE, i % SIZE);
                let turn = std::f32::consts::TAU / SIZE as f32;
                let (a, b) = ((x + t) as f32 * turn, (y + s * t) as f32 * turn);
                if y < 2 && x < 2 { f32::NAN } else { 3.0 + a.sin() + 0.5 * (2.0 * b).cos() }
            };
            Frame {
                sensor: sensor.id.clone(),
                valid_time: t as i64 * 1_000_000_000,
                offset: t as u64,
                shape: [1, SIZE, SIZE],
                data: (0..SIZE * SIZE).map(value).collect(),
            }
        };
        let all = (0..frames).map(frame).collect();
        reels.push(Arc::clone(&sensor), all);
    }
    reels
}

fn model() -> ModelConfig {
    ModelConfig {
        boundary: Boundary::Periodic,
        expert: Expert::Persistence,
        history: 2,
        horizon: 2,
        skip: 4,
        latent: 4,
        hidden: 8,
        rounds: 1,
        decoder: 4,
        codes: 8,
        sharp: true,
        ..ModelConfig::default()
    }
}

fn config(out: &Path, steps: u64) -> TrainConfig {
    let text = format!("batch: 3\nsteps: {steps}\nout: {}\nsynthetic: {{share: 1}}", out.display());
    let mut config: TrainConfig = serde_yaml_ng::from_str(&text).unwrap();
    config.check().unwrap();
    // The footage of these tests stands in for archives.
    config.synthetic.share = 0.0;
    config.model = model();
    config.split = Split::Time { train: 0.6, validation: 0.3 };
    config.validate = Validate { every: 4, windows: 2, ..Validate::default() };
    config.loss.soft_csi.thresholds = vec![3.0];
    config.threads = Some(1);
    config
}

fn open(config: &TrainConfig, reels: Reels) -> (ModelConfig, Data) {
    let mut model = config.model.clone();
    let data = Data::new(config, &mut model, vec![Box::new(reels)], vec!["waves".into()]).unwrap();
    (model, data)
}

fn go(config: &TrainConfig, stop: &Stop, log: &mut dyn FnMut(&str)) -> anyhow::Result<Summary> {
    let (model, data) = open(config, footage(3, 30));
    run(config, model, &data, None, stop, log)
}

fn state(out: &Path) -> State {
    let mut state = State::load(&out.join("state.safetensors")).unwrap();
    state.record.seconds = 0.0;
    state
}

#[test]
fn threads_and_interruptions_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let quiet = &mut |_: &str| {};
    go(&config(&out("whole"), 8), &Stop::default(), quiet).unwrap();
    let whole = state(&out("whole"));
    assert_eq!(whole.record.step, 8);
    assert!(whole.record.best.is_some());

    let mut spread = config(&out("spread"), 8);
    spread.threads = Some(3);
    go(&spread, &Stop::default(), quiet).unwrap();
    assert!(state(&out("spread")) == whole, "3 threads");

    // Stopped in the middle (from its first line of progress on a validation), then resumed.
    let stop = Stop::default();
    let mut parted = config(&out("parted"), 8);
    let mut lines = Vec::new();
    let summary = go(&parted, &stop, &mut |line| {
        lines.push(line.to_owned());
        if line.contains("validation MSE") {
            stop.stop();
        }
    });
    assert!(summary.unwrap().stopped);
    assert!(lines.last().unwrap().contains("resume: true"), "{lines:?}");
    assert_eq!(state(&out("parted")).record.step, 4);
    assert!(go(&parted, &Stop::default(), quiet).is_err(), "a run is not overwritten");
    parted.resume = true;
    parted.seed = 5;
    let error = go(&parted, &Stop::default(), quiet).unwrap_err();
    assert!(error.to_string().contains("seed changed"), "{error}");
    parted.seed = 0;
    go(&parted, &Stop::default(), quiet).unwrap();
    assert!(state(&out("parted")) == whole, "resumed");
    let files = ["best.safetensors", "last.safetensors", "validation.csv"];
    for file in files {
        let [a, b] = ["whole", "parted"].map(|run| std::fs::read(out(run).join(file)).unwrap());
        assert!(a == b, "{file}");
    }
    Checkpoint::load(&out("whole").join("best.safetensors")).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_names_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 20);
    let variable =
        "[{name: height, units: m, transform: {kind: standardise, mean: 0, std: 1.0e-30}}]";
    config.model.variables = serde_yaml_ng::from_str(variable).unwrap();
    config.loss.warp.weight = 1.0;
    let error = go(&config, &Stop::default(), &mut |_| {}).unwrap_err().to_string();
    for part in ["step 0", "waves/", "1970-01-01T00:00"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn missing_truth_and_its_filling_teach_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1);
    let (model, data) = open(&config, footage(1, 30));
    let mut sampler = Sampler::new(&data, &config, &model);
    let mut samples = vec![sampler.training(0, 0).unwrap(), sampler.training(0, 1).unwrap()];
    let unmeasured = samples[0].weights.iter().filter(|&&w| w == 0.0).count();
    assert_eq!(unmeasured, 2 * 2 * model.horizon);
    let objective = Objective::new(&config.loss, &model, vec![1.0; 2]).unwrap();
    let weights = Weights::initial(&model, 1).unwrap();
    let (net, vars) = weights.network(&model).unwrap();
    let one = learn(&net, &vars, &samples, &objective, 1).unwrap();
    for sample in &mut samples {
        for (value, weight) in sample.truth.iter_mut().zip(&sample.weights) {
            if *weight == 0.0 {
                *value = 1e6;
            }
        }
    }
    let two = learn(&net, &vars, &samples, &objective, 2).unwrap();
    assert_eq!(one.losses, two.losses);
    assert_eq!(one.gradients, two.gradients);
}

/// The loss that is reported, against its gradients through the whole network.
#[test]
fn gradients_are_those_of_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 1);
    config.loss.mean.kind = super::loss::Penalty::Mse;
    config.loss.sharp.kind = super::loss::Penalty::Mse;
    let (model, data) = open(&config, footage(2, 30));
    let mut sampler = Sampler::new(&data, &config, &model);
    let samples = [sampler.training(0, 0).unwrap(), sampler.training(0, 1).unwrap()];
    let objective = Objective::new(&config.loss, &model, vec![1.5, 0.5]).unwrap();
    let weights = Weights::initial(&model, 1).unwrap();
    let total = |weights: &Weights| {
        let (net, vars) = weights.network(&model).unwrap();
        learn(&net, &vars, &samples, &objective, 1).unwrap()
    };
    let lesson = total(&weights);
    let mut checked = 0;
    for (name, gradient) in &lesson.gradients {
        let (i, g) =
            (gradient.iter().enumerate()).max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
        if g.abs() < 1e-2 {
            continue;
        }
        let moved = |by: f32| {
            let mut weights = weights.clone();
            weights.0.get_mut(name).unwrap().values[i] += by;
            total(&weights).losses.total()
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        let off = (slope - f64::from(*g)).abs();
        assert!(off < 0.05 * slope.abs() + 5e-3, "{name}[{i}]: {slope} {g}");
        checked += 1;
    }
    assert!(checked >= 3, "{checked} weights");
}

#[test]
fn a_translating_pattern_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 150);
    config.batch = 2;
    config.adam.lr = 5e-3;
    config.split = Split::Time { train: 0.7, validation: 0.3 };
    config.validate = Validate { every: 0, windows: 4, ..Validate::default() };
    go(&config, &Stop::default(), &mut |_| {}).unwrap();
    let scores = state(folder.path()).record.scores;
    let (ours, persistence) = (scores["mean/mse"], scores["persistence/mse"]);
    assert!(ours < 0.5 * persistence, "{scores:?}");
}

#[test]
fn crops_follow_the_rain_and_leave_out_the_inflow() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 1);
    config.model.boundary = Boundary::Open;
    config.crop = CropConfig { size: 8, wet: 0.5, wet_above: 3.0, ..CropConfig::default() };
    let (mut model, data) = open(&config, footage(1, 30));
    super::statistics::fit(&data, &mut model).unwrap();
    assert!(model.variables[0].transform.fitted());
    let mut sampler = Sampler::new(&data, &config, &model);
    let mut left_out = 0;
    for step in 0..5 {
        let sample = sampler.training(step, 0).unwrap();
        assert_eq!(sample.size, [8, 8]);
        let newest = &sample.frames[64..];
        let threshold = model.variables[0].transform.forward(3.0);
        assert!(newest.iter().filter(|&&v| v >= threshold).count() >= 28);
        left_out += sample.weights.iter().filter(|&&w| w == 0.0).count();
    }
    assert!(left_out > 0);
}

#[test]
fn samples_are_functions_of_seed_and_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 1);
    config.augment.noise = 0.1;
    config.augment.flips = true;
    let (model, data) = open(&config, footage(3, 30));
    let draw = |step| Sampler::new(&data, &config, &model).training(step, 1).unwrap();
    assert_eq!(draw(3).frames, draw(3).frames);
    assert_ne!(draw(3).frames, draw(4).frames);
}

#[test]
fn results_come_in_order_from_any_number_of_threads() {
    for threads in [1, 2, 7] {
        let squares = each((0..20).collect(), threads, |i, x: usize| Ok(i * x)).unwrap();
        assert!(squares.iter().enumerate().all(|(i, &s)| s == i * i));
    }
    assert_eq!(footage(2, 3).sensors().len(), 2);
}
