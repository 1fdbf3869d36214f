//! What is in a store or a checkpoint, in a page of text.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use physicnet_connectors::zarr::{Archive, ZarrSource, is_url};
use physicnet_operators::model::Checkpoint;
use physicnet_operators::quantization::Usage;
use physicnet_operators::scoring::Metrics;
use physicnet_stream::{Frame, format_time};

use crate::render::{Panel, Row, Shade, draw};

/// Frames that statistics are taken from.
const SAMPLE: usize = 64;
/// Frames in the picture.
const SHOWN: usize = 6;
/// Gaps and sensors that are listed before the rest is only counted.
const LISTED: usize = 8;

/// Describes the store or checkpoint at `path`; with `picture`, draws frames of the first sensor
/// of a store there.
///
/// # Errors
/// When it is neither, or cannot be read.
pub fn inspect(path: &Path, variables: &[String], picture: Option<&Path>) -> Result<String> {
    if path.is_dir() || is_url(path) {
        let config = ZarrSource { variables: variables.to_vec(), ..ZarrSource::new(path) };
        return store(&Archive::open(&config)?, picture);
    }
    checkpoint(&Checkpoint::load(path)?)
}

fn store(archive: &Archive, picture: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    let sensors = archive.sensors();
    let _ = writeln!(text, "{}: {} sensors", archive.config().path.display(), sensors.len());
    for (index, sensor) in sensors.iter().enumerate().take(LISTED) {
        let times = archive.times(index);
        let [channels, height, width] = sensor.grid.shape();
        let _ = writeln!(
            text,
            "\n{}: {} frames of {channels} x {height} x {width}, every {} s",
            sensor.id,
            times.len(),
            sensor.cadence.nanoseconds() as f64 / 1e9,
        );
        for axis in [&sensor.grid.y, &sensor.grid.x] {
            if let (Some(first), Some(last)) = (axis.values.first(), axis.values.last()) {
                let _ = writeln!(text, "  {} {first} to {last} {}", axis.name, axis.units);
            }
        }
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            let _ = writeln!(text, "  time {} to {}", format_time(*first), format_time(*last));
        }
        let irregular: Vec<_> =
            (times.windows(2)).filter(|pair| sensor.cadence.steps(pair[0], pair[1]) != 1).collect();
        let missing: i64 = (irregular.iter())
            .map(|pair| (sensor.cadence.steps(pair[0], pair[1]) - 1).max(0))
            .sum();
        let _ = writeln!(text, "  {} irregular steps, {missing} frames missing", irregular.len());
        for pair in irregular.iter().take(LISTED) {
            let steps = sensor.cadence.steps(pair[0], pair[1]);
            let _ = writeln!(text, "    {} + {steps} steps", format_time(pair[0]));
        }
        if index == 0 || sensors.len() <= LISTED {
            statistics(&mut text, archive, index)?;
        }
    }
    if sensors.len() > LISTED {
        let _ = writeln!(text, "\n... and {} more sensors", sensors.len() - LISTED);
    }
    if let Some(path) = picture {
        thumbnails(archive, path)?;
        let _ = writeln!(text, "\npicture: {}", path.display());
    }
    Ok(text)
}

/// Up to `count` frames, evenly spread from the first to the last.
fn spread(archive: &Archive, sensor: usize, count: usize) -> Result<Vec<Frame>> {
    let frames = archive.times(sensor).len();
    let count = count.min(frames);
    let place = |i: usize| i * (frames - 1) / (count - 1).max(1);
    (0..count).map(|i| Ok(archive.read(sensor, place(i))?)).collect()
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
        let _ = writeln!(
            text,
            "  {} ({}): min {lo:.4} mean {mean:.4} max {hi:.4} std {:.4}, {:.2} % missing, in {} frames",
            variable.name,
            variable.units,
            (squares / count - mean * mean).max(0.0).sqrt(),
            100.0 * (1.0 - count / (all as f64).max(1.0)),
            frames.len(),
        );
    }
    Ok(())
}

fn thumbnails(archive: &Archive, path: &Path) -> Result<()> {
    let sensor = archive.sensors().first().context("the store has no sensors")?;
    let frames = spread(archive, 0, SHOWN)?;
    let [_, height, width] = sensor.grid.shape();
    let variable = sensor.grid.variables.first().context("the store has no variables")?;
    let field = |frame: &'_ Frame| frame.data[..height * width].to_vec();
    let fields: Vec<Vec<f32>> = frames.iter().map(field).collect();
    let shade = if Metrics::is_rain(&variable.units) {
        Shade::Rain
    } else {
        Shade::covering(fields.iter().map(Vec::as_slice))
    };
    let panels = (frames.iter().zip(&fields)).map(|(frame, field)| {
        let label = format_time(frame.valid_time).get(5..16).unwrap_or_default().to_owned();
        Some(Panel { label, field, width })
    });
    let rows = [Row { label: variable.name.clone(), panels: panels.collect() }];
    draw(sensor.id.as_str(), &rows, shade, &variable.units).save(path)
}

fn checkpoint(checkpoint: &Checkpoint) -> Result<String> {
    let mut text = String::new();
    let parameters: usize = checkpoint.weights.values().map(|w| w.elem_count()).sum();
    let _ = writeln!(
        text,
        "checkpoint {}: {parameters} parameters in {} tensors\n\n{}\n{}",
        checkpoint.id,
        checkpoint.weights.len(),
        serde_yaml_ng::to_string(&checkpoint.config)?,
        serde_yaml_ng::to_string(&checkpoint.provenance)?,
    );
    let known = checkpoint.usage.as_ref().map(usage);
    let unknown =
        || "codes: how they are used is not known; `physicnet calibrate` counts it".into();
    let _ = writeln!(text, "{}\n", known.unwrap_or_else(unknown));
    for (name, weight) in &checkpoint.weights {
        let _ = writeln!(text, "  {name:<40} {:?}", weight.dims());
    }
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
