//! What the tests share: small stores, small networks, and the bytes of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use candle_core::{Device, Tensor};
use physicnet_connectors::zarr::ArchiveWriter;
use physicnet_operators::cropping::Transform;
use physicnet_operators::model::{Checkpoint, Expert, ModelConfig, VariableConfig};
use physicnet_stream::{Axis, Frame, Grid, Time, Variable};
use serde_json::Map;

/// A minute, the cadence of the stores.
pub(crate) const MINUTE: Time = 60_000_000_000;

/// A drifting pattern, different for every `phase`.
pub(crate) fn frame(step: u64, time: Time, phase: f32) -> Frame {
    let (height, width) = (12, 17);
    let value = |at: usize| {
        let (y, x) = ((at / width) as f32, (at % width) as f32);
        (0.6 * (x - step as f32) + phase).sin() * (0.4 * y + 0.2 * step as f32).cos()
    };
    let data = (0..height * width).map(value).collect();
    Frame {
        sensor: "any".into(),
        valid_time: time,
        offset: step,
        shape: [1, height, width],
        data,
        replay: false,
        scored: false,
        record: None,
    }
}

/// A store of these frames.
pub(crate) fn store(path: &Path, frames: &[Frame]) {
    let [_, height, width] = frames[0].shape;
    let grid = Grid {
        variables: vec![Variable { name: "u".into(), units: "m s-1".into() }],
        y: Axis::index("y", height),
        x: Axis::index("x", width),
    };
    let mut writer = ArchiveWriter::create(path, &grid, None, Map::new()).unwrap();
    frames.iter().for_each(|frame| writer.append(0, frame).unwrap());
    writer.finish().unwrap();
}

/// A small network.
fn model() -> ModelConfig {
    let variable = VariableConfig {
        name: "u".into(),
        units: "m s-1".into(),
        transform: Transform::Identity,
        keep: Vec::new(),
        ceiling: None,
    };
    ModelConfig {
        variables: vec![variable],
        history: 3,
        horizon: 2,
        skip: 8,
        latent: 4,
        hidden: 16,
        decoder: 8,
        codes: 8,
        sharp: true,
        ..ModelConfig::default()
    }
}

/// An untrained network, which says what its expert says.
pub(crate) fn untrained(path: &Path, expert: Expert) {
    Checkpoint::untrained(&ModelConfig { expert, ..model() }).unwrap().save(path).unwrap();
}

/// A network that is not its expert: every weight is moved off its start.
pub(crate) fn checkpoint(path: &Path) {
    let mut checkpoint = Checkpoint::untrained(&model()).unwrap();
    for (i, weight) in checkpoint.weights.values_mut().enumerate() {
        let wave = |k: usize| 0.1 * ((k * 7 + i * 13) as f32).sin();
        let wave: Vec<f32> = (0..weight.elem_count()).map(wave).collect();
        *weight = Tensor::from_vec(wave, weight.dims(), &Device::Cpu).unwrap();
    }
    // As far as anybody can tell.
    checkpoint.provenance.steps = 1;
    checkpoint.save(path).unwrap();
}

/// A folder with five sensors' stores, a checkpoint, and the job over them.
pub(crate) fn site(folder: &Path, frames: u64) {
    for sensor in 0..5 {
        let series: Vec<Frame> =
            (0..frames).map(|k| frame(k, k as Time * MINUTE, sensor as f32)).collect();
        store(&folder.join(format!("s{sensor}.zarr")), &series);
    }
    checkpoint(&folder.join("model.safetensors"));
}

/// The job over a site, writing below `out`.
pub(crate) fn job(folder: &Path, out: &str, more: &str) -> PathBuf {
    let at = folder.display();
    let sources: Vec<String> =
        (0..5).map(|k| format!("  - {{type: zarr, path: '{at}/s{k}.zarr'}}\n")).collect();
    let text = format!(
        "sources:\n{}model: {{checkpoint: '{at}/model.safetensors'}}\n\
         sinks: [{{type: zarr, path: '{at}/{out}/{{sensor}}.zarr', fsync: false, \
         products: [mean, advection]}}]\nrejects: {{path: '{at}/{out}/rejects', fsync: false}}\n\
         {more}\n",
        sources.concat()
    );
    let path = folder.join(format!("{out}.yaml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// A Python with xarray. Without one the test is skipped, except in continuous integration.
pub(crate) fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("PHYSICNET_PYTHON").map_or(own, PathBuf::from);
    let there = python.exists();
    assert!(there || std::env::var("CI").as_deref() != Ok("true"), "no Python; see scripts/test");
    there.then_some(python)
}

/// What stands beside the fields of a forecast store: reference times in minutes, their revisions,
/// and what was served.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Coordinates {
    pub(crate) time: Vec<i64>,
    pub(crate) revision: Vec<u64>,
    pub(crate) serving: Vec<String>,
}

/// The coordinates of these stores, as xarray reads them; none without a Python.
pub(crate) fn coordinates(stores: &[PathBuf]) -> Option<Vec<Coordinates>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/coordinates.py");
    let mut read = Command::new(python()?);
    let output = read.args(["-W", "ignore"]).arg(script).args(stores).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told = String::from_utf8(output.stdout).unwrap();
    Some(told.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A Python that can lead a browser. Without both the test is skipped, except in continuous integration.
pub(crate) fn browser() -> Option<PathBuf> {
    let able = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", "import playwright"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let chromium = Path::new("/usr/bin/chromium").exists();
    let found = python().filter(|python| chromium && able(python));
    if found.is_none() {
        let why = "no /usr/bin/chromium, or no Python with playwright (see scripts/test)";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped: {why}");
    }
    found
}

/// The command, ready to be given arguments.
pub(crate) fn physicnet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_physicnet"));
    command.env("RUST_LOG", "warn").env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

/// Runs it to its end; panics with what it said unless it succeeds.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let output = physicnet().args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "physicnet {arguments:?}: {said}");
    output
}

/// Starts it.
pub(crate) fn start(arguments: &[&str]) -> Child {
    physicnet().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The paths of all files below a folder, which may be written to meanwhile.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    all
}

/// Every file below a folder to which nobody writes, by its path there.
pub(crate) fn bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let name = path.strip_prefix(folder).unwrap().to_path_buf();
        (name, std::fs::read(&path).unwrap())
    };
    files(folder).into_iter().map(read).collect()
}

/// The names of what differs between two folders.
pub(crate) fn differences(a: &Path, b: &Path) -> Vec<PathBuf> {
    let (a, b) = (bytes(a), bytes(b));
    let mut names: Vec<PathBuf> = a.keys().chain(b.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| a.get(name) != b.get(name));
    names
}
