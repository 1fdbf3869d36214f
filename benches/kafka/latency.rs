//! From a frame to its forecast: a job that idles, one that works, and one that is nearly full.

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::forecast::{PACED, Running, SENSORS};
use crate::job::Who;
use crate::{Asked, median, quantile, say};

/// Frames a second of one sensor, and for how many seconds, where the job idles.
const IDLE: f64 = 2.0;
const WATCHED: f64 = 30.0;
/// Of the frames a second that the job does where all wait before it begins.
const FULL: f64 = 0.8;

/// Frames a second, the median and the 99th percentile of milliseconds.
type Run = [f64; 3];

pub(crate) fn latency(asked: &Asked) -> Result<Value> {
    let Asked { side, workers, model, pairs, .. } = asked;
    say(&format!(
        "\nMilliseconds from a frame to its committed forecast: {}, {side} x {side}, {} leads, \
         {workers} workers, {pairs} runs\n",
        model.name, model.horizon
    ))?;
    // A broker that has just started compiles its own code for a while: the first does not count.
    loads(asked, 0)?;
    let runs: Vec<[Run; 3]> = (1..=*pairs).map(|run| loads(asked, run)).collect::<Result<_>>()?;
    say("| | frames/s | p50 | of the runs | p99 | of the runs |")?;
    say("| --- | --- | --- | --- | --- | --- |")?;
    let mut told = Map::new();
    for (load, name) in ["idle", "loaded", "nearly full"].into_iter().enumerate() {
        let [rates, p50, p99] =
            [0, 1, 2].map(|figure| runs.iter().map(|run| run[load][figure]).collect::<Vec<_>>());
        let ranged = |values: &[f64]| {
            let [least, middle, most] = [0.0, 0.5, 1.0].map(|at| quantile(values.to_vec(), at));
            format!("{middle} | {least} to {most}")
        };
        let (rate, low, high) = (median(rates.clone()), ranged(&p50), ranged(&p99));
        say(&format!("| {name} | {rate:.0} | {low} | {high} |"))?;
        told.insert(name.into(), json!({"frames/s": rates, "p50 ms": p50, "p99 ms": p99}));
    }
    Ok(told.into())
}

/// Each load once.
fn loads(asked: &Asked, run: usize) -> Result<[Run; 3]> {
    let start = |name: &str, sensors| {
        let name = format!("latency-{}-{run}-{name}", std::process::id());
        Running::start(asked, Who::Ours, &name, sensors)
    };
    let paced = |running: &mut Running, rate, seconds| -> Result<Run> {
        let [p50, p99] = running.pace(rate, seconds)?;
        say(&format!("  {rate:.0} frames/s: p50 {p50} ms, p99 {p99} ms"))?;
        Ok([rate, p50, p99])
    };
    let idle = paced(&mut start("idle", 1)?, IDLE, WATCHED)?;
    let mut running = start("loaded", SENSORS)?;
    let loaded = paced(&mut running, asked.rate, PACED)?;
    let (most, _) = running.saturate(asked.frames)?;
    Ok([idle, loaded, paced(&mut running, FULL * most, PACED)?])
}
