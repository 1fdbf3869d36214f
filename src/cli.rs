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
use physicnet_connectors::kafka::Cluster;
use physicnet_connectors::kafka::format::Format;
use physicnet_connectors::synthetic::SyntheticSource;
use physicnet_connectors::zarr::{ZarrSink, ZarrSource, parse_time};
use physicnet_connectors::{SinkConfig, SourceConfig};
use physicnet_operators::model::ModelConfig;
use physicnet_stream::Stop;
use tracing_subscriber::EnvFilter;

use crate::config::{Job, ModelSection, load, parse};
use crate::evaluate::{Period, evaluate, table};
use crate::training::{Told, TrainConfig, train};
use crate::{demo, engine, inspect, publish, simulate, tail};

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
        after_help = "Example:\n  physicnet simulate configs/flow/simulate.yaml data/flow.zarr"
    )]
    Simulate(Simulate),
    /// Send a Zarr store or simulated sensors to a Kafka topic
    #[command(
        after_help = "Examples:\n  physicnet publish radar.zarr --brokers localhost:9092 --topic frames\n  \
        physicnet publish configs/kafka/simulate.yaml --topic frames --rate 2\n  \
        physicnet publish radar.zarr --cluster cluster.yaml --topic frames --variable precip_rate\n\n\
        Each frame is a message under the key of its sensor. The topic is made if it is not there. \
        Ctrl-C sends what is queued and says how much that was."
    )]
    Publish(Publish),
    /// Show what is in a Kafka topic: frames, forecasts, dead letters
    #[command(after_help = "Examples:\n  physicnet tail forecasts --brokers localhost:9092\n  \
        physicnet tail frames --no-follow --count 3 --show         # drawn in the terminal\n  \
        physicnet tail forecasts --from latest --sensor flow/0 --picture out/pictures\n  \
        physicnet tail physicnet.JOB.dead-letters --no-follow      # what was not used, and why\n\n\
        A line says whose message it is, its time, shape, values, size, PARTITION@OFFSET and age. \
        Only what is committed is shown, and nothing is left at the brokers.")]
    Tail(Tail),
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

/// Where Kafka is, and how frames are written there.
#[derive(Args)]
struct Kafka {
    /// host:port of the brokers, separated by commas; by default KAFKA_BOOTSTRAP of the environment
    #[arg(long, conflicts_with = "cluster")]
    brokers: Option<String>,
    /// For secured clusters: a file with what a job says under `cluster`
    #[arg(long)]
    cluster: Option<PathBuf>,
    /// How messages are written: da00, ad00 or json
    #[arg(long, default_value = "da00", value_parser = format)]
    format: Format,
}

impl Kafka {
    fn cluster(&self) -> Result<Cluster> {
        match (&self.cluster, &self.brokers) {
            (Some(file), _) => load(file),
            (None, Some(brokers)) => Ok(Cluster::new(brokers)),
            (None, None) => match std::env::var("KAFKA_BOOTSTRAP") {
                Ok(brokers) if !brokers.is_empty() => Ok(Cluster::new(brokers)),
                _ => bail!(
                    "where is Kafka? Give --brokers host:port or --cluster FILE, or set \
                     KAFKA_BOOTSTRAP; scripts/kafka start starts a broker to try with"
                ),
            },
        }
    }
}

/// A format as configs write it.
fn format(text: &str) -> serde_json::Result<Format> {
    serde_json::from_value(text.into())
}

#[derive(Args)]
struct Publish {
    /// A Zarr store, or a file that says what to simulate
    origin: PathBuf,
    #[command(flatten)]
    kafka: Kafka,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Partitions of the topic if it has to be made; by default 1
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// The variables of the store, in the order of the channels; by default all
    #[arg(long = "variable")]
    variables: Vec<String>,
    /// What to call the sensor; where there are several, what their names begin with
    #[arg(long)]
    sensor: Option<String>,
    /// The first valid time of the store to send, e.g. 2010-08-26T06:00, UTC
    #[arg(long)]
    from: Option<String>,
    /// The valid time of the store to stop before, UTC
    #[arg(long)]
    to: Option<String>,
    /// Frames a second and sensor; by default as fast as it goes
    #[arg(long)]
    rate: Option<f64>,
    /// Begin anew at the end of the store, with times that go on; ends by Ctrl-C
    #[arg(long)]
    repeat: bool,
}

#[derive(Args)]
struct Tail {
    /// The topic
    topic: String,
    #[command(flatten)]
    kafka: Kafka,
    /// Where to begin: earliest, latest, or a time by the brokers' clocks, e.g. 2010-08-26T06:00, UTC
    #[arg(long, default_value = "earliest")]
    from: String,
    /// End after so many messages
    #[arg(long)]
    count: Option<u64>,
    /// End at the end of the topic
    #[arg(long)]
    no_follow: bool,
    /// Show the messages of this sensor alone
    #[arg(long)]
    sensor: Option<String>,
    /// Draw each message as PNG into this folder
    #[arg(long, value_name = "DIR")]
    picture: Option<PathBuf>,
    /// Draw each message in the terminal, in 24-bit colour
    #[arg(long)]
    show: bool,
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
        Command::Publish(flags) => publication(flags),
        Command::Tail(flags) => tailing(flags),
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

fn publication(flags: Publish) -> Result<()> {
    let cluster = flags.kafka.cluster()?;
    let Publish { origin, kafka, topic, partitions, variables, sensor, from, to, rate, repeat } =
        flags;
    let config = publish::Publish {
        origin,
        cluster,
        topic,
        format: kafka.format,
        partitions,
        variables,
        sensor,
        from,
        to,
        rate,
        repeat,
    };
    let outcome = publish::publish(&config, &interruptible()?)?;
    say(&outcome.text(&config.origin, &config.topic))
}

fn tailing(flags: Tail) -> Result<()> {
    let cluster = flags.kafka.cluster()?;
    let Tail { topic, kafka, from, count, no_follow, sensor, picture, show } = flags;
    // Below a picture there is room for its line and the next prompt.
    let size = || {
        let size = terminal_size::terminal_size();
        size.map_or([80, 24], |(columns, rows)| [columns.0.into(), rows.0.into()])
    };
    let show = show.then(size).map(|[columns, rows]: [usize; 2]| [columns, rows.max(6) - 4]);
    let (format, follow) = (kafka.format, !no_follow);
    let config = tail::Tail { cluster, topic, format, from, follow, count, sensor, picture, show };
    match tail::tail(&config, &mut std::io::stdout().lock(), &interruptible()?) {
        // A reader that has gone has seen enough.
        Err(error) if gone(&error) => Ok(()),
        Ok(0) => say(&format!("topic {}: nothing to show", config.topic)),
        told => told.map(drop),
    }
}

fn gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
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
