//! A job or its peer as a process of its own.

use std::fmt::{Display, Formatter};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use physicnet_operators::model::{Checkpoint, ModelConfig};

use crate::Asked;
use crate::topic::Topic;

/// What both sides forecast with.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Frames of a window.
    pub(crate) history: usize,
    /// Leads of a forecast.
    pub(crate) horizon: usize,
    /// What the job says of it.
    config: String,
    /// The Python peers, by what they run it in.
    pub(crate) peers: &'static [&'static str],
}

/// The demo's network, trained; all its peers have the same weights.
pub(crate) const CHECKPOINT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/configs/demo/checkpoint.safetensors");

impl Model {
    /// The optical flow's, with nothing learned.
    pub(crate) fn advection() -> Self {
        let (history, horizon) = (2, 12);
        let config = format!(
            "{{untrained: {{history: {history}, horizon: {horizon}, quantization: none, \
             learned_flow: false, gate: false, residual: false}}}}"
        );
        Self { name: "advection", history, horizon, config, peers: &["OpenCV"] }
    }

    /// The demo's network.
    pub(crate) fn network() -> Result<Self> {
        let ModelConfig { history, horizon, .. } = Checkpoint::load(CHECKPOINT.as_ref())?.config;
        let config = format!("{{checkpoint: '{CHECKPOINT}'}}");
        Ok(Self { name: "network", history, horizon, config, peers: &["ONNX", "PyTorch"] })
    }
}

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    /// The Python peer, by what it forecasts with.
    Peer(&'static str),
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ours => "PhysicNet",
            Self::Peer(name) => name,
        })
    }
}

/// A script of the peers.
pub(crate) fn peer(script: &str) -> String {
    format!("{}/benches/peers/{script}", env!("CARGO_MANIFEST_DIR"))
}

/// A process that forecasts, and ends with this.
pub(crate) struct Process {
    child: Child,
    /// The job file, kept as long as the process.
    _file: tempfile::NamedTempFile,
}

impl Process {
    /// Starts one that reads `from` and writes `to`, under this `name`.
    pub(crate) fn start(
        asked: &Asked,
        who: Who,
        name: &str,
        from: &Topic,
        to: &Topic,
    ) -> Result<Self> {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        let Asked { brokers, side, workers, model, .. } = asked;
        let config = &model.config;
        let (from, to) = (&from.name, &to.name);
        write!(
            file,
            r#"
name: {name}
sources:
  - type: kafka
    cluster: {{brokers: "{brokers}"}}
    topics: [{from}]
    cadence: 300s
    grid: {{variables: [{{name: vorticity, units: "1"}}], y: {{count: {side}}}, x: {{count: {side}}}}}
model: {config}
sinks:
  - {{type: kafka, cluster: {{brokers: "{brokers}"}}, topic: {to}}}
workers: {workers}
in_flight: 8
"#
        )?;
        let mut command = match who {
            Who::Ours => {
                // Beside the folder of this example.
                let own = std::env::current_exe()?;
                let folder = own.parent().and_then(|examples| examples.parent());
                let mut command = Command::new(folder.context("no folder")?.join("physicnet"));
                command.arg("run").arg(file.path());
                command
            }
            Who::Peer(runtime) => {
                let python = asked.python.as_ref().context("PHYSICNET_PYTHON names no Python")?;
                let mut command = Command::new(python);
                command.args([&peer("forecast.py"), brokers, name, from, to]);
                match runtime {
                    "ONNX" => command.args(["--checkpoint", CHECKPOINT, "--onnx"]).arg(&asked.onnx),
                    "PyTorch" => command.args(["--checkpoint", CHECKPOINT]),
                    _ => command.args(["--leads", &model.horizon.to_string()]),
                };
                command
            }
        };
        let log = std::env::temp_dir().join(format!("physicnet-bench-{}.log", std::process::id()));
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, _file: file })
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = PathBuf::from(format!("/proc/{}/{file}", self.child.id()));
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn status(&self, key: &str) -> Result<f64> {
        let status = self.proc("status")?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
        Ok(line.split_whitespace().nth(1).context("no figure")?.parse::<f64>()? / 1024.0)
    }

    /// The largest resident size so far, in MiB.
    pub(crate) fn peak(&self) -> Result<f64> {
        self.status("VmHWM")
    }

    /// The resident size, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.status("VmRSS")
    }

    /// Processor seconds so far, of all its threads.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        let (_, rest) = stat.rsplit_once(')').context("no name")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let kill =
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        ensure!(kill.success(), "the process has ended");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
