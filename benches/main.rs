//! What the dataflow costs, what a new frame costs, and how far it scales.
//!
//! `cargo bench` prints a table; nothing is compared with an earlier run, since machines differ.

mod reading;

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use candle_core::{Device, Tensor};
use physicnet::config::{Job, parse};
use physicnet::engine;
use physicnet_connectors::synthetic::SyntheticSource;
use physicnet_connectors::zarr::{Archive, ZarrSource};
use physicnet_operators::admission::Admitted;
use physicnet_operators::cropping::{Cropped, crop, fill_missing, model_input};
use physicnet_operators::encoding::Features;
use physicnet_operators::experts::{Known, between};
use physicnet_operators::layers::{Boundary, helped};
use physicnet_operators::model::{Checkpoint, ModelConfig, PhysicNet};
use physicnet_stream::{Frame, Stop};

fn main() -> Result<()> {
    // `cargo bench -- loop` prints that table alone; cargo adds options of its own.
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |table: &str| asked.is_empty() || asked.iter().any(|word| word == table);
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    // First, while nothing else has touched this process's memory.
    if wanted("memory") {
        memory(at)?;
    }

    if wanted("reading") {
        reading::reading(at)?;
    }

    let network_of_ten = at.join("ten.safetensors");
    network(10)?.save(&network_of_ten)?;
    if wanted("loop") {
        against_a_loop(at, &network_of_ten)?;
    }
    if wanted("history") {
        say(
            "a new frame by history: milliseconds of encoding, of the rest, and of the whole dataflow",
        )?;
        let store = simulated(at, 1)?;
        for history in [2, 4, 10, 20] {
            let (encoding, rest) = new_frame(history)?;
            // A window's frames are encoded once each, or the whole grows by their number.
            let path = at.join("history.safetensors");
            network(history)?.save(&path)?;
            let whole = stream(&store, &path, 1)?;
            say(&format!(
                "  history {history:2}: {encoding:.2} + {rest:.2}, {:.2}",
                whole.processor
            ))?;
        }
    }
    if wanted("workers") {
        say("frames/s by sensors and workers, 64 x 64")?;
        for sensors in [1, 8, 32] {
            let store = simulated(at, sensors)?;
            for workers in [1, 2] {
                let Cost { wall, processor } = stream(&store, &network_of_ten, workers)?;
                let rate = 1e3 / wall;
                say(&format!(
                    "  {sensors:2} sensors, {workers} workers: {rate:.1} ({processor:.2} ms of processor time each)"
                ))?;
            }
        }
    }
    Ok(())
}

/// A store of so many sensors, made once: some 480 frames in all, and four forecasts of each at least.
fn simulated(at: &Path, sensors: usize) -> Result<PathBuf> {
    let store = at.join(format!("sensors-{sensors}.zarr"));
    if !store.exists() {
        let frames = (480 / sensors + 10).max(13);
        let field = "field: {kind: navier_stokes}";
        let text = format!("{field}\nsensors: {sensors}\nframes: {frames}\nseed: 3");
        let simulated: SyntheticSource = parse(&text, false)?;
        physicnet::simulate::simulate(&simulated, &store, &Stop::default())?;
    }
    Ok(store)
}

/// The dataflow beside a plain loop, on one thread, by the number of sensors.
fn against_a_loop(at: &Path, network: &Path) -> Result<()> {
    say("the whole dataflow against calling the network in a loop, one thread: milliseconds of")?;
    say("processor time a frame, nine interleaved pairs, medians and ranges")?;
    say("| sensors | loop | | dataflow | | ratio | |")?;
    say("| --- | --- | --- | --- | --- | --- | --- |")?;
    for sensors in [1, 8, 256] {
        let store = simulated(at, sensors)?;
        let mut seen: [Vec<f64>; 3] = Default::default();
        for _ in 0..9 {
            // Interleaved, so that a change of the machine's speed meets both.
            let direct = by_hand(&store, network)?.processor;
            let streamed = stream(&store, network, 1)?.processor;
            for (seen, figure) in seen.iter_mut().zip([direct, streamed, streamed / direct]) {
                seen.push(figure);
            }
        }
        let [direct, streamed, ratio] = seen.map(|mut seen| {
            seen.sort_by(f64::total_cmp);
            format!("{:.3} | {:.3} to {:.3}", seen[4], seen[0], seen[8])
        });
        say(&format!("| {sensors} | {direct} | {streamed} | {ratio} |"))?;
    }
    Ok(())
}

/// Streams 100,000 small frames of four sensors through a network and the scores into stores, and
/// says how much memory is resident as they pass, and the most that ever was.
fn memory(at: &Path) -> Result<()> {
    say(
        "resident and peak MiB over 100,000 frames of 16 x 16, four sensors, two workers, scored and stored",
    )?;
    let path = at.join("small.safetensors");
    let sizes = ModelConfig { hidden: 16, decoder: 8, codes: 16, rounds: 1, ..small(4, 4)? };
    Checkpoint::untrained(&sizes)?.save(&path)?;
    let text = format!(
        "sources: [{{type: synthetic, field: {{kind: navier_stokes, size: 16}}, sensors: 4, \
         frames: 25000, seed: 5}}]\nmodel: {{checkpoint: '{}'}}\nscoring: {{}}\n\
         sinks: [{{type: zarr, path: '{}/{{sensor}}.zarr', fsync: false}}]\nworkers: 2",
        path.display(),
        at.display()
    );
    let job: Job = parse(&text, false)?;
    let parts = job.open()?;
    let (counts, over) = (parts.counts.clone(), Stop::default());
    let watch = {
        let over = over.clone();
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !over.stopped() {
                if counts.frames() >= 10_000 * (seen.len() as u64 + 1) {
                    seen.push(["VmRSS", "VmHWM"].map(|what| mib(what).unwrap_or(f64::NAN)));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            (seen, counts.frames())
        })
    };
    let begun = Instant::now();
    let outcome = engine::run(parts, &job.cluster(), &Stop::default());
    over.stop();
    let (seen, frames) = watch.join().map_err(|_| anyhow!("the watch panicked"))?;
    outcome?;
    for (which, what) in ["resident", "peak"].into_iter().enumerate() {
        let seen: Vec<String> = seen.iter().map(|mib| format!("{:.1}", mib[which])).collect();
        say(&format!("  {what} at every 10,000: {}", seen.join(" ")))?;
    }
    say(&format!("  {frames} frames in {:.0} s", begun.elapsed().as_secs_f64()))
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

fn network(history: usize) -> Result<Checkpoint> {
    Ok(Checkpoint::untrained(&small(history, 10)?)?)
}

fn small(history: usize, horizon: usize) -> Result<ModelConfig> {
    let variables = parse("[{name: vorticity, transform: {kind: identity}}]", false)?;
    let boundary = Boundary::Periodic;
    Ok(ModelConfig { variables, history, horizon, boundary, ..ModelConfig::default() })
}

/// Milliseconds a frame.
struct Cost {
    wall: f64,
    processor: f64,
}

impl Cost {
    fn of(work: impl FnOnce() -> Result<u64>) -> Result<Self> {
        let (begun, before) = (Instant::now(), processor_seconds());
        let frames = work()? as f64;
        let wall = begun.elapsed().as_secs_f64();
        let processor = match (before, processor_seconds()) {
            (Some(before), Some(after)) => after - before,
            _ => wall,
        };
        Ok(Self { wall: 1e3 * wall / frames, processor: 1e3 * processor / frames })
    }
}

/// A job over the store, nothing written.
fn stream(store: &Path, checkpoint: &Path, workers: usize) -> Result<Cost> {
    let text = format!(
        "sources: [{{type: zarr, path: '{}'}}]\nmodel: {{checkpoint: '{}'}}\nworkers: {workers}",
        store.display(),
        checkpoint.display()
    );
    let job: Job = parse(&text, false)?;
    Cost::of(|| {
        let parts = job.open()?;
        let counts = parts.counts.clone();
        engine::run(parts, &job.cluster(), &Stop::default())?;
        Ok(counts.frames())
    })
}

/// A plain loop over the same store that also encodes each frame once, helped as the stages are.
fn by_hand(store: &Path, checkpoint: &Path) -> Result<Cost> {
    Cost::of(|| {
        let net = Checkpoint::load(checkpoint)?.network(&Device::Cpu)?;
        let archive = Archive::open(&ZarrSource::new(store))?;
        let mut frames = 0;
        for (sensor, known) in archive.sensors().iter().enumerate() {
            let mut ring = VecDeque::new();
            for frame in 0..archive.times(sensor).len() {
                let cropped = crop(admitted(archive.read(sensor, frame)?), known, &net.config);
                let features = helped(|| encode(&net, &cropped))?;
                ring.push_back((cropped, features));
                if ring.len() > net.config.history {
                    ring.pop_front();
                }
                if ring.len() == net.config.history {
                    helped(|| forecast(&net, &ring))?;
                }
                frames += 1;
            }
        }
        Ok(frames)
    })
}

fn admitted(frame: Frame) -> Admitted {
    let Frame { sensor, valid_time, offset, shape, data, replay, scored, .. } = frame;
    let (data, plan) = (Rc::new(data), None);
    Admitted { sensor, valid_time, offset, shape, data, replay, scored, plan }
}

fn encode(net: &PhysicNet, cropped: &Cropped) -> Result<Features> {
    let encoder = net.encoder.as_ref().ok_or_else(|| anyhow!("the network encodes nothing"))?;
    let features = encoder.forward(&model_input(cropped, &net.device)?, None)?;
    if let Some(codebook) = &net.codebook {
        codebook.codes(&features.latent)?;
    }
    Ok(features)
}

/// What the experts' and the fusion's operators do, without them.
fn forecast(net: &PhysicNet, ring: &VecDeque<(Cropped, Features)>) -> Result<Vec<f32>> {
    let planes: Vec<_> = ring.iter().map(|(c, _)| Rc::clone(&c.values)).collect();
    let (newest, previous) =
        (fill_missing(&planes, 1, &[]), fill_missing(&planes[..planes.len() - 1], 1, &[]));
    let extent = ring[0].0.extent;
    let (h, w) = (extent.height, extent.width);
    let transform = &net.config.variables[0].transform;
    let flow = between(&newest, &previous, h, w, transform, net.config.boundary);
    let newest = Tensor::from_vec(newest, (1, h, w, 1), &net.device)?;
    let flow = Tensor::from_vec(flow, (1, h, w, 2), &net.device)?;
    let prior = net.prior(&flow)?;
    let latents: Vec<_> = ring.iter().map(|(_, f)| f.latent.clone()).collect();
    let known = Known { latents: &latents, newest: &newest, past: &[], flow: &flow, prior: &prior };
    let carried = net.experts.forward(&known)?;
    let skip = ring.back().map(|(_, f)| f.skip.clone());
    let fused = net.fusion.forward(&carried, skip.as_ref(), &newest, &[], None)?;
    // Lead by lead, in the units of the data.
    let (fields, leads) = (fused.mean.flatten_all()?.to_vec1::<f32>()?, net.config.horizon);
    let mut physical = Vec::with_capacity(fields.len());
    for lead in 0..leads {
        physical.extend(fields.chunks_exact(leads).map(|pixel| transform.inverse(pixel[lead])));
    }
    Ok(physical)
}

/// Milliseconds to encode a new frame and to forecast from it, by the length of the window.
fn new_frame(history: usize) -> Result<(f64, f64)> {
    let net = network(history)?.network(&Device::Cpu)?;
    let simulated: SyntheticSource = parse("field: {kind: navier_stokes}", false)?;
    let known = Arc::clone(&simulated.sensors()?[0]);
    let mut recording = physicnet_connectors::synthetic::Recording::new(&simulated, 0)?;
    let mut ring = VecDeque::new();
    for _ in 0..history {
        let frame = recording.next_frame()?.ok_or_else(|| anyhow!("no frame"))?;
        let cropped = crop(admitted(frame), &known, &net.config);
        ring.push_back((cropped.clone(), encode(&net, &cropped)?));
    }
    let cropped = &ring[history - 1].0;
    // The least of many: what others on the machine do can only add to it.
    let least = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..30 {
            let begun = Instant::now();
            work()?;
            least = least.min(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(least)
    };
    let encoding = least(&mut || helped(|| encode(&net, cropped)).map(drop))?;
    let rest = least(&mut || helped(|| forecast(&net, &ring)).map(drop))?;
    Ok((encoding, rest))
}

/// What the system tells of this process's memory: `VmRSS` is resident now, `VmHWM` was at most.
fn mib(what: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(what))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Processor time of all threads so far, where the system tells it: on a machine that others use
/// too, it says more than the clock.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold anything: user and system time, in hundredths of a second.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / 100.0)
}
