//! A job at full rate for long: does its memory stay?

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::job::{Process, Who};
use crate::topic::{Observer, Sender, Topic};
use crate::{Asked, say};

/// Frames that wait for the job: it never waits for them.
const AHEAD: usize = 256;
const SENSORS: usize = 8;
/// What counts as flat, in MiB an hour.
const FLAT: f64 = 16.0;

pub(crate) fn soak(asked: &Asked) -> Result<Value> {
    let Asked { side, workers, minutes, .. } = asked;
    say(&format!(
        "\nSoak: {minutes} minutes, {side} x {side}, {SENSORS} sensors, {workers} workers\n"
    ))?;
    let name = format!("soak-{}", std::process::id());
    // The brokers keep no more than they must.
    let short = [("retention.bytes", "268435456"), ("segment.bytes", "67108864")];
    let from = Topic::make(&asked.brokers, &format!("{name}-frames"), 4, &short)?;
    let to = Topic::make(&asked.brokers, &format!("{name}-forecasts"), 4, &short)?;
    let mut sender = Sender::new(&asked.brokers, *side, SENSORS)?;
    let mut observer = Observer::new(&to)?;
    let process = Process::start(asked, Who::Ours, &name, &from, &to)?;
    let (begun, length) = (Instant::now(), Duration::from_secs_f64(60.0 * minutes));
    let every = (length / 120).max(Duration::from_secs(1));
    let (mut sent, mut samples, mut next) = (0, Vec::new(), begun + every);
    while begun.elapsed() < length {
        while sent < observer.count + SENSORS * (asked.model.history - 1) + AHEAD {
            sender.send(&from)?;
            sent += sender.sensors();
        }
        let had = observer.count;
        observer.look(Duration::from_millis(20))?;
        for key in observer.seen.values_mut() {
            key.clear();
        }
        if Instant::now() >= next {
            next += every;
            let hours = begun.elapsed().as_secs_f64() / 3600.0;
            samples.push((hours, process.resident()?, observer.count));
            ensure!(had > 0, "nothing comes");
        }
    }
    // The first third is start-up: pools and caches fill.
    let settled = &samples[samples.len() / 3..];
    let (slope, error) = line(settled);
    let (least, most) = settled
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), (_, mib, _)| (least.min(*mib), most.max(*mib)));
    let rate = observer.count as f64 / begun.elapsed().as_secs_f64();
    // Within two errors either way.
    let verdict = match (slope.abs() + 2.0 * error < FLAT, slope.abs() - 2.0 * error < FLAT) {
        (true, _) => "flat",
        (false, true) => "not decided",
        (false, false) => "not flat",
    };
    let peak = process.peak()?;
    say(&format!(
        "  {rate:.1} forecasts/s; resident {least:.1} to {most:.1} MiB, peak {peak:.1}; slope \
         {slope:+.1} MiB an hour with an error of {error:.1}: {verdict}"
    ))?;
    let series: Vec<Value> =
        samples.iter().map(|(hours, mib, count)| json!([hours * 3600.0, mib, count])).collect();
    Ok(json!({
        "minutes": minutes, "forecasts_per_second": rate, "slope_mib_per_hour": slope,
        "error_mib_per_hour": error, "verdict": verdict, "peak_mib": peak, "seconds_mib_forecasts": series,
    }))
}

/// The slope of the straight line with the least squared error, and its standard error, widened as
/// far as neighbours go astray together.
fn line(samples: &[(f64, f64, usize)]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64, usize)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|s| s.0), mean(|s| s.1));
    let spread: f64 = samples.iter().map(|s| (s.0 - x).powi(2)).sum();
    let slope = samples.iter().map(|s| (s.0 - x) * (s.1 - y)).sum::<f64>() / spread;
    let astray: Vec<f64> = samples.iter().map(|s| s.1 - y - slope * (s.0 - x)).collect();
    let squared: f64 = astray.iter().map(|a| a * a).sum();
    let together: f64 = astray.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let together = (together / squared).clamp(0.0, 0.99);
    let widened = (1.0 + together) / (1.0 - together);
    (slope, (widened * squared / (count - 2.0) / spread).sqrt())
}
