//! How long each convolution of a network takes by itself, on one thread.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use physicnet_operators::layers::{Boundary, Conv, Start};
use physicnet_operators::model::Checkpoint;

/// For how long each is called.
const TURN: Duration = Duration::from_millis(200);

/// Prints `NAME SIDE IN OUT KERNEL SECONDS` of each of its convolutions over a frame of `side` pixels
/// a side: the median of the calls, padding included.
pub(crate) fn print(checkpoint: &Checkpoint, side: usize) -> Result<()> {
    for (name, weight) in &checkpoint.weights {
        let (Some(name), &[cout, cin, k, _]) = (name.strip_suffix(".weight"), weight.dims()) else {
            continue;
        };
        // Those by two, the others by four; `local` ones are left out.
        let folded = match name {
            "encoding.stem" | "fusion.mix" | "fusion.residual" | "fusion.sharp.residual" => 2,
            _ if name.contains("local") => continue,
            _ => 4,
        };
        let bias = Tensor::zeros(cout, DType::F32, &Device::Cpu)?;
        let weights = [("weight", weight.clone()), ("bias", bias)];
        let weights = weights.map(|(name, tensor)| (name.to_owned(), tensor)).into();
        let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let conv = Conv::new(cin, cout, k, Boundary::Periodic, Start::He, vb)?;
        let side = side / folded;
        let frame = Tensor::ones((1, side, side, cin), DType::F32, &Device::Cpu)?;
        conv.forward_relu(&frame)?;
        let (begun, mut seconds) = (Instant::now(), Vec::new());
        while begun.elapsed() < TURN {
            let call = Instant::now();
            conv.forward_relu(&frame)?;
            seconds.push(call.elapsed());
        }
        seconds.sort_unstable();
        let median = seconds.get(seconds.len() / 2).context("no call ended")?.as_secs_f64();
        writeln!(std::io::stdout(), "{name} {side} {cin} {cout} {k} {median}")?;
    }
    Ok(())
}
