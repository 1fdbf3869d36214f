//! What can be typed, and what is said back.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use physicnet_connectors::synthetic::SyntheticSource;
use physicnet_connectors::zarr::{ZarrSink, ZarrSource, parse_time};
use physicnet_connectors::{SinkConfig, SourceConfig};
use physicnet_operators::model::ModelConfig;
use physicnet_stream::Stop;
use tracing_subscriber::EnvFilter;

use crate::config::{Job, ModelSection, load, parse};
use crate::evaluate::{Period, evaluate, table};
use crate::training::{Told, TrainConfig, train};
use crate::{demo, engine, inspect, simulate};

#[derive(Parser)]
#[command(name = "physicnet", version, about, propagate_version = true)]
#[command(
    after_help = "Try `physicnet demo` first. Files are YAML, or TOML by extension; relative \
    paths in them are relative to the current directory. RUST_LOG=debug says more."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Forecast a stream: source, stages, sinks, as the job file says
    #[command(
        after_help = "Examples:\n  physicnet run job.yaml\n  physicnet run job.yaml --workers 4\n  \
        physicnet run job.yaml --hosts a:2101,b:2101 --process 0   # and --process 1 on b\n\n\
        Ctrl-C ends the sources and finishes what is in flight; a second one ends at once. Started \
        again, the job goes on where its sinks are durable."
    )]
    Run(Run),
    /// Train a network on archives
    #[command(
        after_help = "Example:\n  physicnet train train.yaml\n\nCtrl-C saves the state; started \
        again, training goes on from it to the same weights."
    )]
    Train {
        /// The training file
        file: PathBuf,
    },
    /// Score a model beside persistence, advection and the linear trend
    #[command(after_help = "Examples:\n  physicnet evaluate job.yaml --from 2010-08-26T06:00\n  \
        physicnet evaluate --checkpoint radar.safetensors --zarr radar.zarr --json scores.json\n  \
        physicnet evaluate --zarr radar.zarr --horizon 12          # the advection expert alone\n  \
        physicnet evaluate job.yaml --forecasts 'out/{sensor}.zarr' # for other verification tools")]
    Evaluate(Evaluate),
    /// Write simulated sensors into a Zarr store
    #[command(
        after_help = "Example:\n  physicnet simulate configs/demo/simulate.yaml data/flow.zarr"
    )]
    Simulate(Simulate),
    /// Say what is in a Zarr store or a checkpoint
    #[command(after_help = "Examples:\n  physicnet inspect radar.zarr --picture radar.png\n  \
        physicnet inspect radar.safetensors")]
    Inspect {
        /// A Zarr store of observations, or a checkpoint
        path: PathBuf,
        /// The variables to look at; by default all
        #[arg(long = "variable")]
        variables: Vec<String>,
        /// Draw some frames of a store as PNG
        #[arg(long)]
        picture: Option<PathBuf>,
    },
    /// Check a job or training file, and that what it names can be opened
    #[command(
        after_help = "Example:\n  physicnet validate job.yaml && physicnet run job.yaml\n\nThe exit \
        code is 0 when everything fits and 1 otherwise. Nothing is written."
    )]
    Validate {
        /// Job or training files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Simulated sensors through the shipped model, with live skill: needs nothing
    #[command(after_help = "Example:\n  physicnet demo --out out/demo")]
    Demo {
        /// Where forecasts and the picture go
        #[arg(long, default_value = "out/demo")]
        out: PathBuf,
        /// Forecasts of each sensor
        #[arg(long, default_value_t = 60)]
        forecasts: u64,
        /// Worker threads
        #[arg(long, default_value_t = 2)]
        workers: usize,
    },
}

#[derive(Args)]
struct Run {
    /// The job file
    job: PathBuf,
    #[command(flatten)]
    cluster: ClusterFlags,
}

#[derive(Args)]
struct ClusterFlags {
    /// Worker threads of each process, instead of the file's `workers`
    #[arg(long)]
    workers: Option<usize>,
    /// host:port of every process in order, separated by commas, instead of the file's `hosts`
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<String>,
    /// Which of the hosts this process is, counted from 0
    #[arg(long)]
    process: Option<usize>,
}

#[derive(Args)]
struct Evaluate {
    /// A job file; its sources are replayed, its sinks are not written
    #[arg(required_unless_present = "zarr")]
    job: Option<PathBuf>,
    /// Instead of a job file: a store of observations
    #[arg(long, conflicts_with = "job")]
    zarr: Option<PathBuf>,
    /// The variables of the store; by default those of the checkpoint, or all
    #[arg(long = "variable", requires = "zarr")]
    variables: Vec<String>,
    /// The checkpoint; without one the advection expert is scored
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Leads of the experts where there is no checkpoint
    #[arg(long, conflicts_with = "checkpoint")]
    horizon: Option<usize>,
    /// The first reference time to score, e.g. 2010-08-26T06:00, UTC
    #[arg(long)]
    from: Option<String>,
    /// The valid time to stop before, UTC
    #[arg(long)]
    to: Option<String>,
    /// Score every how manieth reference time
    #[arg(long, default_value_t = 1)]
    stride: u64,
    /// Thresholds for CSI, POD and FAR, separated by commas, in the units of the data
    #[arg(long, value_delimiter = ',')]
    thresholds: Option<Vec<f64>>,
    /// Leave out structural similarity, the slowest score
    #[arg(long)]
    no_ssim: bool,
    /// Write the report as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the forecasts into Zarr stores at this path; {sensor} stands for the sensor's name
    #[arg(long)]
    forecasts: Option<String>,
    /// Worker threads
    #[arg(long)]
    workers: Option<usize>,
}

#[derive(Args)]
struct Simulate {
    /// What to simulate: `field`, `sensors`, `seed`, `frames`, ...
    config: PathBuf,
    /// The store to write; there must be nothing yet
    out: PathBuf,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second initialisation, in a test, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run(flags) => run(flags),
        Command::Train { file } => train_file(&load(&file)?),
        Command::Evaluate(flags) => evaluation(flags),
        Command::Simulate(Simulate { config, out }) => {
            let config: SyntheticSource = load(&config)?;
            simulate::simulate(&config, &out, &interruptible()?)?;
            say(&format!("{}: written", out.display()))
        }
        Command::Inspect { path, variables, picture } => {
            say(&inspect::inspect(&path, &variables, picture.as_deref())?)
        }
        Command::Validate { files } => files.iter().try_for_each(|file| {
            validate(file).with_context(|| file.display().to_string())?;
            say(&format!("{}: fits", file.display()))
        }),
        Command::Demo { out, forecasts, workers } => {
            demo::demo(&out, forecasts, workers, &interruptible()?)
        }
    }
}

fn run(Run { job: path, cluster }: Run) -> Result<()> {
    let mut job: Job = load(&path)?;
    let ClusterFlags { workers, hosts, process } = cluster;
    job.workers = workers.unwrap_or(job.workers);
    job.process = process.unwrap_or(job.process);
    if !hosts.is_empty() {
        job.hosts = hosts;
    }
    let parts = job.open()?;
    let counts = parts.counts.clone();
    tracing::info!(
        sensors = parts.catalogue.known().len(),
        model = %parts.checkpoint.id,
        workers = job.workers,
        processes = job.hosts.len().max(1),
        "{} runs",
        job.name
    );
    let begun = Instant::now();
    engine::run(parts, &job.cluster(), &interruptible()?)?;
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(
        frames = counts.frames(),
        filled = counts.filled(),
        forecasts = counts.forecasts(),
        rejects = ?counts.rejects(),
        "{} ended after {seconds:.1} s, everything durable",
        job.name
    );
    Ok(())
}

fn train_file(config: &TrainConfig) -> Result<()> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "{elapsed_precise} [{bar:30}] {pos}/{len} {msg}";
    bar.set_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
    let mut log = |told: &Told| {
        bar.set_length(told.of);
        bar.set_position(told.step);
        let parts: Vec<String> =
            told.loss.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let (fps, left) = (told.frames_per_second, told.left.max(0.0) as u64);
        let text =
            format!("{}  {fps:.0} frames/s  {}:{:02} left", parts.join(" "), left / 60, left % 60);
        bar.set_message(text);
        if let Some(validation) = &told.validation {
            let scores: Vec<String> =
                validation.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            let line = format!("step {}: {}", told.step, scores.join(" "));
            if bar.is_hidden() {
                tracing::info!("{line}");
            } else {
                bar.println(line);
            }
        }
    };
    let summary = train(config, &interruptible()?, &mut log)?;
    bar.finish_and_clear();
    let how = if summary.stopped { "stopped and saved; run it again to go on" } else { "done" };
    let best = summary.best.map_or(String::new(), |(score, step)| {
        format!(", best validation {score:.5} at step {step}")
    });
    let file = summary.checkpoint.display();
    say(&format!("{how} after {} steps{best}: {file}", summary.steps))
}

fn evaluation(flags: Evaluate) -> Result<()> {
    let mut job: Job = match (&flags.job, &flags.zarr) {
        (Some(path), _) => load(path)?,
        (None, Some(store)) => {
            let source = ZarrSource {
                variables: flags.variables.clone(),
                cache_mib: 256,
                ..ZarrSource::new(store)
            };
            let source = serde_json::to_string(&SourceConfig::Zarr(source))?;
            parse(&format!("sources: [{}]", source.replace('$', "$$")), false)?
        }
        (None, None) => bail!("name a job file, or a store with --zarr"),
    };
    if let Some(path) = &flags.checkpoint {
        job.model = ModelSection { checkpoint: Some(path.clone()), ..ModelSection::default() };
    } else if flags.job.is_none() {
        let mut model = ModelConfig {
            learned_flow: false,
            gate: false,
            residual: false,
            quantization: physicnet_operators::model::Quantization::None,
            ..ModelConfig::default()
        };
        model.horizon = flags.horizon.unwrap_or(model.horizon);
        job.model = ModelSection { untrained: Some(model), ..ModelSection::default() };
    }
    job.workers = flags.workers.unwrap_or(job.workers);
    let mut scoring = job.scoring.take().unwrap_or_default();
    scoring.ssim = !flags.no_ssim;
    scoring.thresholds = flags.thresholds.or(scoring.thresholds);
    job.scoring = Some(scoring);
    job.rejects = None;
    job.sinks =
        flags.forecasts.map(|path| SinkConfig::Zarr(ZarrSink::new(path))).into_iter().collect();
    let time = |text: &Option<String>| text.as_deref().map(parse_time).transpose();
    let period = Period { from: time(&flags.from)?, to: time(&flags.to)?, stride: flags.stride };
    let report = evaluate(&job, &period, &interruptible()?)?;
    if report.sensors.is_empty() {
        bail!("nothing was verified: the period holds no observation after a full window");
    }
    if let Some(path) = &flags.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    say(&table(&report))
}

/// Whether the file and all that it names fit together.
fn validate(path: &std::path::Path) -> Result<()> {
    let raw: serde_json::Value = load(path)?;
    if raw.get("sources").is_some() {
        load::<Job>(path)?.open().map(drop)
    } else if raw.get("field").is_some() {
        Ok(load::<SyntheticSource>(path)?.validate()?)
    } else {
        let config: TrainConfig = load(path)?;
        config.validate()?;
        for source in &config.data {
            physicnet_connectors::zarr::Archive::open(source)?;
        }
        Ok(())
    }
}

/// A flag that Ctrl-C raises; the second Ctrl-C ends the process.
fn interruptible() -> Result<Stop> {
    let stop = Stop::default();
    let (raised, again) = (stop.clone(), Arc::new(AtomicBool::new(false)));
    ctrlc::set_handler(move || {
        if again.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        let _ =
            writeln!(std::io::stderr(), "finishing what is in flight; Ctrl-C again ends at once");
        raised.stop();
    })
    .context("listening for Ctrl-C")?;
    Ok(stop)
}

/// Writes to the standard output; a reader that has gone is no error.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_explains_itself() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }
}
