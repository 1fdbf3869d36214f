//! Whether reading keeps anybody waiting: training and a back-test, beside reading alone.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use physicnet::config::{Job, parse};
use physicnet::evaluate::{Period, Wanted, evaluate};
use physicnet::training::{Seconds, TrainConfig, train};
use physicnet_connectors::synthetic::SyntheticSource;
use physicnet_connectors::zarr::{Archive, ZarrSource};
use physicnet_stream::Stop;

use super::say;

/// Turbulence of eight small sensors, and rain of one large radar, as their configs train them.
const SETS: [(&str, &str, &str); 2] = [
    (
        "8 sensors of 64 x 64, whole frames",
        "{field: {kind: navier_stokes, size: 64}, sensors: 8, frames: 60, seed: 3}",
        "model: {boundary: periodic, history: 10, horizon: 10}, split: {by: sensor, train: 0.75, validation: 0.25}",
    ),
    (
        "1 radar of 256 x 256, views of 128",
        "{field: {kind: rain, height: 256, width: 256}, sensors: 1, frames: 120, seed: 3}",
        "model: {history: 4, horizon: 12}, split: {train: 0.6, validation: 0.2}, crop: 128",
    ),
];

pub(crate) fn reading(at: &Path) -> Result<()> {
    say(
        "reading: seconds that were waited for it, of all; and of reading every frame, nothing else",
    )?;
    for (set, (name, simulated, training)) in SETS.into_iter().enumerate() {
        let store = at.join(format!("reading{set}.zarr"));
        let simulated: SyntheticSource = parse(simulated, false)?;
        physicnet::simulate::simulate(&simulated, &store, &Stop::default())?;
        say(&format!("  {name}"))?;
        let text = format!(
            "{{data: [{{path: '{}'}}], out: '{}', steps: 40, validate_every: 20, threads: 2, {training}}}",
            store.display(),
            at.join(format!("trained{set}")).display()
        );
        let config: TrainConfig = parse(&text, false)?;
        let summary = train(&config, &Stop::default(), &mut |_| ())?;
        let Seconds { all, waited, read } = summary.seconds;
        say(&format!(
            "    training, 40 steps on 2 threads: {all:.1} s, windows waited for {waited:.2} s, \
             reading took {read:.3} s of the loader"
        ))?;
        let alone = alone(&store)?;
        for workers in [1, 2] {
            let text = format!(
                "sources: [{{type: zarr, path: '{}'}}]\nmodel: {{checkpoint: '{}'}}\nworkers: {workers}",
                store.display(),
                summary.checkpoint.display()
            );
            let job: Job = parse(&text, false)?;
            let begun = Instant::now();
            evaluate(&job, &Period::default(), &Wanted::default(), &Stop::default())?;
            let all = begun.elapsed().as_secs_f64();
            say(&format!(
                "    back-test, {workers} workers: reading alone takes {alone:.3} s, all of it {all:.1} s: {:.1} %",
                100.0 * alone / all
            ))?;
        }
    }
    Ok(())
}

/// Seconds to read and decode every frame, in the order of a job.
fn alone(store: &Path) -> Result<f64> {
    let begun = Instant::now();
    let archive = Archive::open(&ZarrSource::new(store))?;
    for frame in 0..archive.times(0).len() {
        for sensor in 0..archive.sensors().len() {
            archive.read(sensor, frame)?;
        }
    }
    Ok(begun.elapsed().as_secs_f64())
}
