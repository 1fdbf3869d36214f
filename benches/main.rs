//! What the dataflow costs, what a new frame costs, and how far it scales.
//!
//! `cargo bench` prints a table; nothing is compared with an earlier run, since machines differ.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

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
use physicnet_operators::layers::{Boundary, warp};
use physicnet_operators::model::{Checkpoint, ModelConfig, PhysicNet};
use physicnet_stream::{Frame, Stop};

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let simulated: SyntheticSource =
        parse("field: {kind: navier_stokes}\nsensors: 8\nframes: 60\nseed: 3", false)?;
    physicnet::simulate::simulate(&simulated, &at.join("flow.zarr"), &Stop::default())?;

    say("frames/s of the whole dataflow against calling the network in a loop, one thread")?;
    let path = at.join("ten.safetensors");
    network(10)?.save(&path)?;
    let mut ratios = Vec::new();
    for _ in 0..3 {
        // Interleaved, so that a change of the machine's speed meets both.
        let direct = by_hand(&at.join("flow.zarr"), &path)?;
        let streamed = stream(at, &path, 1)?;
        ratios.push(streamed / direct);
        say(&format!(
            "  loop {direct:.1}  dataflow {streamed:.1}  ratio {:.3}",
            streamed / direct
        ))?;
    }
    ratios.sort_by(f64::total_cmp);
    say(&format!("  median ratio {:.3}", ratios[1]))?;

    say("a new frame by history: milliseconds of encoding, and of the rest")?;
    for history in [2, 4, 10, 20] {
        let (encoding, rest) = new_frame(history)?;
        say(&format!("  history {history:2}: {encoding:.2} + {rest:.2}"))?;
    }

    say("frames/s by workers, eight sensors of 64 x 64")?;
    for workers in [1, 2] {
        say(&format!("  {workers}: {:.1}", stream(at, &path, workers)?))?;
    }
    if let Some(peak) = peak_mib() {
        say(&format!("peak memory of this process: {peak} MiB"))?;
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

fn network(history: usize) -> Result<Checkpoint> {
    let variables = vec![physicnet_operators::model::VariableConfig {
        name: "vorticity".into(),
        units: String::new(),
        transform: physicnet_operators::cropping::Transform::Identity,
        keep: Vec::new(),
    }];
    let boundary = Boundary::Periodic;
    let config =
        ModelConfig { variables, history, horizon: 10, boundary, ..ModelConfig::default() };
    Ok(Checkpoint::untrained(&config)?)
}

/// Frames a second of a job over the store, nothing written.
fn stream(at: &Path, checkpoint: &Path, workers: usize) -> Result<f64> {
    let text = format!(
        "sources: [{{type: zarr, path: '{0}/flow.zarr'}}]\nmodel: {{checkpoint: '{1}'}}\n\
         workers: {workers}",
        at.display(),
        checkpoint.display()
    );
    let job: Job = parse(&text, false)?;
    let parts = job.open()?;
    let counts = parts.counts.clone();
    let begun = Instant::now();
    engine::run(parts, &job.cluster(), &Stop::default())?;
    Ok(counts.frames() as f64 / begun.elapsed().as_secs_f64())
}

/// Frames a second of a plain loop over the same store that also encodes each frame once.
fn by_hand(store: &Path, checkpoint: &Path) -> Result<f64> {
    let net = Checkpoint::load(checkpoint)?.network(&Device::Cpu)?;
    let begun = Instant::now();
    let archive = Archive::open(&ZarrSource::new(store))?;
    let mut frames = 0;
    for (sensor, known) in archive.sensors().iter().enumerate() {
        let mut ring = VecDeque::new();
        for frame in 0..archive.times(sensor).len() {
            let Frame { sensor, valid_time, offset, shape, data, replay, .. } =
                archive.read(sensor, frame)?;
            let (data, filled, restart) = (Rc::new(data), false, false);
            let admitted =
                Admitted { sensor, valid_time, offset, shape, data, filled, replay, restart };
            let cropped = crop(admitted, known, &net.config);
            let features = encode(&net, &cropped)?;
            ring.push_back((cropped, features));
            if ring.len() > net.config.history {
                ring.pop_front();
            }
            if ring.len() == net.config.history {
                forecast(&net, &ring)?;
            }
            frames += 1;
        }
    }
    Ok(f64::from(frames) / begun.elapsed().as_secs_f64())
}

fn encode(net: &PhysicNet, cropped: &Cropped) -> Result<Features> {
    let encoder = net.encoder.as_ref().ok_or_else(|| anyhow!("the network encodes nothing"))?;
    let features = encoder.forward(&model_input(cropped, &net.device)?)?;
    if let Some(codebook) = &net.codebook {
        codebook.codes(&features.latent)?;
    }
    Ok(features)
}

/// What the experts' and the fusion's operators do, without them.
fn forecast(net: &PhysicNet, ring: &VecDeque<(Cropped, Features)>) -> Result<Vec<f32>> {
    let planes: Vec<_> = ring.iter().map(|(c, _)| Rc::clone(&c.values)).collect();
    let (newest, previous) = (fill_missing(&planes), fill_missing(&planes[..planes.len() - 1]));
    let extent = ring[0].0.extent;
    let (h, w) = (extent.height, extent.width);
    let transform = &net.config.variables[0].transform;
    let flow = between(&newest, &previous, h, w, transform, net.config.boundary);
    let newest = Tensor::from_vec(newest, (1, h, w, 1), &net.device)?;
    let flow = Tensor::from_vec(flow, (1, h, w, 2), &net.device)?;
    let prior = net.prior(&flow)?;
    let latents: Vec<_> = ring.iter().map(|(_, f)| f.latent.clone()).collect();
    let known = Known { latents: &latents, newest: &newest, flow: &flow, prior: &prior };
    let carried = net.experts.forward(&known)?;
    warp(&newest, &prior, net.config.boundary)?;
    let skip = ring.back().map(|(_, f)| f.skip.clone());
    let fused = net.fusion.forward(&carried, skip.as_ref(), &newest, &[])?;
    Ok(fused.mean.flatten_all()?.to_vec1()?)
}

/// Milliseconds to encode a new frame and to forecast from it, by the length of the window.
fn new_frame(history: usize) -> Result<(f64, f64)> {
    let net = network(history)?.network(&Device::Cpu)?;
    let simulated: SyntheticSource = parse("field: {kind: navier_stokes}\nframes: 1", false)?;
    let known = Arc::clone(&simulated.sensors()?[0]);
    let frame = physicnet_connectors::synthetic::Recording::new(&simulated, 0)?
        .next_frame()?
        .ok_or_else(|| anyhow!("no frame"))?;
    let Frame { sensor, valid_time, offset, shape, data, replay, .. } = frame;
    let (data, filled, restart) = (Rc::new(data), false, false);
    let admitted = Admitted { sensor, valid_time, offset, shape, data, filled, replay, restart };
    let cropped = crop(admitted, &known, &net.config);
    let mut ring = VecDeque::new();
    for _ in 0..history {
        ring.push_back((cropped.clone(), encode(&net, &cropped)?));
    }
    let median = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..15 {
            let begun = Instant::now();
            work()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[7])
    };
    let encoding = median(&mut || encode(&net, &cropped).map(drop))?;
    let rest = median(&mut || forecast(&net, &ring).map(drop))?;
    Ok((encoding, rest))
}

/// The largest resident size so far, where the system tells it.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
