//! What Kafka costs: against librdkafka's own consumer, and against peers in Python.
//!
//! `benches/kafka/run` starts a broker and runs all of it; `docs/speed.md` has the figures. Times
//! on a shared machine mean little: what is compared runs in turn, and ratios are taken pair by
//! pair.

mod forecast;
mod ingest;
mod job;
mod latency;
mod soak;
mod topic;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::job::{CHECKPOINT, Model};

/// What was asked for.
pub(crate) struct Asked {
    /// How many pairs a ratio is the median of.
    pub(crate) pairs: usize,
    /// Rows and columns of the frames that are forecast.
    pub(crate) side: usize,
    /// Frames at saturation.
    pub(crate) frames: usize,
    /// Frames a second of all sensors together, where latency is taken.
    pub(crate) rate: f64,
    /// Worker threads of the job.
    pub(crate) workers: usize,
    /// How long to soak.
    pub(crate) minutes: f64,
    /// The Python that runs the peers, if one does.
    pub(crate) python: Option<String>,
    /// What is forecast with.
    pub(crate) model: Model,
    /// The network for ONNX Runtime.
    pub(crate) onnx: PathBuf,
    pub(crate) brokers: String,
}

fn main() -> Result<()> {
    let mut asked = Asked {
        pairs: 5,
        side: 64,
        frames: 1920,
        rate: 80.0,
        workers: 2,
        minutes: 10.0,
        python: std::env::var("PHYSICNET_PYTHON").ok(),
        model: Model::network()?,
        onnx: std::env::temp_dir().join(format!("physicnet-bench-{}.onnx", std::process::id())),
        brokers: std::env::var("KAFKA_BOOTSTRAP")
            .context("KAFKA_BOOTSTRAP names no broker; benches/kafka/run starts one")?,
    };
    let (mut what, mut json) = (Vec::new(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match &*word {
            "--pairs" => asked.pairs = value()?.parse()?,
            "--side" => asked.side = value()?.parse()?,
            "--frames" => asked.frames = value()?.parse()?,
            "--rate" => asked.rate = value()?.parse()?,
            "--workers" => asked.workers = value()?.parse()?,
            "--minutes" => asked.minutes = value()?.parse()?,
            "--model" => asked.model = model(&value()?)?,
            "--json" => json = Some(value()?),
            "ingest" | "forecast" | "latency" | "start" | "soak" => what.push(word),
            _ => bail!("{word}: say ingest, forecast, latency, start, soak, or an option"),
        }
    }
    if what.is_empty() {
        what = ["ingest", "forecast", "latency", "start"].map(String::from).into();
    }
    if let Some(python) = asked.python.as_ref().filter(|_| asked.model.peers.contains(&"ONNX")) {
        export(python, &asked)?;
    }
    let mut told = Map::new();
    for what in what {
        let figures = match &*what {
            "ingest" => ingest::ingest(&asked)?,
            "forecast" => forecast::forecast(&asked)?,
            "latency" => latency::latency(&asked)?,
            "start" => forecast::start(&asked)?,
            _ => soak::soak(&asked)?,
        };
        told.insert(what, figures);
    }
    // Without a peer there is none.
    let _ = std::fs::remove_file(&asked.onnx);
    told.insert("machine".into(), machine());
    let text = serde_json::to_string_pretty(&Value::Object(told))?;
    match json {
        Some(path) => std::fs::write(&path, text + "\n").context(path),
        None => say(&text),
    }
}

fn model(name: &str) -> Result<Model> {
    match name {
        "network" => Model::network(),
        "advection" => Ok(Model::advection()),
        _ => bail!("{name}: say network or advection"),
    }
}

/// Writes the network for ONNX Runtime: its peer needs no PyTorch then.
fn export(python: &str, asked: &Asked) -> Result<()> {
    let side = asked.side.to_string();
    let mut command = Command::new(python);
    command.args([&job::peer("twin.py"), "export", CHECKPOINT]).arg(&asked.onnx);
    let told = command.args(["--size", &side, &side]).output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    Ok(())
}

pub(crate) fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// The middle one; of two, the larger.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share lies.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((values.len() as f64 * share) as usize).min(last)).copied().unwrap_or(f64::NAN)
}

/// The median of ratios, and the least and the largest, as a row of a table.
pub(crate) fn row(name: &str, ours: &[f64], peers: &[f64]) -> Result<Value> {
    let ratios: Vec<f64> = ours.iter().zip(peers).map(|(a, b)| a / b).collect();
    let [least, middle, most] = [0.0, 0.5, 1.0].map(|at| quantile(ratios.clone(), at));
    let (own, peer) = (median(ours.iter().copied()), median(peers.iter().copied()));
    say(&format!("| {name} | {own:.4} | {peer:.4} | {middle:.3} | {least:.3} to {most:.3} |"))?;
    Ok(json!({"ours": ours, "peer": peers, "ratio": middle, "least": least, "most": most}))
}

pub(crate) fn header(peer: &str) -> Result<()> {
    say(&format!(
        "| | PhysicNet | {peer} | ratio | of the pairs |\n| --- | --- | --- | --- | --- |"
    ))
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu =
        cpu.lines().find(|line| line.starts_with("model name")).and_then(|l| l.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "cpu": cpu.map_or("", |(_, name)| name),
        "cores": cores,
        "load": read("/proc/loadavg").split_whitespace().next().unwrap_or_default(),
        "librdkafka": rdkafka::util::get_rdkafka_version().1,
    })
}
