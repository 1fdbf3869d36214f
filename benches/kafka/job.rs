//! A job or its peer as a process of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Asked;
use crate::topic::Topic;

/// Frames of a window: what motion needs.
pub(crate) const HISTORY: usize = 2;
/// Leads of a forecast.
pub(crate) const HORIZON: usize = 12;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Peer,
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
        let Asked { brokers, side, workers, .. } = asked;
        let (from, to) = (&from.name, &to.name);
        write!(
            file,
            r#"
name: {name}
sources:
  - type: kafka
    cluster: {{brokers: "{brokers}"}}
    topics: [{from}]
    cadence: 60s
    grid: {{variables: [{{name: u, units: m s-1}}], y: {{count: {side}}}, x: {{count: {side}}}}}
model:
  untrained:
    history: {HISTORY}
    horizon: {HORIZON}
    quantization: none
    learned_flow: false
    gate: false
    residual: false
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
            Who::Peer => {
                let python = asked.python.as_ref().context("PHYSICNET_PYTHON names no Python")?;
                let peer = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/forecast.py");
                let mut command = Command::new(python);
                command.args([peer, brokers, name, from, to, &HORIZON.to_string()]);
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
