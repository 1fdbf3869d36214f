//! Who attends to requests: a thread, so that no frame waits for a disk.

use std::fs::File;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use physicnet_operators::model::Checkpoint;
use physicnet_operators::swapping::Change;

use super::folder::{Answer, Outcome, Request, Standing, State};
use super::{Swap, replaces, serving};
use crate::telemetry::Kind;

/// How often it looks for a request, and at the trial.
const LOOK: Duration = Duration::from_millis(100);

/// The thread's own.
pub(super) struct Attendant<W> {
    swap: Swap,
    send: Sender<Change>,
    wake: W,
    /// Gone when the dataflow is.
    job: Weak<()>,
    state: State,
    on_trial: Option<Candidate>,
}

/// What is on trial, and for which request.
struct Candidate {
    asked: u64,
    request: Request,
    checkpoint: Checkpoint,
}

impl<W: Fn() + Send + 'static> Attendant<W> {
    pub(super) fn new(swap: &Swap, send: Sender<Change>, wake: W, job: Weak<()>) -> Self {
        let (state, on_trial) = (State::default(), None);
        Self { swap: swap.clone(), send, wake, job, state, on_trial }
    }

    /// Begins to attend. Without a thread the job goes on as it is, and says so.
    pub(super) fn begin(self) {
        let thread = std::thread::Builder::new().name("Swap".to_owned());
        if let Err(error) = thread.spawn(move || self.attend()) {
            tracing::error!(target: "physicnet::swap", "no model can be swapped: {error}");
        }
    }

    fn attend(mut self) {
        let mut mine = None::<File>;
        let mut trouble = String::new();
        while self.job.strong_count() > 0 {
            std::thread::sleep(LOOK);
            if mine.is_none() {
                mine = self.swap.folder.lock();
                let state = self.swap.folder.state();
                self.state = State { trial: None, ..state.unwrap_or_default() };
            }
            if mine.is_none() {
                continue;
            }
            match self.look() {
                Ok(()) => trouble.clear(),
                Err(error) => {
                    let text = format!("{error:#}");
                    if text != trouble {
                        tracing::warn!(target: "physicnet::swap", "{text}");
                    }
                    trouble = text;
                }
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        let answered = self.state.last.as_ref().map(|answer| answer.asked);
        let attended = self.on_trial.as_ref().map(|candidate| candidate.asked);
        if let Some((asked, request)) = self.swap.folder.request()
            && ![answered, attended].contains(&Some(asked))
        {
            if let Some(candidate) = self.on_trial.take() {
                self.change(Change::Drop);
                let why = format!("model {}: another one was asked for", candidate.checkpoint.id);
                self.answer(candidate.asked, Outcome::Superseded, why)?;
            }
            match request.map_err(Into::into).and_then(|request| self.read(request)) {
                Ok((request, checkpoint, bytes)) => {
                    self.begin_trial(asked, request, checkpoint, bytes)?
                }
                Err(error) => self.answer(asked, Outcome::Refused, format!("{error:#}"))?,
            }
        }
        self.on_trial.take().map_or(Ok(()), |candidate| self.judge(candidate))
    }

    /// Reads and checks what is asked for.
    fn read(&self, request: Request) -> Result<(Request, Checkpoint, Vec<u8>)> {
        let path = request.checkpoint.display().to_string();
        let bytes = std::fs::read(&request.checkpoint).with_context(|| path.clone())?;
        let checkpoint = serving(Checkpoint::from_bytes(&bytes, &path)?, self.swap.serve)?;
        let Swap { serving, products, sensors, .. } = &self.swap;
        replaces(serving, &checkpoint, products, sensors).with_context(|| path)?;
        Ok((request, checkpoint, bytes))
    }

    fn begin_trial(
        &mut self,
        asked: u64,
        request: Request,
        checkpoint: Checkpoint,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let mut kept = self.state.before.clone();
        kept.push(Arc::clone(&self.swap.serving.id));
        self.swap.folder.keep(&checkpoint.id, &bytes, &kept)?;
        self.swap.trial.begin(&checkpoint.id);
        self.change(Change::Try(bytes));
        if request.shadow_for > 0 {
            let frames = request.shadow_for;
            self.say(
                Kind::Change,
                &format!("model {} is on trial for {frames} frames", checkpoint.id),
            );
        }
        self.on_trial = Some(Candidate { asked, request, checkpoint });
        Ok(())
    }

    /// Decides, when it is time to.
    fn judge(&mut self, candidate: Candidate) -> Result<()> {
        let Candidate { asked, ref request, ref checkpoint } = candidate;
        let (frames, ratio) = (self.swap.trial.frames(), self.swap.trial.ratio());
        let model = Arc::clone(&checkpoint.id);
        if frames < request.shadow_for {
            let shadow_for = request.shadow_for;
            let standing = Standing { model, asked, frames, shadow_for, error_ratio: ratio };
            if self.state.trial.as_ref() != Some(&standing) {
                self.state.trial = Some(standing);
                self.swap.folder.tell(&self.state)?;
            }
            self.on_trial = Some(candidate);
            return Ok(());
        }
        let before = &self.swap.serving.id;
        let told = match ratio.filter(|_| request.shadow_for > 0) {
            Some(ratio) => {
                format!("its squared error was {ratio:.3} of that of {before} over {frames} frames")
            }
            None => format!("without a trial; {before} served before"),
        };
        if request.shadow_for > 0 && ratio.is_some_and(|ratio| ratio > 1.0) {
            self.change(Change::Drop);
            return self.answer(
                asked,
                Outcome::Worse,
                format!("model {model} is not taken: {told}"),
            );
        }
        // Written before it serves: after a restart it serves from the first frame on.
        self.state.before.retain(|known| *known != model);
        self.state.before.push(Arc::clone(before));
        self.state.serving = Some(Arc::clone(&model));
        self.swap.serving = candidate.checkpoint;
        self.answer(asked, Outcome::Taken, format!("model {model} serves: {told}"))?;
        self.swap.telemetry.serves(&model);
        self.change(Change::Take);
        Ok(())
    }

    fn answer(&mut self, asked: u64, outcome: Outcome, why: String) -> Result<()> {
        let kind = if outcome == Outcome::Refused { Kind::Alarm } else { Kind::Change };
        self.say(kind, &why);
        (self.state.trial, self.state.last) = (None, Some(Answer { asked, outcome, why }));
        Ok(self.swap.folder.tell(&self.state)?)
    }

    fn say(&self, kind: Kind, text: &str) {
        if kind == Kind::Alarm {
            tracing::warn!(target: "physicnet::swap", "refused: {text}");
        } else {
            tracing::info!(target: "physicnet::swap", "{text}");
        }
        self.swap.telemetry.events().publish(kind, None, text);
    }

    /// Where nobody listens any more, the job has ended.
    fn change(&self, change: Change) {
        _ = self.send.send(change);
        (self.wake)();
    }
}
