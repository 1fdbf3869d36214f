//! What can be typed.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use physicnet_connectors::kafka::Cluster;
use physicnet_connectors::kafka::format::Format;

use crate::config::load;
use crate::evaluate::Against;

#[derive(Parser)]
#[command(name = "physicnet", version, about, propagate_version = true)]
#[command(
    after_help = "Try `physicnet demo` first. Files are YAML, or TOML by extension; relative \
    paths in them are relative to the current directory. RUST_LOG=debug says more."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
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
        after_help = "Examples:\n  physicnet train train.yaml\n  physicnet train --find-lr train.yaml   # \
        suggests a `learning_rate`, and trains nothing\n\nCtrl-C saves the state; started \
        again, training goes on from it to the same weights."
    )]
    Train {
        /// The training file
        file: PathBuf,
        /// Try learning rates over a hundred steps, suggest a tenth of the largest that lowers the loss, and
        /// leave learning_rate.csv and learning_rate.png in `out`; nothing else changes
        #[arg(long)]
        find_lr: bool,
    },
    /// Count a checkpoint's codes on its training data, for drift
    #[command(
        after_help = "Example:\n  physicnet calibrate train.yaml out/best.safetensors\n\n`train` \
        ends with it; this is for checkpoints that were made before it did. Nothing else changes \
        in the file: forecasts and the model's id stay, but with --faults."
    )]
    Calibrate {
        /// The training file, for its data
        file: PathBuf,
        /// The checkpoint to write into
        checkpoint: PathBuf,
        /// Let the model doubt what a sensor reports: what lies further from its codes than 99 of 100 cells
        /// of its training data, where few frames of the window have the like near by, is taken for
        /// missing. It is another model from then on, with an id of its own
        #[arg(long)]
        faults: bool,
    },
    /// Score a model beside persistence, advection and the linear trend
    #[command(after_help = "Examples:\n  physicnet evaluate job.yaml --from 2010-08-26T06:00\n  \
        physicnet evaluate --checkpoint radar.safetensors --zarr radar.zarr --json scores.json\n  \
        physicnet evaluate --zarr radar.zarr --horizon 12          # the advection expert alone\n  \
        physicnet evaluate job.yaml --report out/report.html        # with figures, to read\n  \
        physicnet evaluate job.yaml --against dis=out/dis.zarr      # beside another's forecasts\n  \
        physicnet evaluate job.yaml --forecasts 'out/{sensor}.zarr' # for other verification tools")]
    Evaluate(Evaluate),
    /// Write simulated sensors into a Zarr store
    #[command(
        after_help = "Examples:\n  physicnet simulate configs/flow/simulate.yaml data/flow.zarr\n  \
        physicnet simulate configs/fire/simulate.yaml data/fire.zarr\n\nKinds of `field`:\n  \
        navier_stokes    turbulence on a torus (configs/flow)\n  \
        rain             rain as a radar sees it (configs/rain)\n  \
        fitzhugh_nagumo  reaction-diffusion, PDEBench's (configs/fitzhugh_nagumo)\n  \
        shallow_water    a radial dam break, PDEBench's (configs/shallow_water)\n  \
        gray_scott       spots, worms, mazes and gliders (configs/gray_scott)\n  \
        fire             a fire front in wind and fuel (configs/fire)\n\n\
        docs/simulators.md has their equations, schemes and keys."
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
    /// Say what is in a Zarr store, a checkpoint or a job, or how two checkpoints differ
    #[command(
        after_help = "Examples:\n  physicnet inspect radar.zarr --show              # drawn in the terminal\n  \
        physicnet inspect radar.zarr --picture radar.png\n  \
        physicnet inspect radar.safetensors\n  \
        physicnet inspect old.safetensors new.safetensors # keys, and how far each weight moved\n  \
        physicnet inspect job.yaml                        # what it reads, forecasts by and writes"
    )]
    Inspect {
        /// A Zarr store of observations, a checkpoint, or a job file
        path: PathBuf,
        /// A checkpoint to hold beside the first
        beside: Option<PathBuf>,
        /// The variables to look at; by default all
        #[arg(long = "variable")]
        variables: Vec<String>,
        /// The step between valid times of a store whose own do not say it, e.g. 5min
        #[arg(long)]
        cadence: Option<String>,
        /// Draw some frames of a store as PNG
        #[arg(long)]
        picture: Option<PathBuf>,
        /// Draw some frames of a store in the terminal, in 24-bit colour
        #[arg(long)]
        show: bool,
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
    /// Change a running job's model, after a trial beside the one that serves
    #[command(after_help = "Examples:\n  physicnet swap job.yaml out/new/best.safetensors\n  \
        physicnet swap job.yaml new.safetensors --shadow-for 1000\n  \
        physicnet swap job.yaml --back                 # to the model before, at once\n\n\
        The job needs `model: {control: FOLDER}` in its file. The new model forecasts beside the \
        old one until so many frames have verified both; it takes over if its squared error is no \
        larger. Waits for the outcome: the exit code is 0 when the model serves and 1 otherwise.")]
    Swap(SwapFlags),
    /// Watch a running job in the terminal, by its dashboard
    #[command(after_help = "Examples:\n  physicnet top\n  \
        physicnet top --url http://10.0.0.7:8080 --token-file token\n  physicnet top | head\n\n\
        q quits. The job needs `dashboard: {}` in its file. Where the output is not a terminal, \
        it is shown once.")]
    Top {
        /// Where the dashboard is
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        url: String,
        /// The job's `dashboard.token_file`, or a copy of it
        #[arg(long)]
        token_file: Option<PathBuf>,
    },
    /// Print the JSON Schema of a kind of file, for editors
    #[command(
        after_help = "Example:\n  physicnet schema job > job.schema.json\n\nWith it an editor \
        completes keys and marks those that nobody reads; docs/schema/ holds them all."
    )]
    Schema {
        /// What the file is for
        kind: Kind,
    },
    /// Print the completions of a shell
    #[command(
        after_help = "Examples:\n  physicnet completions bash > ~/.local/share/bash-completion/completions/physicnet\n  \
        physicnet completions zsh > ~/.zfunc/_physicnet\n  \
        physicnet completions fish > ~/.config/fish/completions/physicnet.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(
        after_help = "Example:\n  physicnet man ~/.local/share/man/man1 && man physicnet-train"
    )]
    Man {
        /// The folder to write into, a page for each command
        folder: PathBuf,
    },
    /// Simulated sensors through the shipped model, with live skill: needs nothing
    #[command(
        after_help = "Examples:\n  physicnet demo --out out/demo\n  physicnet demo --dashboard   # to look at in a browser, until Ctrl-C"
    )]
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
        /// Serve a dashboard at this address, and run at a modest rate until Ctrl-C
        #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8080")]
        dashboard: Option<String>,
    },
}

/// The kinds of files.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// For `run` and `evaluate`
    Job,
    /// For `train` and `calibrate`
    Train,
    /// For `simulate` and `publish`
    Simulate,
    /// For `--cluster`
    Cluster,
}

#[derive(Args)]
pub(super) struct Run {
    /// The job file
    pub(super) job: PathBuf,
    #[command(flatten)]
    pub(super) cluster: ClusterFlags,
}

#[derive(Args)]
pub(super) struct SwapFlags {
    /// The file of the running job
    pub(super) job: PathBuf,
    /// The checkpoint to change to
    #[arg(required_unless_present = "back", conflicts_with = "back")]
    pub(super) checkpoint: Option<PathBuf>,
    /// Verified frames, over all sensors, after which the trial is decided; 0 takes over at once
    #[arg(long, default_value_t = 100)]
    pub(super) shadow_for: u64,
    /// Change back to the model that served before, without a trial
    #[arg(long)]
    pub(super) back: bool,
}

#[derive(Args)]
pub(super) struct ClusterFlags {
    /// Worker threads of each process, instead of the file's `workers`
    #[arg(long)]
    pub(super) workers: Option<usize>,
    /// host:port of every process in order, separated by commas, instead of the file's `hosts`
    #[arg(long, value_delimiter = ',')]
    pub(super) hosts: Vec<String>,
    /// Which of the hosts this process is, counted from 0
    #[arg(long)]
    pub(super) process: Option<usize>,
}

#[derive(Args)]
pub(super) struct Evaluate {
    /// A job file; its sources are replayed, its sinks are not written
    pub(super) job: Option<PathBuf>,
    /// Instead of a job file: a store of observations
    #[arg(long, conflicts_with = "job")]
    pub(super) zarr: Option<PathBuf>,
    /// The variables of the store; by default those of the checkpoint, or all
    #[arg(long = "variable", requires = "zarr")]
    pub(super) variables: Vec<String>,
    /// The step between valid times of a store whose own do not say it, e.g. 5min
    #[arg(long, requires = "zarr")]
    pub(super) cadence: Option<String>,
    /// The checkpoint; without one the advection expert is scored
    #[arg(long)]
    pub(super) checkpoint: Option<PathBuf>,
    /// How many leads; beyond the network's own horizon it goes on from its own forecasts
    #[arg(long)]
    pub(super) horizon: Option<usize>,
    /// The first reference time to score, e.g. 2010-08-26T06:00, UTC
    #[arg(long)]
    pub(super) from: Option<String>,
    /// The valid time to stop before, UTC
    #[arg(long)]
    pub(super) to: Option<String>,
    /// Score every how manieth reference time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) stride: u64,
    /// Thresholds for CSI, POD and FAR, separated by commas, in the units of the data
    #[arg(long, value_delimiter = ',')]
    pub(super) thresholds: Option<Vec<f64>>,
    /// Leave out structural similarity, the slowest score
    #[arg(long)]
    pub(super) no_ssim: bool,
    /// Write the scores as JSON; with --report also spectra, tests and cases
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Write a report with figures: one file of HTML that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    pub(super) report: Option<PathBuf>,
    /// Score the forecasts of a store in the layout of WeatherBench 2 as well, under a name; {sensor}
    /// in the path stands for the sensor's name. May be given several times
    #[arg(long, value_name = "NAME=STORE", value_parser = against)]
    pub(super) against: Vec<Against>,
    /// Draw an ensemble of so many members around the served forecast and score it as well: CRPS, spread,
    /// ranks, reliability
    #[arg(long, value_name = "MEMBERS")]
    pub(super) ensemble: Option<usize>,
    /// Write the forecasts into Zarr stores at this path; {sensor} stands for the sensor's name
    #[arg(long)]
    pub(super) forecasts: Option<String>,
    /// Worker threads
    #[arg(long)]
    pub(super) workers: Option<usize>,
}

/// A name and the path of a store.
fn against(text: &str) -> Result<Against> {
    match text.split_once('=') {
        Some((name, store)) if !name.is_empty() && !store.is_empty() => {
            Ok(Against { name: name.to_owned(), store: store.to_owned() })
        }
        _ => bail!("write NAME=STORE, e.g. dis=out/dis.zarr"),
    }
}

#[derive(Args)]
pub(super) struct Simulate {
    /// What to simulate: `field`, `sensors`, `seed`, `frames`, ...
    pub(super) config: PathBuf,
    /// The store to write; there must be nothing yet
    pub(super) out: PathBuf,
}

/// Where Kafka is, and how frames are written there.
#[derive(Args)]
pub(super) struct Kafka {
    /// host:port of the brokers, separated by commas; by default KAFKA_BOOTSTRAP of the environment
    #[arg(long, conflicts_with = "cluster")]
    pub(super) brokers: Option<String>,
    /// For secured clusters: a file with what a job says under `cluster`
    #[arg(long)]
    pub(super) cluster: Option<PathBuf>,
    /// How messages are written: da00, ad00 or json
    #[arg(long, default_value = "da00", value_parser = format)]
    pub(super) format: Format,
}

impl Kafka {
    pub(super) fn cluster(&self) -> Result<Cluster> {
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
pub(super) fn format(text: &str) -> serde_json::Result<Format> {
    serde_json::from_value(text.into())
}

#[derive(Args)]
pub(super) struct Publish {
    /// A Zarr store, or a file that says what to simulate
    pub(super) origin: PathBuf,
    #[command(flatten)]
    pub(super) kafka: Kafka,
    /// The topic
    #[arg(long)]
    pub(super) topic: String,
    /// Partitions of the topic if it has to be made; by default 1
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: Option<i32>,
    /// The variables of the store, in the order of the channels; by default all
    #[arg(long = "variable")]
    pub(super) variables: Vec<String>,
    /// What to call the sensor; where there are several, what their names begin with
    #[arg(long)]
    pub(super) sensor: Option<String>,
    /// The first valid time of the store to send, e.g. 2010-08-26T06:00, UTC
    #[arg(long)]
    pub(super) from: Option<String>,
    /// The valid time of the store to stop before, UTC
    #[arg(long)]
    pub(super) to: Option<String>,
    /// Frames a second and sensor; by default as fast as it goes
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// Begin anew at the end of the store, with times that go on; ends by Ctrl-C
    #[arg(long)]
    pub(super) repeat: bool,
}

#[derive(Args)]
pub(super) struct Tail {
    /// The topic
    pub(super) topic: String,
    #[command(flatten)]
    pub(super) kafka: Kafka,
    /// Where to begin: earliest, latest, or a time by the brokers' clocks, e.g. 2010-08-26T06:00, UTC
    #[arg(long, default_value = "earliest")]
    pub(super) from: String,
    /// End after so many messages
    #[arg(long)]
    pub(super) count: Option<u64>,
    /// End at the end of the topic
    #[arg(long)]
    pub(super) no_follow: bool,
    /// Show the messages of this sensor alone
    #[arg(long)]
    pub(super) sensor: Option<String>,
    /// Draw each message as PNG into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) picture: Option<PathBuf>,
    /// Draw each message in the terminal, in 24-bit colour
    #[arg(long)]
    pub(super) show: bool,
}
