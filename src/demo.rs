//! Simulated sensors through the shipped model, with live skill and a picture at the end.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use physicnet_connectors::synthetic::{Field, Recording, SyntheticSource};
use physicnet_connectors::zarr::ZarrSink;
use physicnet_connectors::{Sink, SinkConfig, SourceConfig};
use physicnet_operators::model::Checkpoint;
use physicnet_operators::scoring::{Metrics, Span};
use physicnet_stream::{Forecast, Stop};

use crate::config::{Job, parse};
use crate::dashboard::{DashboardConfig, Served};
use crate::engine;
use crate::evaluate::Report;
use crate::render::{Panel, Row, Shade, draw};

/// The job, as a file that `physicnet run` takes as well.
const JOB: &str = include_str!("../configs/demo/job.yaml");
/// The network, trained by this program on its own simulations.
const CHECKPOINT: &[u8] = include_bytes!("../configs/demo/checkpoint.safetensors");
/// How often the table is drawn again.
const REDRAW: Duration = Duration::from_millis(500);
/// Who takes part.
const MODELS: [&str; 3] = ["physicnet", "advection", "persistence"];
/// The drag at which a flow that never ends stays as fast as those of the training data.
const STEADY: f64 = 0.03;
/// Frames a second of each sensor, for people to look at.
const MODEST: f64 = 2.0;
/// Leads in the picture.
const SHOWN: usize = 5;

/// Streams the demo's sensors until each has had `forecasts` forecasts verified at every lead; with
/// a `dashboard` at some address, at a modest rate until `stop` is asked.
///
/// # Errors
/// When `out` cannot be written.
pub fn demo(
    out: &Path,
    forecasts: u64,
    workers: usize,
    dashboard: Option<String>,
    stop: &Stop,
) -> Result<()> {
    let mut job: Job = parse(JOB, false).context("the demo's job")?;
    let checkpoint = Checkpoint::from_bytes(CHECKPOINT, "the demo's checkpoint")?;
    let (history, horizon) = (checkpoint.config.history, checkpoint.config.horizon);
    let Some(SourceConfig::Synthetic(source)) = job.sources.first_mut() else {
        return Err(anyhow!("the demo's job: its first source must be simulated"));
    };
    let forecasts = forecasts.max(1);
    source.frames = Some(history as u64 - 1 + forecasts + horizon as u64);
    let watched = dashboard.is_some();
    if let Some(listen) = dashboard {
        (source.frames, source.rate) = (None, Some(MODEST));
        if let Field::NavierStokes(flow) = &mut source.field {
            flow.drag = STEADY;
        }
        job.dashboard = Some(DashboardConfig { listen, ..DashboardConfig::default() });
    }
    let source = source.clone();
    job.workers = workers;
    job.scoring.get_or_insert_default();
    let stores = out.join("forecasts/{sensor}.zarr");
    // A demo begins anew: what an earlier one left would be taken for progress.
    match std::fs::remove_dir_all(out.join("forecasts")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("clearing {}", out.display()));
        }
        _ => {}
    }
    job.sinks = vec![SinkConfig::Zarr(ZarrSink::new(stores.to_string_lossy()))];

    let mut parts = job.assemble(job.sources()?, checkpoint)?;
    let served = job.serve(&mut parts)?;
    let (totals, counts) = (parts.totals.clone(), parts.counts.clone());
    if !watched {
        // A warning would be drawn across the table: how far the flows drifted is said below it.
        parts.drift.alarm = Some(1.0);
    }
    let (health, usage) = (parts.health.clone(), parts.checkpoint.usage.clone());
    let sensors = parts.catalogue.known().len();
    let first = source.sensors()?[0].id.clone();
    let kept: Arc<Mutex<Option<Forecast>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let wanted = history as u64 - 1 + forecasts / 2;
    parts.sinks.push(Sink::Call(Arc::new(move |forecast: &Forecast| {
        if forecast.sensor == first && forecast.offset == wanted {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(forecast.clone());
        }
    })));

    let variable = parts.checkpoint.config.variables[0].clone();
    let variables = [(variable.name, variable.units.clone(), Metrics::default())];
    let model = Arc::clone(&parts.checkpoint.id);
    let (cluster, stopping) = (job.cluster(), stop.clone());
    let begun = Instant::now();
    let engine = std::thread::spawn(move || engine::run(parts, &cluster, &stopping));
    let mut screen = Screen::new();
    let state = |ended: bool| {
        let report = Report::new(&model, &totals.over(Span::All), &variables);
        let seconds = begun.elapsed().as_secs_f64();
        let made = counts.forecasts();
        let rate = made as f64 / seconds;
        let head = format!(
            "{sensors} simulated sensors, {made} forecasts of {horizon} leads, {seconds:.0} s, \
             {rate:.1} forecasts/s{}",
            if ended { "" } else { "  (Ctrl-C ends it)" }
        );
        let at = served.as_ref().filter(|_| !ended).map(Served::address);
        let head = at.map_or(head.clone(), |at| format!("look at http://{at}\n{head}"));
        (head, report)
    };
    while !engine.is_finished() {
        let (head, report) = state(false);
        screen.draw(&format!("{head}\n{}", skill(&report, horizon)))?;
        std::thread::sleep(REDRAW);
    }
    engine.join().map_err(|_| anyhow!("the dataflow ended in a panic"))??;
    let (head, report) = state(true);
    screen.finish(&format!("{head}\n{}", skill(&report, horizon)))?;

    let mut text = format!("forecasts: {}\n", stores.display());
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(forecast) = kept {
        let path = out.join("forecast.png");
        picture(&source, &forecast, &variable.units, &path)?;
        let _ = writeln!(text, "picture:   {}", path.display());
    }
    let furthest = health.sensors().into_values().filter_map(|sensor| sensor.furthest);
    if let (Some(furthest), Some(usage)) = (furthest.reduce(f64::max), usage) {
        let (window, alarm) = (usage.window, usage.alarm());
        let _ = writeln!(
            text,
            "drift:     up to {furthest:.3} from the training data over {window} frames; a job \
             would warn above {alarm:.3}"
        );
    }
    text.push_str(&verdict(&report));
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// RMSE by lead, models side by side.
fn skill(report: &Report, horizon: usize) -> String {
    let variable = &report.variables[0];
    let mut text = format!("\n{:>14}", "RMSE, lead");
    for model in MODELS {
        let _ = write!(text, "{model:>14}");
    }
    let _ = write!(text, "{:>16}", "vs advection");
    for lead in (1..=horizon).map(Some).chain([None]) {
        let rmse = |model: &str| match lead {
            Some(lead) => variable.score(model, lead, "rmse"),
            None => variable.mean(model, "rmse"),
        };
        let label = lead.map_or("mean".to_owned(), |lead| format!("+{lead}"));
        let _ = write!(text, "\n{label:>14}");
        for model in MODELS {
            let value = rmse(model);
            let cell = if value.is_finite() { format!("{value:.4}") } else { "-".to_owned() };
            let _ = write!(text, "{cell:>14}");
        }
        let gain = 100.0 * (1.0 - rmse("physicnet") / rmse("advection"));
        let cell = if gain.is_finite() { format!("{gain:+.1} %") } else { "-".to_owned() };
        let _ = write!(text, "{cell:>16}");
    }
    text + "\n"
}

/// Who won, by the mean RMSE over the leads.
fn verdict(report: &Report) -> String {
    let [ours, advection, persistence] =
        MODELS.map(|model| report.variables[0].mean(model, "rmse"));
    if !ours.is_finite() {
        return "no forecast was verified: it ended too early".to_owned();
    }
    let gain = |other: f64| 100.0 * (1.0 - ours / other);
    let (advected, persisted) = (gain(advection), gain(persistence));
    let word = if ours < advection.min(persistence) { "wins" } else { "does not win" };
    let against = |gain: f64, other: &str| {
        let side = if gain < 0.0 { "above" } else { "below" };
        format!("{:.1} % {side} {other}", gain.abs())
    };
    format!(
        "verdict:   physicnet {word}: RMSE {ours:.4} over all leads, {} and {}",
        against(advected, "advection"),
        against(persisted, "persistence"),
    )
}

/// The newest frame and then, lead by lead, what came and what was forecast.
fn picture(source: &SyntheticSource, forecast: &Forecast, units: &str, path: &Path) -> Result<()> {
    let [leads, _, height, width] = forecast.shape;
    let pixels = height * width;
    // The simulator again: the same seed gives the same frames.
    let mut recording = Recording::new(source, 0)?;
    recording.seek(forecast.offset);
    let mut truth = Vec::new();
    while let (true, Some(frame)) = (truth.len() <= leads, recording.next_frame()?) {
        truth.push(frame.data[..pixels].to_vec());
    }
    let shown: Vec<usize> =
        (1..=SHOWN.min(leads)).map(|i| (i * leads / SHOWN.min(leads)).max(1)).collect();
    let shade = Shade::covering(truth.iter().map(Vec::as_slice));
    let now = truth.first().map(|field| Panel { label: "now".to_owned(), field, width });
    let of_truth = shown.iter().map(|&lead| {
        truth.get(lead).map(|field| Panel { label: format!("+{lead}"), field, width })
    });
    let mut rows = vec![Row {
        label: "truth".to_owned(),
        panels: std::iter::once(now).chain(of_truth).collect(),
    }];
    for model in MODELS {
        let Some(product) = forecast.products.iter().find(|p| &*p.name == model) else { continue };
        let panel = |&lead: &usize| {
            let field = product.field(forecast.shape, lead, 0);
            (!field.is_empty()).then_some(Panel { label: String::new(), field, width })
        };
        let panels = std::iter::once(None).chain(shown.iter().map(panel)).collect();
        rows.push(Row { label: model.to_owned(), panels });
    }
    let title =
        format!("{} {}", forecast.sensor, physicnet_stream::format_time(forecast.reference_time));
    draw(&title, &rows, shade, units).save(path)
}

/// A table that is drawn over itself where there is a terminal.
struct Screen {
    live: bool,
    lines: usize,
}

impl Screen {
    fn new() -> Self {
        Self { live: std::io::stdout().is_terminal(), lines: 0 }
    }

    fn draw(&mut self, text: &str) -> Result<()> {
        if self.live { self.finish(text) } else { Ok(()) }
    }

    fn finish(&mut self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if self.lines > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        }
        writeln!(out, "{text}")?;
        self.lines = text.lines().count();
        Ok(out.flush()?)
    }
}
