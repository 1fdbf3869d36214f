//! An expert of one's own in the bank, scored beside those of the house.

use std::io::Write;

use anyhow::Result;
use candle_core::Tensor;
use physicnet::config::{Job, parse};
use physicnet::engine;
use physicnet::evaluate::{Report, table};
use physicnet_operators::experts::{Known, Member};
use physicnet_operators::model::{Expert, ModelConfig};
use physicnet_operators::scoring::{Metrics, Span};
use physicnet_stream::Stop;

/// Simulated rain, an advection model, and what is verified.
const JOB: &str = "
sources:
  - {type: synthetic, frames: 40, seed: 3, field: {kind: rain, height: 64, width: 64}}
model: {untrained: {history: 3, horizon: 6, expert: advection}}
scoring: {}
";

/// Advection that trusts itself less the further it looks: it fades into the mean of the window.
struct Fading {
    /// The share of the carried field that is lost with every lead, 0 to 1.
    rate: f64,
}

impl Member for Fading {
    fn forecast(&self, known: &Known, config: &ModelConfig) -> candle_core::Result<Tensor> {
        let carried = Expert::Advection.forecast(known, config)?;
        let mut mean = known.newest.clone();
        for past in known.past {
            mean = (mean + past)?;
        }
        let mean = (mean / (1 + known.past.len()) as f64)?;
        let channels = config.variables.len();
        let lead = |lead: usize| {
            let share = (1.0 - self.rate).powi(lead as i32 + 1);
            let carried = carried.narrow(3, lead * channels, channels)?;
            (carried * share)? + (&mean * (1.0 - share))?
        };
        Tensor::cat(&(0..config.horizon).map(lead).collect::<candle_core::Result<Vec<_>>>()?, 3)
    }
}

/// The scores of every product over the simulation.
pub(crate) fn score() -> Result<Report> {
    let job: Job = parse(JOB, false)?;
    let mut parts = job.open()?;
    parts.bank.add("fading", Fading { rate: 0.1 })?;
    let totals = parts.totals.clone();
    engine::run(parts, &job.cluster(), &Stop::default())?;
    let rain = ("precip_rate".to_owned(), "mm h-1".to_owned(), Metrics::usual("mm h-1"));
    Ok(Report::new("none", &totals.over(Span::All), &[rain]))
}

fn main() -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", table(&score()?))?)
}
