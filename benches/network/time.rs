//! How long the network takes, asked line by line: whoever asks can let others have their turn.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use physicnet_operators::experts::{Known, between};
use physicnet_operators::layers::{helped, join};
use physicnet_operators::model::{Batch, Checkpoint, PhysicNet};

/// Pixels that are computed together, as a stage on a CPU does.
const PIXELS: usize = 64 * 64;

/// Answers `WHAT SIDE BATCH THREADS CALLS` with the seconds of each call:
///
/// - `window`: whole windows, every frame encoded;
/// - `stream`: a new frame of each window, encoded, and its forecast;
/// - `flow`: the classical flow of each window, which is an input of both above;
/// - `gradient`: the gradients of the mean absolute error.
pub(crate) fn answer(checkpoint: &Checkpoint, device: Device) -> Result<()> {
    let net = checkpoint.network(&device)?;
    let trained = trained(checkpoint, &device)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, numbers @ ..] = words.as_slice() else { continue };
        let numbers = numbers.iter().map(|word| word.parse()).collect::<Result<Vec<usize>, _>>()?;
        let [side, batch, threads, calls] = numbers[..] else { bail!("{line}: four numbers") };
        let most = batch.div_ceil(threads);
        let together = if device.is_cpu() { (PIXELS / (side * side)).clamp(1, most) } else { most };
        let parts = batch.div_ceil(together);
        let windows = windows(&net, side, together)?;
        // A job composes the motion where it estimates it, in memory.
        let (seen, motion) = (windows.on(&device)?, &windows.flow);
        let features = encode(&net, &seen)?;
        let work = || -> Result<()> {
            match *what {
                "window" => forecast(&net, &seen, motion, &encode(&net, &seen)?)?,
                "stream" => {
                    let newest = encode(&net, &last(&seen)?)?;
                    let mut features = features.clone();
                    *features.latents.last_mut().context("no frame")? = newest.latents[0].clone();
                    features.skip = newest.skip;
                    forecast(&net, &seen, motion, &features)?;
                }
                "flow" => flow(&net, &windows)?,
                "gradient" => {
                    let mean = trained.forward(&seen)?.mean;
                    mean.abs()?.mean_all()?.backward()?;
                }
                _ => bail!("{what}: say window, stream, flow or gradient"),
            }
            Ok(device.synchronize()?)
        };
        let seconds = (0..calls).map(|_| {
            let begun = Instant::now();
            spread(threads, parts, &work)?;
            Ok(begun.elapsed().as_secs_f64().to_string())
        });
        let seconds = seconds.collect::<Result<Vec<_>>>()?.join(" ");
        writeln!(std::io::stdout(), "{seconds}")?;
    }
    Ok(())
}

/// Does the work so many times, on so many threads; on several, the idle ones help the others, as
/// in a job. There are to be as many cores, then.
fn spread(threads: usize, times: usize, work: &(impl Fn() -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let turns = || -> Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < times {
            work()?;
        }
        Ok(())
    };
    let turns = || if threads > 1 { helped(turns) } else { turns() };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(times)).map(|_| scope.spawn(turns)).collect();
        turns()?;
        others.into_iter().try_for_each(|other| match other.join() {
            Ok(told) => told,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// The network with weights that are trained.
fn trained(checkpoint: &Checkpoint, device: &Device) -> Result<PhysicNet> {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, device);
    let net = PhysicNet::new(&checkpoint.config, vb)?;
    let data = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    data.iter()
        .try_for_each(|(name, var)| var.set(&checkpoint.weights[name].to_device(device)?))?;
    Ok(net)
}

/// Windows of a drifting pattern under a flow that turns.
fn windows(net: &PhysicNet, side: usize, count: usize) -> Result<Batch> {
    let (history, channels) = (net.config.history, net.config.variables.len());
    let shape = (count, history, side, side, channels);
    let wave = |at: usize, speed: f32| {
        let pixel = at / channels % (side * side);
        let (y, x) = ((pixel / side) as f32, (pixel % side) as f32);
        (0.21 * x - speed).sin() + (0.17 * y + 0.05 * x).cos()
    };
    let step = |at: usize| (at / (side * side * channels) % history) as f32;
    let values = (0..count * history * side * side * channels).map(|at| wave(at, 0.3 * step(at)));
    let frames = Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)?;
    let turn = |at: usize| 2.0 * wave(at / 2 * channels, (at % 2) as f32);
    let flow: Vec<f32> = (0..count * side * side * 2).map(turn).collect();
    let flow = Tensor::from_vec(flow, (count, side, side, 2), &Device::Cpu)?;
    Ok(Batch { mask: frames.ones_like()?, frames, flow, view: None })
}

/// The newest frame of each window.
fn last(windows: &Batch) -> Result<Batch> {
    let last = |all: &Tensor| all.narrow(1, all.dim(1)? - 1, 1)?.contiguous();
    let (frames, mask) = (last(&windows.frames)?, last(&windows.mask)?);
    Ok(Batch { frames, mask, flow: windows.flow.clone(), view: None })
}

/// What is known of frames: latents by time, and the skip of the newest.
#[derive(Clone)]
struct Features {
    latents: Vec<Tensor>,
    skip: Tensor,
}

/// Each frame by itself, as a job has them.
fn encode(net: &PhysicNet, windows: &Batch) -> Result<Features> {
    let history = windows.frames.dim(1)?;
    let encoder = net.encoder.as_ref().context("the network encodes nothing")?;
    let every = (0..history).map(|t| {
        let at = |all: &Tensor| all.narrow(1, t, 1)?.squeeze(1)?.contiguous();
        let seen = join(&[at(&windows.frames)?, at(&windows.mask)?])?;
        Ok(encoder.forward(&seen, None)?)
    });
    let every = every.collect::<Result<Vec<_>>>()?;
    let skip = every.last().context("no frame")?.skip.clone();
    Ok(Features { latents: every.into_iter().map(|all| all.latent).collect(), skip })
}

fn forecast(net: &PhysicNet, windows: &Batch, motion: &Tensor, features: &Features) -> Result<()> {
    let newest = last(windows)?.frames.squeeze(1)?;
    let (flow, prior) = (&windows.flow, &net.prior(motion)?);
    let latents = &features.latents;
    let carried =
        net.experts.forward(&Known { latents, newest: &newest, past: &[], flow, prior })?;
    net.fusion.forward(&carried, Some(&features.skip), &newest, &[], None)?;
    Ok(())
}

fn flow(net: &PhysicNet, windows: &Batch) -> Result<()> {
    let (b, history, h, w, _) = windows.frames.dims5()?;
    let transform = &net.config.variables[0].transform;
    for window in 0..b {
        let plane = |t: usize| -> Result<Vec<f32>> {
            let plane = windows.frames.narrow(0, window, 1)?.narrow(1, t, 1)?;
            Ok(plane.narrow(4, 0, 1)?.flatten_all()?.to_vec1()?)
        };
        let (newest, previous) = (plane(history - 1)?, plane(history - 2)?);
        between(&newest, &previous, h, w, transform, net.config.boundary);
    }
    Ok(())
}
