//! Simulated sensors as a data set: every sensor one trajectory of a Zarr archive.

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use physicnet_connectors::synthetic::{Recording, SyntheticSource};
use physicnet_connectors::zarr::ArchiveWriter;
use physicnet_stream::{Frame, Stop};
use serde_json::{Map, Value, json};

/// Frames that may wait for the writer: simulating goes on while a chunk is compressed.
const WAITING: usize = 64;

/// What a thread hands over: a frame and whose it is, or why there are no more.
type Handed = physicnet_stream::Result<(usize, Frame)>;

/// Writes `config.frames` frames of every sensor to a new store at `out`: f32 `(time, y, x)`, or
/// `(sample, time, y, x)` where there are several sensors, with the settings in its attributes.
///
/// As many threads as there are cores simulate; the store does not depend on their number.
///
/// # Errors
/// When a setting is out of its range or `frames` is absent, there is something at `out`, the
/// disk refuses, a simulation blows up, or `stop` asks: then nothing is left at `out`.
pub fn simulate(config: &SyntheticSource, out: &Path, stop: &Stop) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    simulate_on(threads, config, out, stop)
}

fn simulate_on(threads: usize, config: &SyntheticSource, out: &Path, stop: &Stop) -> Result<()> {
    let Some(frames) = config.frames.filter(|frames| *frames > 0) else {
        bail!("frames: a data set ends; say after how many frames");
    };
    if let Some((key, _)) = config.faults.of_order().iter().find(|(_, share)| *share > 0.0) {
        bail!("faults.{key}: a data set has every frame once and in order; run a job over it");
    }
    let sensors = config.sensors()?;
    let samples = (sensors.len() > 1).then_some(sensors.len());
    let mut writer = ArchiveWriter::create(out, &sensors[0].grid, samples, attributes(config)?)?;
    let bar = progress(frames * sensors.len() as u64);

    let written = write(threads, config, &mut writer, stop, &bar);
    let done = written.and_then(|()| Ok(writer.finish()?));
    bar.finish_and_clear();
    done
}

fn write(
    threads: usize,
    config: &SyntheticSource,
    writer: &mut ArchiveWriter,
    stop: &Stop,
    bar: &ProgressBar,
) -> Result<()> {
    let (next, (sender, receiver)) = (AtomicUsize::new(0), sync_channel(WAITING));
    thread::scope(|scope| {
        for _ in 0..threads.min(config.sensors) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || record(config, next, &sender));
        }
        drop(sender);
        // Owned here, so that leaving early closes the channel and thereby ends the threads.
        for handed in receiver {
            if stop.stopped() {
                bail!("stopped; nothing was kept");
            }
            let (sample, frame) = handed?;
            writer.append(sample, &frame)?;
            bar.inc(1);
        }
        Ok(())
    })
}

/// Records one sensor after another, each from its first frame to its last.
fn record(config: &SyntheticSource, next: &AtomicUsize, sender: &SyncSender<Handed>) {
    loop {
        let sample = next.fetch_add(1, Ordering::Relaxed);
        if sample >= config.sensors {
            return;
        }
        let frames = Recording::new(config, sample)
            .map(|mut recording| std::iter::from_fn(move || recording.next_frame().transpose()));
        match frames {
            Err(error) => return drop(sender.send(Err(error))),
            Ok(frames) => {
                for frame in frames {
                    let failed = frame.is_err();
                    let handed = frame.map(|frame| (sample, frame));
                    if sender.send(handed).is_err() || failed {
                        return;
                    }
                }
            }
        }
    }
}

fn attributes(config: &SyntheticSource) -> Result<Map<String, Value>> {
    let settings = serde_json::to_value(config).context("writing the settings as JSON")?;
    let title = format!("Simulated {}", config.field.kind().replace('_', " "));
    let version = concat!("physicnet ", env!("CARGO_PKG_VERSION"), " simulate");
    let pairs = [
        ("title", json!(title)),
        ("source", json!(version)),
        ("seed", json!(config.seed)),
        ("settings", settings),
    ];
    Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}

fn progress(frames: u64) -> ProgressBar {
    let bar = ProgressBar::new(frames);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {per_sec}, {eta}")
    {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    use physicnet_connectors::synthetic::{Faults, Field, NavierStokes, Rain};
    use physicnet_connectors::zarr::{Archive, ZarrSource};

    use super::*;

    fn rain(sensors: usize) -> SyntheticSource {
        let field = Field::Rain(Rain { height: 12, width: 20, ..Rain::default() });
        SyntheticSource { sensors, frames: Some(19), seed: 3, ..SyntheticSource::new(field) }
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(
                    files(&path).into_iter().map(|(name, bytes)| {
                        (Path::new(path.file_name().unwrap()).join(name), bytes)
                    }),
                );
            } else {
                found.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
            }
        }
        found
    }

    #[test]
    fn a_data_set_is_what_the_sensors_saw_on_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let config = rain(3);
        simulate_on(1, &config, &at("one.zarr"), &Stop::default()).unwrap();
        simulate_on(3, &config, &at("three.zarr"), &Stop::default()).unwrap();
        assert_eq!(files(&at("one.zarr")), files(&at("three.zarr")));

        let archive = Archive::open(&ZarrSource::new(at("one.zarr"))).unwrap();
        assert_eq!(archive.sensors().len(), 3);
        for sample in 0..3 {
            let mut recording = Recording::new(&config, sample).unwrap();
            for frame in 0..19 {
                let (stored, seen) = (
                    archive.read(sample, frame).unwrap(),
                    recording.next_frame().unwrap().unwrap(),
                );
                assert_eq!((stored.valid_time, stored.data), (seen.valid_time, seen.data));
            }
        }
        let grid = &archive.sensors()[0].grid;
        assert_eq!(grid.variables, config.sensors().unwrap()[0].grid.variables);
    }

    #[test]
    fn what_cannot_be_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.zarr");
        let endless = SyntheticSource { frames: None, ..rain(1) };
        let error = simulate(&endless, &out, &Stop::default()).unwrap_err();
        assert!(error.to_string().starts_with("frames:"), "{error}");

        let faults = Faults { corrected: 0.1, ..Faults::default() };
        let error = simulate(&SyntheticSource { faults, ..rain(1) }, &out, &Stop::default());
        assert!(error.unwrap_err().to_string().starts_with("faults.corrected:"));

        let hopeless = NavierStokes { forcing: 1e300, ..NavierStokes::default() };
        let config = SyntheticSource { field: Field::NavierStokes(hopeless), ..rain(2) };
        let error = simulate(&config, &out, &Stop::default()).unwrap_err();
        assert!(error.to_string().contains("blew up"), "{error}");

        let stop = Stop::default();
        stop.stop();
        assert!(simulate(&rain(2), &out, &stop).is_err());
        assert!(!out.exists());

        simulate(&rain(1), &out, &Stop::default()).unwrap();
        let error = simulate(&rain(1), &out, &Stop::default()).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert!(out.exists(), "what was there before stays");
    }
}
