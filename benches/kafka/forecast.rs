//! Kafka to forecast to Kafka, exactly once: a job beside its peers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use crate::job::{Process, Who};
use crate::topic::{Observer, Sender, Topic};
use crate::{Asked, header, quantile, row, say};

pub(crate) const SENSORS: usize = 8;
const PARTITIONS: i32 = 4;
/// Seconds of frames at a rate.
pub(crate) const PACED: f64 = 15.0;
const LONG: Duration = Duration::from_secs(300);

/// One run of one of them.
struct Run {
    per_second: f64,
    cpu_ms: f64,
    p50: f64,
    p99: f64,
    peak: f64,
}

pub(crate) fn forecast(asked: &Asked) -> Result<Value> {
    let Asked { side, workers, rate, model, .. } = asked;
    say(&format!(
        "\nKafka to forecast to Kafka, exactly once: {}, {side} x {side}, {SENSORS} sensors, \
         {PARTITIONS} partitions, {} leads, {workers} workers; latency at {rate} frames/s\n",
        model.name, model.horizon
    ))?;
    let figures: [Figure<Run>; 5] = [
        ("frames/s", |run| run.per_second),
        ("CPU ms a frame", |run| run.cpu_ms),
        ("p50 ms", |run| run.p50),
        ("p99 ms", |run| run.p99),
        ("peak MiB", |run| run.peak),
    ];
    compare(asked, &figures, run)
}

/// What is told of a run, and its name.
type Figure<R> = (&'static str, fn(&R) -> f64);

/// Ours and its peers in turn, and a table beside each peer.
fn compare<R>(
    asked: &Asked,
    figures: &[Figure<R>],
    run: impl Fn(&Asked, Who, usize) -> Result<R>,
) -> Result<Value> {
    let peers = if asked.python.is_some() { asked.model.peers } else { &[] };
    let mut ours = Vec::new();
    let mut others: Vec<Vec<R>> = peers.iter().map(|_| Vec::new()).collect();
    // A broker that has just started compiles its own code for a while: the first does not count.
    run(asked, Who::Ours, asked.pairs)?;
    for pair in 0..asked.pairs {
        ours.push(run(asked, Who::Ours, pair)?);
        for (peer, runs) in peers.iter().zip(&mut others) {
            runs.push(run(asked, Who::Peer(peer), pair)?);
        }
    }
    let mut told = Map::new();
    for (peer, runs) in peers.iter().zip(&others) {
        header(peer)?;
        let mut table = Map::new();
        for (name, figure) in figures {
            let [own, other] =
                [&ours, runs].map(|runs| runs.iter().map(figure).collect::<Vec<_>>());
            table.insert((*name).into(), row(name, &own, &other)?);
        }
        told.insert((*peer).into(), table.into());
    }
    Ok(told.into())
}

fn topics(asked: &Asked, name: &str) -> Result<(Topic, Topic)> {
    let from = Topic::make(&asked.brokers, &format!("{name}-frames"), PARTITIONS, &[])?;
    Ok((from, Topic::make(&asked.brokers, &format!("{name}-forecasts"), PARTITIONS, &[])?))
}

fn run(asked: &Asked, who: Who, pair: usize) -> Result<Run> {
    let name = format!("e2e-{}-{pair}-{who}", std::process::id());
    let mut running = Running::start(asked, who, &name, SENSORS)?;
    let (per_second, cpu_ms) = running.saturate(asked.frames)?;
    let [p50, p99] = running.pace(asked.rate, PACED)?;
    let peak = running.process.peak()?;
    say(&format!(
        "  {who}: {per_second:.1} frames/s, {cpu_ms:.2} ms of CPU a frame, p50 {p50} ms, p99 \
         {p99} ms, peak {peak:.0} MiB"
    ))?;
    Ok(Run { per_second, cpu_ms, p50, p99, peak })
}

/// A process that forecasts, warm, and who feeds and watches it.
pub(crate) struct Running {
    process: Process,
    sender: Sender,
    observer: Observer,
    from: Topic,
    _to: Topic,
    history: usize,
    /// Forecasts of all sensors so far.
    due: usize,
}

impl Running {
    pub(crate) fn start(asked: &Asked, who: Who, name: &str, sensors: usize) -> Result<Self> {
        let history = asked.model.history;
        let (from, to) = topics(asked, name)?;
        let mut sender = Sender::new(&asked.brokers, asked.side, sensors)?;
        let mut observer = Observer::new(&to)?;
        let process = Process::start(asked, who, name, &from, &to)?;
        // Some forecasts of every sensor.
        for _ in 0..history + 3 {
            sender.send(&from)?;
        }
        sender.flush()?;
        let due = sensors * 4;
        observer.wait(due, LONG)?;
        Ok(Self { process, sender, observer, from, _to: to, history, due })
    }

    /// Frames a second and milliseconds of CPU a frame, where all are there before it looks.
    pub(crate) fn saturate(&mut self, frames: usize) -> Result<(f64, f64)> {
        self.process.signal("STOP")?;
        let steps = frames / self.sender.sensors();
        for _ in 0..steps {
            self.sender.send(&self.from)?;
        }
        self.sender.flush()?;
        let frames = steps * self.sender.sensors();
        self.due += frames;
        let cpu = self.process.cpu()?;
        let begun = Instant::now();
        self.process.signal("CONT")?;
        self.observer.wait(self.due, LONG)?;
        let per_second = frames as f64 / begun.elapsed().as_secs_f64();
        Ok((per_second, 1e3 * (self.process.cpu()? - cpu) / frames as f64))
    }

    /// The median and the 99th percentile of milliseconds from a frame to its forecast, at `rate`
    /// frames a second of all sensors together.
    pub(crate) fn pace(&mut self, rate: f64, seconds: f64) -> Result<[f64; 2]> {
        let sensors = self.sender.sensors();
        let skip = self.due / sensors;
        let pause = Duration::from_secs_f64(sensors as f64 / rate);
        let steps = (seconds / pause.as_secs_f64()).ceil() as usize;
        let begun = Instant::now();
        for step in 0..steps {
            let at = begun + pause * step as u32;
            while Instant::now() < at {
                let left = at.saturating_duration_since(Instant::now());
                self.observer.look(left.min(Duration::from_millis(20)))?;
            }
            self.sender.send(&self.from)?;
        }
        self.due += steps * sensors;
        self.observer.wait(self.due, LONG)?;
        let stamps = self.from.stamps()?;
        let mut latencies = Vec::new();
        for (key, seen) in &self.observer.seen {
            // The n-th forecast of a sensor starts from the frame that fills its window.
            let begun = stamps[key].iter().skip(self.history - 1);
            ensure!(begun.len() == seen.len(), "{} forecasts of {}", seen.len(), begun.len());
            let pairs = seen.iter().zip(begun).skip(skip);
            latencies.extend(pairs.map(|(seen, begun)| (seen - begun) as f64));
        }
        Ok([0.5, 0.99].map(|at| quantile(latencies.clone(), at)))
    }
}

/// Start, restart and rest.
pub(crate) fn start(asked: &Asked) -> Result<Value> {
    say(
        "\nSeconds from the start of the process to the first committed forecast, and what an idle one takes\n",
    )?;
    let figures: [Figure<[f64; 4]>; 4] = [
        ("start s", |run| run[0]),
        ("restart after SIGKILL s", |run| run[1]),
        ("idle CPU %", |run| run[2]),
        ("idle MiB", |run| run[3]),
    ];
    compare(asked, &figures, start_of)
}

fn start_of(asked: &Asked, who: Who, pair: usize) -> Result<[f64; 4]> {
    let history = asked.model.history;
    let name = format!("start-{}-{pair}-{who}", std::process::id());
    let (from, to) = topics(asked, &name)?;
    let mut sender = Sender::new(&asked.brokers, asked.side, SENSORS)?;
    for _ in 0..history {
        sender.send(&from)?;
    }
    sender.flush()?;
    let mut observer = Observer::new(&to)?;
    let first = |observer: &mut Observer| -> Result<f64> {
        let (begun, had) = (Instant::now(), observer.count);
        while observer.count == had {
            ensure!(begun.elapsed() < LONG, "no forecast comes");
            observer.look(Duration::from_millis(20))?;
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    let process = Process::start(asked, who, &name, &from, &to)?;
    let started = first(&mut observer)?;
    observer.wait(SENSORS, LONG)?;
    // At rest.
    std::thread::sleep(Duration::from_secs(2));
    let cpu = process.cpu()?;
    std::thread::sleep(Duration::from_secs(10));
    let idle = (process.cpu()? - cpu) * 10.0;
    let resident = process.resident()?;
    process.signal("KILL")?;
    drop(process);
    // The peer keeps no windows over a restart: it needs a frame more.
    for _ in 0..history {
        sender.send(&from)?;
    }
    sender.flush()?;
    let _process = Process::start(asked, who, &name, &from, &to)?;
    let restarted = first(&mut observer)?;
    say(&format!(
        "  {who}: start {started:.2} s, restart {restarted:.2} s, idle {idle:.2} % of a core, \
         {resident:.0} MiB"
    ))?;
    Ok([started, restarted, idle, resident])
}
