//! How far a run is: a line on a terminal, plain lines elsewhere, and a table on disk.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::step::Losses;
use super::validation::Scores;

/// Seconds between plain lines.
const QUIET: Duration = Duration::from_secs(20);

/// The bar's length: a run may be bounded by steps or by the clock.
const UNITS: u64 = 1000;

/// Writes what the loop tells it.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    metrics: File,
    validations: File,
    sum: Losses,
    steps: u64,
    frames: u64,
    since: Instant,
    spoke: Option<Instant>,
}

/// One step, as progress sees it.
pub(crate) struct Tick {
    pub(crate) step: u64,
    pub(crate) fraction: f64,
    pub(crate) seconds: f64,
    pub(crate) lr: f64,
    pub(crate) norm: f64,
    pub(crate) frames: u64,
}

impl Progress {
    /// Opens the tables in `out`, keeping the rows of the first `step` steps.
    pub(crate) fn open(out: &Path, step: u64) -> Result<Self> {
        let names = Losses::default().parts().map(|(name, _)| name).join(",");
        let head = format!("step,seconds,lr,loss,{names},gradient_norm,frames_per_second");
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {percent:>3} % {msg}");
            ProgressBar::new(UNITS).with_style(style.unwrap_or(ProgressStyle::default_bar()))
        });
        Ok(Self {
            bar,
            metrics: table(out.join("metrics.csv"), &head, step)?,
            validations: table(out.join("validation.csv"), "step,product,metric,value", step)?,
            sum: Losses::default(),
            steps: 0,
            frames: 0,
            since: Instant::now(),
            spoke: None,
        })
    }

    /// Takes in a step; every `log_every` steps it speaks.
    pub(crate) fn tick(
        &mut self,
        tick: &Tick,
        losses: &Losses,
        log_every: u64,
        log: &mut dyn FnMut(&str),
    ) -> Result<()> {
        self.sum.add(losses, 1.0);
        self.steps += 1;
        self.frames += tick.frames;
        if self.steps < log_every && tick.fraction < 1.0 {
            return Ok(());
        }
        let mut mean = Losses::default();
        mean.add(&self.sum, 1.0 / self.steps as f64);
        let rate = self.frames as f64 / self.since.elapsed().as_secs_f64().max(1e-9);
        let Tick { step, fraction, seconds, lr, norm, frames: _ } = tick;
        let parts = mean.parts().map(|(_, value)| format!("{value:.6}")).join(",");
        let total = mean.total();
        writeln!(
            self.metrics,
            "{step},{seconds:.1},{lr:.3e},{total:.6},{parts},{norm:.4},{rate:.1}"
        )?;
        self.metrics.flush()?;
        let shown = mean.parts().into_iter().filter(|(_, value)| *value != 0.0);
        let shown: Vec<String> = shown.map(|(name, value)| format!("{name} {value:.4}")).collect();
        let left = seconds * (1.0 - fraction).max(0.0) / fraction.max(1e-9);
        let left = HumanDuration(Duration::from_secs_f64(left.clamp(0.0, 1e9)));
        let line = format!(
            "step {step} · loss {total:.4} ({}) · {rate:.0} frames/s · {left} left",
            shown.join(", ")
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position((fraction.min(1.0) * UNITS as f64) as u64);
                bar.set_message(line);
            }
            None if self.spoke.is_none_or(|at| at.elapsed() >= QUIET) || *fraction >= 1.0 => {
                self.spoke = Some(Instant::now());
                log(&line);
            }
            None => {}
        }
        (self.sum, self.steps, self.frames) = (Losses::default(), 0, 0);
        self.since = Instant::now();
        Ok(())
    }

    /// Takes in a validation.
    pub(crate) fn validated(
        &mut self,
        step: u64,
        scores: &Scores,
        best: bool,
        log: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let mut shown = Vec::new();
        for (name, value) in scores {
            let (product, metric) = name.split_once('/').unwrap_or((name, ""));
            writeln!(self.validations, "{step},{product},{metric},{value:.6}")?;
            if metric == "mse" {
                shown.push(format!("{product} {value:.4}"));
            }
        }
        self.validations.flush()?;
        let best = if best { ", the best so far" } else { "" };
        self.say(&format!("step {step} · validation MSE: {}{best}", shown.join(", ")), log);
        // Validation is no training time.
        self.since = Instant::now();
        Ok(())
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str, log: &mut dyn FnMut(&str)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| log(line)),
            None => log(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A table with its first rows kept: those of steps that a resumed run does not take again.
fn table(path: PathBuf, head: &str, step: u64) -> Result<File> {
    let kept = match std::fs::read_to_string(&path) {
        Ok(text) if step > 0 => {
            let of = |row: &str| row.split(',').next().and_then(|cell| cell.parse::<u64>().ok());
            let rows = text.lines().filter(|row| of(row).is_some_and(|at| at <= step));
            rows.fold(String::new(), |all, row| all + row + "\n")
        }
        _ => String::new(),
    };
    let write = || -> std::io::Result<File> {
        let mut file = File::create(&path)?;
        write!(file, "{head}\n{kept}")?;
        Ok(file)
    };
    write().with_context(|| format!("{}: cannot write it", path.display()))
}
