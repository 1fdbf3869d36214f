//! Swapping a running job's model: asked for through a folder, decided by a trial.
//!
//! ```text
//! physicnet swap ─► request.json ─► attendant (a thread of process 0) ─► changes ─► appoint
//!                   state.json  ◄──    ▲                                             │
//!                                      └── trial ◄── scoring ◄── both forecasts ◄────┘
//! ```
//!
//! Whatever reads, checks or writes a file is the attendant's; the dataflow only hears of changes.

mod attendant;
mod changes;
mod folder;
mod suit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use physicnet_operators::model::{Checkpoint, Serve};
use physicnet_operators::scoring::{Score, ScoringConfig};
use physicnet_operators::swapping::{Rival, Trial, tally};
use physicnet_stream::{Forecast, Frame, Result, Sensor};
use timely::dataflow::StreamVec;

pub use folder::{Answer, Folder, Outcome, Request, Standing, State};
use suit::forecasts_alike;
pub use suit::replaces;

use crate::config::DriftSection;
use crate::telemetry::Telemetry;

/// A job's model and what may take its place.
#[derive(Clone)]
pub struct Swap {
    /// Where requests and answers lie.
    pub folder: Folder,
    /// The model that serves when the job starts.
    pub serving: Checkpoint,
    /// The file of the job's own model, if it has one.
    pub own: Option<PathBuf>,
    /// Which head is served, if not the one that the checkpoint says.
    pub serve: Option<Serve>,
    /// What goes out beside the served product.
    pub products: Vec<String>,
    /// Whom a model must suit.
    pub sensors: Vec<Arc<Sensor>>,
    /// What the job says of drift, for which a model may have to say what is usual.
    pub drift: DriftSection,
    /// What a trial is scored by.
    pub scoring: ScoringConfig,
    /// How the trial stands, if one is on.
    pub trial: Trial,
    /// Who is told.
    pub telemetry: Telemetry,
}

impl Swap {
    /// Reads the bytes of a candidate.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<Checkpoint> {
        serving(Checkpoint::from_bytes(bytes, "swap")?, self.serve)
    }

    /// Scores candidates beside what is served. Nothing that it says is waited for.
    pub(crate) fn judge<'scope>(
        &self,
        served: StreamVec<'scope, u64, Forecast>,
        candidates: StreamVec<'scope, u64, Forecast>,
        observed: StreamVec<'scope, u64, Frame>,
    ) -> StreamVec<'scope, u64, ()> {
        tally(served.beside(candidates).verify(observed, &self.scoring), &self.trial)
    }
}

/// A checkpoint under the job's own choice of a head.
///
/// # Errors
/// When the model has no such head.
pub(crate) fn serving(mut checkpoint: Checkpoint, serve: Option<Serve>) -> Result<Checkpoint> {
    if let Some(serve) = serve {
        checkpoint.config.serve = serve;
        checkpoint.config.check()?;
    }
    Ok(checkpoint)
}

/// Asks the job whose requests lie in `folder` for another model and waits for the answer; `tell`
/// hears how things stand meanwhile. The file keeps the last answer alone: whoever finds neither
/// his own nor his request was superseded.
///
/// # Errors
/// When the folder cannot be read or written.
pub fn ask(folder: &Folder, request: &Request, tell: &mut dyn FnMut(String)) -> Result<Answer> {
    let asked = folder.ask(request)?;
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        // First: the state says what became of a request before the request goes.
        let waits = folder.asked()? == Some(asked);
        let State { trial, last, .. } = folder.state()?;
        if let Some(answer) = last.filter(|answer| answer.asked == asked) {
            return Ok(answer);
        }
        match trial.filter(|standing| standing.asked == asked) {
            Some(Standing { model, frames, shadow_for, error_ratio, .. }) => {
                let error = error_ratio.map_or_else(String::new, |ratio| {
                    format!(", squared error {ratio:.3} of that of the model that serves")
                });
                tell(format!("model {model}: {frames} of {shadow_for} frames{error}"));
            }
            None if !waits => {
                let why = "another model was asked for".to_owned();
                return Ok(Answer { asked, outcome: Outcome::Superseded, why });
            }
            None if begun.elapsed() > Duration::from_secs(5) => {
                tell("no answer yet: it is given when the job runs".to_owned());
            }
            None => {}
        }
    }
}
