//! The learning rate, found by trying: a short run in which it grows step by step.
//!
//! Smith (2017, arXiv 1506.01186). Batches differ more from one another than a step changes them, so
//! what is looked at is the loss of each batch over what the start weights say of the same one.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use physicnet_stream::Stop;

use super::ahead::Ahead;
use super::config::TrainConfig;
use super::run::{Astray, Halted, Run};
use super::threads::on_threads;
use super::{enter, open};
use crate::render::{AxisOf, Chart, Curve, plot};

/// Steps of a sweep, and where it begins and ends.
const STEPS: u64 = 100;
const RATES: [f64; 2] = [1e-6, 1.0];
/// A loss so many times that of the start weights has diverged.
const DIVERGED: f64 = 4.0;
/// Steps to either side over which it is smoothed.
const SMOOTH: usize = 4;

/// What a sweep found.
#[derive(Clone, Debug)]
pub struct Swept {
    /// A tenth of the largest rate that still lowers the smoothed loss; `None` where none does.
    pub suggested: Option<f64>,
    /// Where the loss stopped being finite or became four times that of the start; `None`
    /// where it did not.
    pub diverged: Option<f64>,
    /// The rates and losses as CSV.
    pub csv: PathBuf,
    /// The same as a picture.
    pub picture: PathBuf,
}

/// Tries learning rates from the weights that `config` starts from, growing by the same factor each
/// step, and leaves `learning_rate.csv` and `learning_rate.png` in `out`. Nothing else is
/// written; a state that is there is not looked at. `log` is told of every step.
///
/// # Errors
/// When the data or the config do not fit, or a file cannot be written.
pub fn find_rate(
    config: &TrainConfig,
    stop: &Stop,
    log: &mut dyn FnMut(u64, u64),
) -> Result<Swept> {
    let config = &TrainConfig { resume: false, steps: STEPS + 1, ..config.clone() };
    let (data, model, init) = open(config)?;
    let _lock = enter(config)?;
    let mut run = Run::new(config, model, Arc::new(data), init)?;
    let (data, model) = (Arc::clone(&run.data), run.model.clone());
    let tried = std::thread::scope(|scope| {
        let ahead = Ahead::begin(scope, &data, config, &model, 0..config.steps);
        sweep(&mut run, config, &ahead, stop, log)
    })?;
    let (csv, picture) =
        (config.out.join("learning_rate.csv"), config.out.join("learning_rate.png"));
    let smoothed = smooth(&tried);
    let suggested = tenth_of_largest(&tried, &smoothed);
    let mut text = "learning_rate,loss,of_start,smoothed\n".to_owned();
    for (Tried { rate, loss, ratio }, smoothed) in tried.iter().zip(&smoothed) {
        let _ = writeln!(text, "{rate},{loss},{ratio},{smoothed}");
    }
    std::fs::write(&csv, text).with_context(|| format!("{}: cannot write it", csv.display()))?;
    draw(&tried, &smoothed, suggested).save(&picture)?;
    let diverged = tried.iter().find(|t| !within(t.ratio)).map(|t| t.rate);
    Ok(Swept { suggested, diverged, csv, picture })
}

/// One step of a sweep.
struct Tried {
    rate: f64,
    /// The loss before the step.
    loss: f64,
    /// The same over that of the start weights.
    ratio: f64,
}

fn within(ratio: f64) -> bool {
    ratio.is_finite() && ratio < DIVERGED
}

fn sweep(
    run: &mut Run,
    config: &TrainConfig,
    ahead: &Ahead,
    stop: &Stop,
    log: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Tried>> {
    // A step of no length: it fills the codebook, which is no merit of any rate.
    run.step(&ahead.next()?.0, 0.0, &Stop::default())?;
    let start = run.checkpoint(&run.optimiser.weights)?.network(&run.device)?;
    let mut tried: Vec<Tried> = Vec::new();
    while (tried.len() as u64) < STEPS && !stop.stopped() {
        let along = tried.len() as f64 / (STEPS - 1) as f64;
        let rate = RATES[0] * (RATES[1] / RATES[0]).powf(along);
        let (batch, _) = ahead.next()?;
        let before = on_threads(config.threads, &batch, |sample| {
            Ok(run.loss.of(&start.forward(&sample.batch)?, sample)?.parts[0].1)
        });
        let before = before.into_iter().sum::<Result<f64>>()? / batch.len() as f64;
        let loss = match run.step(&batch, rate, stop) {
            Ok(parts) => parts.loss[0].1,
            Err(error) if error.is::<Halted>() => break,
            Err(error) if error.is::<Astray>() => f64::INFINITY,
            Err(error) => return Err(error),
        };
        let ratio = loss / before.max(1e-12);
        tried.push(Tried { rate, loss, ratio });
        log(tried.len() as u64, STEPS);
        if !within(ratio) {
            break;
        }
    }
    Ok(tried)
}

/// The medians over some steps to either side: one hard batch must not hide what the others say.
fn smooth(tried: &[Tried]) -> Vec<f64> {
    let median = |at: usize| {
        let near = at.saturating_sub(SMOOTH)..(at + SMOOTH + 1).min(tried.len());
        let mut near: Vec<f64> = tried[near].iter().map(|t| t.ratio).collect();
        near.sort_unstable_by(f64::total_cmp);
        near[near.len() / 2]
    };
    (0..tried.len()).map(median).collect()
}

/// A tenth of the largest rate whose smoothed loss is still below that of the start weights; `None`
/// where none is below it by at least a little: a network that starts as its expert has far to go.
fn tenth_of_largest(tried: &[Tried], smoothed: &[f64]) -> Option<f64> {
    let least = smoothed.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = smoothed.iter().rposition(|ratio| *ratio < 1.0)?;
    // As a rate of the sweep, so that the picture and the table have it.
    let target = tried[largest].rate / 10.0;
    let near = |t: &&Tried| (t.rate / target).ln().abs();
    let nearest = tried.iter().min_by(|a, b| near(a).total_cmp(&near(b)))?;
    (least < 0.998).then_some(nearest.rate)
}

fn draw(tried: &[Tried], smoothed: &[f64], suggested: Option<f64>) -> crate::render::Picture {
    let curve = |name: &str, value: &dyn Fn(usize) -> f64| Curve {
        name: name.to_owned(),
        points: (0..tried.len()).map(|at| (tried[at].rate, value(at))).collect(),
    };
    let each = curve("each batch", &|at| tried[at].ratio);
    let curves = vec![each, curve("smoothed", &|at| smoothed[at])];
    // What diverges leaves the picture, or nothing else would be seen.
    let shown = curves[0].points.iter().map(|(_, value)| *value).filter(|value| *value < 1.5);
    let chart = Chart {
        x: AxisOf::decades("learning rate", RATES[0], RATES[1]),
        y: AxisOf::holding("loss / loss of the start weights", shown),
        curves,
        marked: suggested,
    };
    let title = suggested.map_or("no rate lowers the loss".to_owned(), |rate| {
        format!("a tenth of the largest that lowers the loss: {rate:.1e}")
    });
    plot(&title, &[chart])
}
