//! What is done with what was typed, and what is said back.

mod kinds;
mod typed;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use physicnet_connectors::synthetic::SyntheticSource;
use physicnet_connectors::zarr::{ZarrSink, ZarrSource, parse_time, shown};
use physicnet_connectors::{SinkConfig, Source, SourceConfig};
use physicnet_operators::model::ModelConfig;
use physicnet_stream::{Resume, Stop};
use tracing_subscriber::EnvFilter;

use crate::config::{Job, ModelSection, load, parse};
use crate::evaluate::{Evaluation, Period, Wanted, evaluate, table};
use crate::report::{self, document};
use crate::training::{Seconds, Swept, Told, TrainConfig, calibrate, find_rate, train};
use crate::{demo, engine, inspect, publish, scores, simulate, swap, tail, telemetry, top};
use kinds::{no_other_file, validate};
use typed::{Cli, ClusterFlags, Command, Evaluate, Publish, Run, Simulate, SwapFlags, Tail};

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
            let told = format!("error: {error:#}");
            let _ = writeln!(std::io::stderr(), "{told}{}", way_out(&told));
            ExitCode::FAILURE
        }
    }
}

/// What to do about what the system says, which names what it is about and no more.
fn way_out(told: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let relative = format!("relative paths are relative to {}", here.display());
    let folder = !told.contains("://");
    let hints = [
        ("(os error 2)", relative.clone()),
        ("is not there; look", if folder { relative } else { "or at its bucket".to_owned() }),
        ("(os error 13)", "whoever runs it needs the right to; or name another place".to_owned()),
        ("(os error 17)", "a file is in the way: name another place".to_owned()),
        ("(os error 20)", "a file is in the way: name another place".to_owned()),
        ("(os error 28)", "make room, and start it again: what is whole is kept".to_owned()),
    ];
    let hint = hints.into_iter().find(|(said, _)| told.contains(said));
    hint.map_or(String::new(), |(_, hint)| format!("\n       {hint}"))
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run(flags) => run(flags),
        Command::Train { file, find_lr: false } => train_file(&load(&file)?),
        Command::Train { file, find_lr: true } => find_learning_rate(&load(&file)?),
        Command::Calibrate { file, checkpoint, faults } => {
            let usage = calibrate(&load(&file)?, &checkpoint, faults)?;
            say(&format!("{}: {}", checkpoint.display(), inspect::usage(&usage)))
        }
        Command::Evaluate(flags) => evaluation(flags),
        Command::Simulate(Simulate { config, out }) => {
            let config: SyntheticSource = load(&config)?;
            simulate::simulate(&config, &out, &interruptible()?)?;
            say(&format!("{}: written", out.display()))
        }
        Command::Publish(flags) => publication(flags),
        Command::Tail(flags) => tailing(flags),
        Command::Inspect { path, beside: Some(beside), .. } => {
            say(&inspect::differences(&path, &beside)?)
        }
        Command::Inspect { path, beside: None, variables, cadence, picture, show } => {
            let show = show.then(terminal);
            no_other_file(&path)?;
            say(&inspect::inspect(&path, &variables, cadence, picture.as_deref(), show)?)
        }
        Command::Validate { files } => files.iter().try_for_each(|file| {
            validate(file)?;
            say(&format!("{}: fits", file.display()))
        }),
        Command::Swap(flags) => swapping(flags),
        Command::Top { url, token_file } => {
            let client = top::Client::new(&url, token_file.as_deref())?;
            top::top(&client, &mut std::io::stdout().lock())
        }
        Command::Schema { kind } => say(&serde_json::to_string_pretty(&kind.schema())?),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "physicnet", &mut text);
            say(&String::from_utf8_lossy(&text))
        }
        Command::Man { folder } => {
            let written = std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), &folder));
            written.with_context(|| format!("writing into {}", folder.display()))?;
            say(&format!("{}: written", folder.display()))
        }
        Command::Demo { out, forecasts, workers, dashboard } => {
            demo::demo(&out, forecasts, workers, dashboard, &interruptible()?)
        }
    }
}

fn run(Run { job: path, cluster }: Run) -> Result<()> {
    // Before anything is opened: who stops a job while it starts wants it ended well, too.
    let stop = interruptible()?;
    let mut job: Job = load(&path)?;
    let ClusterFlags { workers, hosts, process } = cluster;
    job.workers = workers.unwrap_or(job.workers);
    job.process = process.unwrap_or(job.process);
    if !hosts.is_empty() {
        job.hosts = hosts;
    }
    job.check()?;
    // Before it is read, and until the end.
    let scores = job.scoring.as_ref().and_then(|scoring| scoring.store.as_ref());
    let _alone = scores.filter(|_| job.process == 0).map(|path| scores::lock(path)).transpose()?;
    let mut parts = job.open()?;
    let _served = job.serve(&mut parts)?;
    let (counts, health) = (parts.counts.clone(), parts.health.clone());
    tracing::info!(
        sensors = parts.catalogue.known().len(),
        model = %parts.checkpoint.id,
        workers = job.workers,
        processes = job.hosts.len().max(1),
        "{} runs",
        job.name
    );
    let (begun, history) = (Instant::now(), parts.checkpoint.config.history);
    let fresh = parts.resume == Resume::default() && parts.ledger.is_none();
    engine::run(parts, &job.cluster(), &stop)?;
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(
        frames = counts.frames(),
        filled = counts.filled(),
        forecasts = counts.forecasts(),
        rejects = ?counts.rejects(),
        drifted = ?health.drifted(),
        served = ?health.servings(),
        peak_mib = telemetry::memory("VmHWM:").map(|bytes| (bytes / f64::from(1 << 20)).round()),
        "{} ended after {seconds:.1} s, everything durable",
        job.name
    );
    if fresh && counts.frames() > 0 && counts.forecasts() == 0 && !stop.stopped() {
        tracing::warn!(
            "no forecast was made: the model wants {history} frames of a sensor, each a cadence \
             after the last; look at the rejects, and at the gaps with `physicnet inspect STORE`"
        );
    }
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
        if let Some(validation) = told.validation.as_ref().filter(|scores| !scores.is_empty()) {
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
    let (file, seconds) = (summary.checkpoint.display(), summary.seconds);
    let Seconds { all, waited, read } = seconds;
    say(&format!(
        "{how} after {} steps{best}: {file}\n{all:.1} s, of which windows were waited for {waited:.1} s; \
         reading them took {read:.1} s of the threads beside",
        summary.steps
    ))
}

fn find_learning_rate(config: &TrainConfig) -> Result<()> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len}")?);
    let mut log = |step: u64, of: u64| {
        bar.set_length(of);
        bar.set_position(step);
    };
    let Swept { suggested, diverged, csv, picture } =
        find_rate(config, &interruptible()?, &mut log)?;
    bar.finish_and_clear();
    let diverged = diverged.map_or("it diverged at none of those tried".to_owned(), |rate| {
        format!("it diverged at {rate:.1e}")
    });
    let files = format!("{} and {}", csv.display(), picture.display());
    match suggested {
        Some(rate) => say(&format!(
            "learning_rate: {rate:.1e}\na tenth of the largest that lowers the loss; {diverged}: {files}"
        )),
        None => say(&format!(
            "no learning rate lowered the loss, {diverged}: {files}. Is there anything to learn? A \
             `batch` that is larger tells it more surely"
        )),
    }
}

fn evaluation(flags: Evaluate) -> Result<()> {
    let mut job: Job = match (&flags.job, &flags.zarr) {
        (Some(path), _) => load(path)?,
        (None, Some(store)) => {
            let source = ZarrSource {
                variables: flags.variables.clone(),
                cadence: flags.cadence.clone(),
                cache_mib: 256,
                ..ZarrSource::new(store)
            };
            let source = serde_json::to_string(&SourceConfig::Zarr(source))?;
            parse(&format!("sources: [{}]", source.replace('$', "$$")), false)?
        }
        (None, None) => bail!(
            "what is to be scored? Name a job file, `physicnet evaluate job.yaml`, or a store, \
             `physicnet evaluate --zarr radar.zarr --checkpoint radar.safetensors`"
        ),
    };
    if let Some(path) = &flags.checkpoint {
        job.model = ModelSection { checkpoint: Some(path.clone()), ..ModelSection::default() };
    } else if flags.job.is_none() {
        let mut model = ModelConfig::classical(Vec::new());
        // Of these leads advection is one forecast.
        model.horizon = flags.horizon.unwrap_or(model.horizon);
        job.model = ModelSection { untrained: Some(model), ..ModelSection::default() };
    }
    job.model.leads = flags.horizon.or(job.model.leads);
    job.workers = flags.workers.unwrap_or(job.workers);
    let mut scoring = job.scoring.take().unwrap_or_default();
    scoring.ssim = !flags.no_ssim;
    scoring.thresholds = flags.thresholds.or(scoring.thresholds);
    job.scoring = Some(scoring);
    if let Some(members) = flags.ensemble {
        job.ensemble.get_or_insert_default().members = members;
    }
    job.rejects = None;
    job.sinks =
        flags.forecasts.map(|path| SinkConfig::Zarr(ZarrSink::new(path))).into_iter().collect();
    let time = |text: &Option<String>| text.as_deref().map(parse_time).transpose();
    let period = Period { from: time(&flags.from)?, to: time(&flags.to)?, stride: flags.stride };
    for (flag, path) in [("--report", &flags.report), ("--json", &flags.json)] {
        path.as_deref().map(report::check).transpose().context(flag)?;
    }
    let wanted = Wanted { against: flags.against, study: flags.report.is_some() };
    let stop = interruptible()?;
    let Evaluation { report, study } = evaluate(&job, &period, &wanted, &stop)?;
    if stop.stopped() {
        tracing::warn!("stopped before the end: the scores are of what was forecast by then");
    }
    if report.sensors.is_empty() {
        let irregular = job.sources()?.into_iter().find_map(|source| match source {
            Source::Zarr(store) => Some((shown(&store.config().path), store.irregular()?)),
            _ => None,
        });
        if let Some((store, why)) = irregular {
            bail!("nothing was verified: {store}: {why}; `physicnet inspect` lists them");
        }
        bail!(
            "nothing was verified: the period holds no observation after a full window; \
             `physicnet inspect` lists the times of a store, its gaps and what is missing"
        );
    }
    // First: whatever becomes of the files, this is not lost.
    say(&table(&report))?;
    if let Some(path) = &flags.json {
        let all = match &study {
            Some((about, findings)) => document(&report, about, findings),
            None => report.json(),
        };
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    if let (Some(path), Some((about, findings))) = (&flags.report, &study) {
        report::write(path, &report, about, findings)?;
    }
    Ok(())
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
    let show = show.then(terminal);
    let (format, follow) = (kafka.format, !no_follow);
    let config = tail::Tail { cluster, topic, format, from, follow, count, sensor, picture, show };
    match tail::tail(&config, &mut std::io::stdout().lock(), &interruptible()?) {
        // A reader that has gone has seen enough.
        Err(error) if gone(&error) => Ok(()),
        Ok(0) => say(&format!("topic {}: nothing to show", config.topic)),
        told => told.map(drop),
    }
}

/// The characters that a picture may take: below it there is room for a line and the next prompt.
fn terminal() -> [usize; 2] {
    let size = terminal_size::terminal_size();
    let [columns, rows]: [usize; 2] =
        size.map_or([80, 24], |(columns, rows)| [columns.0.into(), rows.0.into()]);
    [columns, rows.max(6) - 4]
}

fn swapping(SwapFlags { job, checkpoint, shadow_for, back }: SwapFlags) -> Result<()> {
    let job: Job = load(&job)?;
    let control = job.model.control.as_deref();
    let control = control.context("model.control: the job names no folder for requests")?;
    let folder = swap::Folder::new(control, &job.name);
    let (checkpoint, shadow_for) = if back {
        let state = folder.state()?;
        let before = state.before.last().context("no model has served before this one")?;
        (folder.model(before), 0)
    } else {
        (checkpoint.unwrap_or_default(), shadow_for)
    };
    // The job may run elsewhere in the tree.
    let checkpoint = checkpoint.canonicalize().with_context(|| checkpoint.display().to_string())?;
    let mut told = String::new();
    let mut tell = |text: String| {
        if text != told {
            _ = writeln!(std::io::stderr(), "{text}");
            told = text;
        }
    };
    let answer = swap::ask(&folder, &swap::Request { checkpoint, shadow_for }, &mut tell)?;
    if answer.outcome == swap::Outcome::Taken { say(&answer.why) } else { bail!(answer.why) }
}

fn gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
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
    use super::*;

    #[test]
    fn simulate_lists_every_kind_and_its_example() {
        let command = Cli::command();
        let simulate = command.find_subcommand("simulate").unwrap();
        let help = simulate.get_after_help().unwrap().to_string();
        for field in physicnet_connectors::synthetic::Field::all() {
            let line = help.lines().find(|line| line.trim().starts_with(field.kind())).unwrap();
            let folder = line.split(['(', ')']).nth(1).unwrap();
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let example: SyntheticSource = load(&root.join(folder).join("simulate.yaml")).unwrap();
            assert_eq!(example.field.kind(), field.kind());
            example.validate().unwrap();
        }
    }

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
