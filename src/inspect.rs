//! What is in a store, a checkpoint or a job, in a page of text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use physicnet_connectors::SinkConfig;
use physicnet_connectors::zarr::{Archive, ZarrSource, foreign, is_url, shown};
use physicnet_operators::model::Checkpoint;
use physicnet_operators::quantization::Usage;
use physicnet_stream::{Frame, Sensor, format_time};
use serde_json::{Value, json};

use crate::config::{Job, load};
use crate::render::{Panel, Row, Shade, blocks, draw};
use crate::report::folder_is_there;

/// Frames that statistics are taken from.
const SAMPLE: usize = 64;
/// Frames in the picture.
const SHOWN: usize = 6;
/// Gaps and sensors that are listed before the rest is only counted.
const LISTED: usize = 8;

/// Describes the store, checkpoint or job at `path`. Of a store, frames of the first sensor are
/// drawn at `picture`, and in as many characters of a terminal as `show` says: columns and rows.
///
/// # Errors
/// When it is none of them, or cannot be read.
pub fn inspect(
    path: &Path,
    variables: &[String],
    cadence: Option<String>,
    picture: Option<&Path>,
    show: Option<[usize; 2]>,
) -> Result<String> {
    ensure!(
        is_url(path) || path.exists(),
        "{}: there is nothing; look at the path",
        path.display()
    );
    picture.map(drawable).transpose()?;
    if path.is_dir() || is_url(path) {
        let variables = variables.to_vec();
        let config = ZarrSource { variables, cadence, ..ZarrSource::new(path) };
        return store(&Archive::open(&config)?, picture, show);
    }
    let plain = variables.is_empty() && cadence.is_none() && picture.is_none() && show.is_none();
    ensure!(
        plain,
        "{}: --variable, --cadence, --picture and --show are for stores",
        path.display()
    );
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    match &*extension {
        "yaml" | "yml" | "toml" => job(&load(path)?),
        _ => match foreign(path) {
            Some(why) => bail!("{}: {why}", path.display()),
            None => checkpoint(path),
        },
    }
}

/// Whether a picture can go there by its name: before frames are read for it.
fn drawable(picture: &Path) -> Result<()> {
    let ending = picture.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if let Some(ending) = ending.filter(|ending| ending != "png") {
        bail!("--picture {}: what is written is PNG and no .{ending}", picture.display());
    }
    folder_is_there(picture).with_context(|| format!("--picture {}", picture.display()))
}

fn store(archive: &Archive, picture: Option<&Path>, show: Option<[usize; 2]>) -> Result<String> {
    let mut text = String::new();
    let sensors = archive.sensors();
    let path = shown(&archive.config().path);
    let forecasts = !archive.leads().is_empty();
    let (what, each) = if forecasts { ("lead", "forecast") } else { ("sensor", "frame") };
    let holds = if forecasts { "forecasts, of " } else { "" };
    let _ = writeln!(text, "{path}: {holds}{}", counted(sensors.len(), what));
    for (index, sensor) in sensors.iter().enumerate().take(LISTED) {
        let times = archive.times(index);
        let (name, frames) = (name(archive, index), counted(times.len(), each));
        let _ = writeln!(text, "\n{name}: {frames} of {}", form(sensor));
        for axis in [&sensor.grid.y, &sensor.grid.x] {
            if let (Some(first), Some(last)) = (axis.values.first(), axis.values.last()) {
                let _ = writeln!(text, "  {} {first} to {last} {}", axis.name, axis.units);
            }
        }
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            let when = if forecasts { "reference time" } else { "time" };
            let _ = writeln!(text, "  {when} {} to {}", format_time(*first), format_time(*last));
        }
        let irregular: Vec<_> =
            (times.windows(2)).filter(|pair| sensor.cadence.steps(pair[0], pair[1]) != 1).collect();
        let missing: i64 = (irregular.iter())
            .map(|pair| (sensor.cadence.steps(pair[0], pair[1]) - 1).max(0))
            .sum();
        let _ = writeln!(text, "  {} irregular steps, {missing} {each}s missing", irregular.len());
        for pair in irregular.iter().take(LISTED) {
            let steps = sensor.cadence.steps(pair[0], pair[1]);
            let _ = writeln!(text, "    {} {steps:+} steps", format_time(pair[0]));
        }
        if index == 0 || sensors.len() <= LISTED {
            statistics(&mut text, archive, index)?;
        }
    }
    if sensors.len() > LISTED {
        let _ = writeln!(text, "\n... and {} more {what}s", sensors.len() - LISTED);
    }
    if picture.is_some() || show.is_some() {
        thumbnails(&mut text, archive, picture, show)?;
    }
    Ok(text)
}

/// What a sensor of the store is called: one of a store of forecasts is a lead.
fn name(archive: &Archive, index: usize) -> String {
    let seconds = |lead: &i64| format!("lead of {} s", *lead as f64 / 1e9);
    let lead = archive.leads().get(index).map(seconds);
    lead.unwrap_or_else(|| archive.sensors()[index].id.to_string())
}

/// Units behind a name; nothing where there are none.
fn bracketed(units: &str) -> String {
    if units.is_empty() { String::new() } else { format!(" ({units})") }
}

/// So many of `what`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Channels, rows, columns and cadence.
fn form(sensor: &Sensor) -> String {
    let [channels, height, width] = sensor.grid.shape();
    let seconds = sensor.cadence.nanoseconds() as f64 / 1e9;
    format!("{channels} x {height} x {width}, every {seconds} s")
}

/// Up to `count` frames, evenly spread from the first to the last.
fn spread(archive: &Archive, sensor: usize, count: usize) -> Result<Vec<Frame>> {
    let frames = archive.times(sensor).len();
    let count = count.min(frames);
    let place = |i: usize| i * (frames - 1) / (count - 1).max(1);
    (0..count).map(|i| Ok(archive.read_or_miss(sensor, place(i))?)).collect()
}

fn statistics(text: &mut String, archive: &Archive, index: usize) -> Result<()> {
    let sensor = &archive.sensors()[index];
    let frames = spread(archive, index, SAMPLE)?;
    let [_, height, width] = sensor.grid.shape();
    let pixels = (height * width).max(1);
    for (channel, variable) in sensor.grid.variables.iter().enumerate() {
        let fields = frames.iter().filter_map(|f| f.data.chunks(pixels).nth(channel));
        let (mut n, mut all, mut sum, mut squares) = (0_u64, 0_u64, 0.0_f64, 0.0_f64);
        let (mut lo, mut hi) = (f32::INFINITY, f32::NEG_INFINITY);
        for &value in fields.flatten() {
            all += 1;
            if value.is_finite() {
                n += 1;
                sum += f64::from(value);
                squares += f64::from(value).powi(2);
                (lo, hi) = (lo.min(value), hi.max(value));
            }
        }
        let (mean, count) = (sum / n as f64, n as f64);
        if n == 0 {
            let (name, units) = (&variable.name, bracketed(&variable.units));
            let frames = counted(frames.len(), "frame");
            let _ = writeln!(text, "  {name}{units}: nothing measured, in {frames}");
            continue;
        }
        let _ = writeln!(
            text,
            "  {}{}: min {lo:.4} mean {mean:.4} max {hi:.4} std {:.4}, {:.2} % missing, in {} frames",
            variable.name,
            bracketed(&variable.units),
            (squares / count - mean * mean).max(0.0).sqrt(),
            100.0 * (1.0 - count / (all as f64).max(1.0)),
            frames.len(),
        );
    }
    Ok(())
}

fn thumbnails(
    text: &mut String,
    archive: &Archive,
    picture: Option<&Path>,
    show: Option<[usize; 2]>,
) -> Result<()> {
    let sensor = archive.sensors().first().context("the store has no sensors")?;
    let frames = spread(archive, 0, SHOWN)?;
    let [_, height, width] = sensor.grid.shape();
    let variable = sensor.grid.variables.first().context("the store has no variables")?;
    let fields: Vec<&[f32]> = frames.iter().map(|frame| &frame.data[..height * width]).collect();
    let shade = Shade::suiting(&variable.units, fields.iter().copied());
    let label =
        |frame: &Frame| format_time(frame.valid_time).get(5..16).unwrap_or_default().to_owned();
    if let Some([columns, rows]) = show {
        let labels: Vec<_> = frames.iter().map(label).collect();
        let (name, labels) = (name(archive, 0), labels.join(", "));
        let _ = writeln!(text, "\n{} of {name}: {labels}", variable.name);
        text.push_str(&blocks(&fields, width, shade, columns, rows));
    }
    if let Some(path) = picture {
        let panels = (frames.iter().zip(&fields))
            .map(|(frame, field)| Some(Panel { label: label(frame), field, width }));
        let rows = [Row { label: variable.name.clone(), panels: panels.collect() }];
        draw(&name(archive, 0), &rows, shade, &variable.units).save(path)?;
        let _ = writeln!(text, "\npicture: {}", path.display());
    }
    Ok(())
}

fn checkpoint(path: &Path) -> Result<String> {
    let checkpoint = Checkpoint::load(path)?;
    let mut text = String::new();
    let bytes = std::fs::metadata(path)?.len();
    let mut rooms = BTreeMap::<&str, usize>::new();
    for (name, weight) in &checkpoint.weights {
        *rooms.entry(name.split('.').next().unwrap_or(name)).or_default() += weight.elem_count();
    }
    let parameters: usize = rooms.values().sum();
    let rooms: Vec<_> = rooms.iter().map(|(room, count)| format!("{room} {count}")).collect();
    let _ = writeln!(
        text,
        "checkpoint {}: {parameters} parameters in {} tensors ({}), {:.2} MiB in {}\n\n{}\n{}",
        checkpoint.id,
        checkpoint.weights.len(),
        rooms.join(", "),
        bytes as f64 / f64::from(1 << 20),
        checkpoint.stored,
        serde_yaml_ng::to_string(&checkpoint.config)?,
        serde_yaml_ng::to_string(&checkpoint.provenance)?,
    );
    let known = checkpoint.usage.as_ref().map(usage);
    let unknown =
        || "codes: how they are used is not known; `physicnet calibrate` counts it".into();
    let _ = writeln!(text, "{}", known.unwrap_or_else(unknown));
    // Reading refuses weights that are not finite, and names them.
    let mut still = 0;
    let mut list = String::new();
    for (name, weight) in &checkpoint.weights {
        let values: Vec<f32> = weight.flatten_all()?.to_vec1()?;
        let (norm, most) = (norm(&values), values.iter().fold(0.0_f32, |m, v| m.max(v.abs())));
        let mean = norm / (values.len().max(1) as f64).sqrt();
        still += usize::from(most == 0.0);
        let shape = format!("{:?}", weight.dims());
        let _ = writeln!(list, "  {name:<36} {shape:<18} rms {mean:<11.4e} largest {most:.4e}");
    }
    let _ = writeln!(text, "weights: all finite, {still} tensors are zero\n\n{list}");
    Ok(text)
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// How the checkpoint at `other` differs from the one at `path`: keys of the config and of the
/// provenance, and the relative change of every weight, `|other - weight| / |weight|` in the
/// Euclidean norm.
///
/// # Errors
/// When one of them is no checkpoint, or cannot be read.
pub fn differences(path: &Path, other: &Path) -> Result<String> {
    if let Some(store) = [path, other].into_iter().find(|path| path.is_dir() || is_url(path)) {
        bail!(
            "{}: two paths are two checkpoints to be compared, and this is a folder; inspect a store \
             by itself, or score one against another with `evaluate --against`",
            shown(store)
        );
    }
    let (one, two) = (Checkpoint::load(path)?, Checkpoint::load(other)?);
    let mut text = format!("{} {}\n{} {}\n", one.id, path.display(), two.id, other.display());
    let keys = |Checkpoint { config, provenance, stored, .. }: &Checkpoint| {
        let mut keys = BTreeMap::new();
        let said = json!({"config": config, "provenance": provenance, "weights": stored});
        flatten(&said, "", &mut keys);
        keys
    };
    let (ours, theirs) = (keys(&one), keys(&two));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    text.push('\n');
    for name in names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)) {
        let said = |keys: &BTreeMap<String, Value>| {
            keys.get(name).map_or("absent".to_owned(), Value::to_string)
        };
        let _ = writeln!(text, "{name}: {} -> {}", said(&ours), said(&theirs));
    }
    text.push('\n');
    let (mut moved, mut whole) = (0.0, 0.0);
    let names: BTreeSet<_> = one.weights.keys().chain(two.weights.keys()).collect();
    for name in names {
        let (Some(a), Some(b)) = (one.weights.get(name), two.weights.get(name)) else {
            let place = if one.weights.contains_key(name) { path } else { other };
            let _ = writeln!(text, "  {name:<36} only in {}", place.display());
            continue;
        };
        if a.dims() != b.dims() {
            let _ = writeln!(text, "  {name:<36} {:?} -> {:?}", a.dims(), b.dims());
            continue;
        }
        let change: Vec<f32> = (b - a)?.flatten_all()?.to_vec1()?;
        let (change, size) = (norm(&change), norm(&a.flatten_all()?.to_vec1::<f32>()?));
        moved += change * change;
        whole += size * size;
        let _ = writeln!(text, "  {name:<36} {}", share(change, size));
    }
    let all = share(f64::sqrt(moved), f64::sqrt(whole));
    let _ = writeln!(text, "\nweights of one shape, together: {all}");
    Ok(text)
}

/// A change in relation to what changed.
fn share(change: f64, size: f64) -> String {
    match (change > 0.0, size > 0.0) {
        (false, _) => "the same".to_owned(),
        (true, true) => format!("changed by {:.3} %", 100.0 * change / size),
        (true, false) => "changed from zero".to_owned(),
    }
}

/// The leaves below `value` by their paths.
pub(crate) fn flatten(value: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
    let mut below = |key: &str, value| {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        flatten(value, &path, into);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| below(key, value)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(at, value)| below(&at.to_string(), value));
        }
        leaf => _ = into.insert(path.to_owned(), leaf.clone()),
    }
}

/// What a job file comes to: everything that it names is opened, and nothing runs.
fn job(job: &Job) -> Result<String> {
    let parts = job.open()?;
    let mut text = format!("job {}\n", job.name);
    let _ = writeln!(text, "\nsensors");
    let sensors = parts.catalogue.known();
    let more = sensors.len().saturating_sub(LISTED);
    for sensor in sensors.take(LISTED) {
        let from = parts.resume.from(&sensor.id);
        let goes_on = if from > 0 { format!(", goes on at frame {from}") } else { String::new() };
        let names: Vec<_> = sensor.grid.variables.iter().map(|v| v.name.as_str()).collect();
        let (id, form) = (&sensor.id, form(sensor));
        let _ = writeln!(text, "  {id}: {} as {form}{goes_on}", names.join(", "));
    }
    if more > 0 {
        let _ = writeln!(text, "  ... and {more} more");
    }
    if let Some(any) = parts.catalogue.any() {
        let _ = writeln!(text, "  any other: {}", form(any));
    }
    let (model, weights) = (&parts.checkpoint.config, &parts.checkpoint.weights);
    let parameters: usize = weights.values().map(|weight| weight.elem_count()).sum();
    let (id, history, leads) = (&parts.checkpoint.id, model.history, parts.leads());
    let rolled = if leads > model.horizon {
        format!(", those after the {}th from its own forecasts", model.horizon)
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "\nmodel {id}: {parameters} parameters; {leads} leads from {history} frames{rolled}"
    );
    let products: Vec<_> = parts.fuse.products.iter().map(|name| name.as_str()).collect();
    let _ = writeln!(text, "products: {}", [&["physicnet"], &*products].concat().join(", "));
    let _ = writeln!(text, "\nwrites");
    for sink in &job.sinks {
        match sink {
            SinkConfig::Zarr(zarr) => {
                for path in zarr.paths(&parts.catalogue)?.into_values().take(LISTED) {
                    let _ = writeln!(text, "  forecasts: {}", shown(&path));
                }
            }
            SinkConfig::Kafka(kafka) => {
                let topic = kafka.topic.as_deref().unwrap_or("none, progress alone");
                let _ = writeln!(text, "  forecasts: topic {topic} at {}", kafka.cluster.brokers);
            }
        }
    }
    if let Some(rejects) = &job.rejects {
        let _ = writeln!(text, "  rejects: {}", rejects.path.display());
    }
    if let Some(store) = job.scoring.as_ref().and_then(|scoring| scoring.store.as_ref()) {
        let _ = writeln!(text, "  scores: {}", store.display());
    }
    let _ = writeln!(text, "\nwith every default\n\n{}", serde_yaml_ng::to_string(job)?);
    Ok(text)
}

/// What is usual of a model's codes, in a line.
pub fn usage(usage: &Usage) -> String {
    format!(
        "codes: perplexity {:.1} of {}, {} never used; {} frames usually lie up to {:.3} from \
         training, the alarm is above {:.3}",
        usage.perplexity(),
        usage.counts.len(),
        usage.dead(),
        usage.window,
        usage.usual,
        usage.alarm(),
    )
}
