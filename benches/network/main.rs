//! The network by itself, beside its twin in Python (benches/peers/twin.py): the same weights, the
//! same windows.

mod case;
mod convolutions;
mod time;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use physicnet_connectors::zarr::{Archive, ZarrSource};
use physicnet_operators::model::{Checkpoint, PhysicNet, Processor};

const USAGE: &str = "bench-network case CHECKPOINT STORE FIRST FILE, convolutions CHECKPOINT SIDE, or time CHECKPOINT [DEVICE] (for scripts/bench)";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["case", checkpoint, store, first, file] => {
            let net = Checkpoint::load(Path::new(checkpoint))?.network(&Device::Cpu)?;
            from_store(&net, store, first.parse()?, Path::new(file))
        }
        ["time", checkpoint] => {
            time::answer(&Checkpoint::load(Path::new(checkpoint))?, Device::Cpu)
        }
        ["time", checkpoint, device] => {
            let device = device.parse::<Processor>().map_err(anyhow::Error::msg)?.device(0)?;
            time::answer(&Checkpoint::load(Path::new(checkpoint))?, device)
        }
        ["convolutions", checkpoint, side] => {
            convolutions::print(&Checkpoint::load(Path::new(checkpoint))?, side.parse()?)
        }
        _ => bail!("usage: {USAGE}"),
    }
}

/// The window of each sensor of a store that begins at a frame, as a case; with what came after it,
/// where the store goes on for so long.
fn from_store(net: &PhysicNet, store: &str, first: usize, file: &Path) -> Result<()> {
    let archive = Archive::open(&ZarrSource::new(store))?;
    let (history, horizon) = (net.config.history, net.config.horizon);
    let (mut windows, mut futures) = (Vec::new(), Vec::new());
    for sensor in 0..archive.sensors().len() {
        let there = archive.times(sensor).len();
        ensure!(first + history <= there, "{there} frames; {} are needed", first + history);
        let read = |frames: Range<usize>| -> Result<Vec<_>> {
            frames.map(|frame| Ok(archive.read(sensor, frame)?)).collect()
        };
        windows.push(read(first..first + history)?);
        if first + history + horizon <= there {
            futures.push(read(first + history..first + history + horizon)?);
        }
    }
    let sensor = archive.sensors().first().context("the store has no sensor")?;
    let known = futures.len() == windows.len();
    let target = known.then(|| case::target(net, sensor, &futures)).transpose()?;
    case::save(net, &case::batch(net, sensor, &windows)?, target, file)
}
