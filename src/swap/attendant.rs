//! Who attends to requests: a thread, so that no frame waits for a disk.
//!
//! What the file of the state says is true before it happens, so that a job that is killed goes on
//! from there; what cannot be written is tried again.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use physicnet_operators::model::Checkpoint;
use physicnet_operators::swapping::Change;

use super::folder::{Answer, Outcome, Request, Standing, State};
use super::{Swap, forecasts_alike, replaces, serving};
use crate::telemetry::Kind;

/// How often it looks for a request, and at the trial.
const LOOK: Duration = Duration::from_millis(100);
/// How often a trial is begun: a candidate that ends the job must not do so for ever.
const BEGUN: u32 = 2;

/// The thread's own.
pub(super) struct Attendant<W> {
    swap: Swap,
    send: Sender<Change>,
    wake: W,
    /// Gone when the dataflow is.
    job: Weak<()>,
    state: State,
    /// Whether the file says less than `state`.
    untold: bool,
    /// What `state.trial` is of.
    on_trial: Option<Checkpoint>,
}

impl<W: Fn() + Send + 'static> Attendant<W> {
    pub(super) fn new(swap: &Swap, send: Sender<Change>, wake: W, job: Weak<()>) -> Self {
        let state = State::default();
        Self { swap: swap.clone(), send, wake, job, state, untold: false, on_trial: None }
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
            match self.turn(&mut mine) {
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

    fn turn(&mut self, mine: &mut Option<File>) -> Result<()> {
        if mine.is_none() {
            let lock = self.swap.folder.lock()?;
            self.take_over()?;
            *mine = Some(lock);
        }
        self.look()
    }

    /// Goes on where another instance of the job has ended: it may have changed the model since
    /// this one read which serves, and a trial may be on.
    fn take_over(&mut self) -> Result<()> {
        self.state = self.swap.folder.state()?;
        match self.state.serving.clone() {
            Some(model) if model != self.swap.serving.id => {
                let (checkpoint, bytes) = self.read(&self.swap.folder.model(&model))?;
                self.change(Change::Try(bytes));
                self.change(Change::Take);
                self.serve(checkpoint);
                self.say(Kind::Change, &format!("model {model} serves: it was taken meanwhile"));
            }
            Some(_) => {}
            None => self.keep_own().unwrap_or_else(|error| {
                tracing::warn!(target: "physicnet::swap", "there is no way back: {error:#}");
            }),
        }
        self.untold = true;
        let Some(standing) = self.state.trial.take() else { return Ok(()) };
        let (asked, copy) = (standing.asked, self.swap.folder.model(&standing.model));
        let again = || -> Result<_> {
            let (model, begun) = (&standing.model, standing.begun);
            ensure!(
                begun < BEGUN,
                "model {model}: the job ended {begun} times while it was on trial; ask again"
            );
            self.read(&copy)
        };
        match again() {
            Ok((checkpoint, bytes)) => self.try_out(standing, checkpoint, bytes),
            Err(error) => {
                self.answer(asked, Outcome::Refused, format!("{error:#}"));
                Ok(())
            }
        }
    }

    /// Keeps a copy of the job's own model, to change back to.
    fn keep_own(&self) -> Result<()> {
        let Some(own) = &self.swap.own else { return Ok(()) };
        let (name, id) = (own.display().to_string(), &self.swap.serving.id);
        let bytes = std::fs::read(own).with_context(|| name.clone())?;
        ensure!(
            Checkpoint::from_bytes(&bytes, &name)?.id == *id,
            "{name} is no longer model {id}, which serves"
        );
        Ok(self.swap.folder.keep(id, &bytes)?)
    }

    fn look(&mut self) -> Result<()> {
        self.tell_rest()?;
        if let Some((asked, request)) = self.swap.folder.request() {
            let answered = self.state.last.as_ref().map(|answer| answer.asked);
            let attended = self.state.trial.as_ref().map(|standing| standing.asked);
            if [answered, attended].contains(&Some(asked)) {
                // The state says what became of it.
                self.swap.folder.forget(asked)?;
            } else {
                self.heed(asked, request.map_err(Into::into))?;
            }
        }
        self.judge()?;
        self.tell_rest()
    }

    /// Reads and checks what is asked for. Only what can be tried ends the trial that is on.
    fn heed(&mut self, asked: u64, request: Result<Request>) -> Result<()> {
        let kept = request.and_then(|Request { checkpoint, shadow_for }| {
            let (checkpoint, bytes) = self.read(&checkpoint)?;
            self.swap.folder.keep(&checkpoint.id, &bytes)?;
            Ok((shadow_for, checkpoint, bytes))
        });
        match kept {
            // Another one was asked for meanwhile.
            _ if self.swap.folder.asked()? != Some(asked) => Ok(()),
            Ok((shadow_for, checkpoint, bytes)) => {
                let model = Arc::clone(&checkpoint.id);
                let (frames, error_ratio, begun) = (0, None, 0);
                let standing = Standing { model, asked, frames, shadow_for, error_ratio, begun };
                self.try_out(standing, checkpoint, bytes)
            }
            Err(error) => {
                self.answer(asked, Outcome::Refused, format!("{error:#}"));
                Ok(())
            }
        }
    }

    /// A checkpoint that may take the place of the one that serves, and the bytes of its file.
    fn read(&self, path: &Path) -> Result<(Checkpoint, Vec<u8>)> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| name.clone())?;
        let Swap { serving: ours, serve, products, sensors, drift, .. } = &self.swap;
        // First: a network of any history or horizon would be made to hold the weights against.
        let config = Checkpoint::config_of(&bytes, &name)?;
        forecasts_alike(&ours.config, &config, sensors).with_context(|| name.clone())?;
        let checkpoint = serving(Checkpoint::from_bytes(&bytes, &name)?, *serve)?;
        replaces(ours, &checkpoint, products, sensors).with_context(|| name.clone())?;
        // What a start would refuse, it would refuse for ever after.
        drift.config(checkpoint.usage.as_ref()).with_context(|| name)?;
        Ok((checkpoint, bytes))
    }

    /// Begins a trial, in place of the one that may be on.
    fn try_out(
        &mut self,
        standing: Standing,
        checkpoint: Checkpoint,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let superseded =
            self.on_trial.as_ref().zip(self.state.trial.as_ref()).map(|(on, trial)| {
                let why = format!("model {}: another one was asked for", on.id);
                Answer { asked: trial.asked, outcome: Outcome::Superseded, why }
            });
        let said = superseded.as_ref().map(|answer| answer.why.clone());
        let (shadow_for, begun) = (standing.shadow_for, standing.begun + 1);
        let last = superseded.or(self.state.last.clone());
        let trial = Some(Standing { begun, frames: 0, error_ratio: None, ..standing });
        self.tell(State { trial, last, ..self.state.clone() })?;
        if let Some(why) = said {
            self.say(Kind::Change, &why);
            self.change(Change::Drop);
        }
        self.swap.trial.begin(&checkpoint.id);
        self.change(Change::Try(bytes));
        if shadow_for > 0 {
            let text = format!("model {} is on trial for {shadow_for} frames", checkpoint.id);
            self.say(Kind::Change, &text);
        }
        self.on_trial = Some(checkpoint);
        Ok(())
    }

    /// Decides, when it is time to.
    fn judge(&mut self) -> Result<()> {
        let (Some(checkpoint), Some(standing)) = (&self.on_trial, &self.state.trial) else {
            return Ok(());
        };
        let Standing { asked, shadow_for, .. } = *standing;
        let trial = &self.swap.trial;
        let (spoiled, frames, ratio) = (trial.is_spoiled(), trial.frames(), trial.ratio());
        if !spoiled && frames < shadow_for {
            let now = Standing { frames, error_ratio: ratio, ..standing.clone() };
            self.untold |= now != *standing;
            self.state.trial = Some(now);
            return Ok(());
        }
        let (model, before) = (Arc::clone(&checkpoint.id), Arc::clone(&self.swap.serving.id));
        let told = match ratio {
            _ if shadow_for == 0 => format!("without a trial; {before} served before"),
            _ if spoiled => {
                format!("it has no forecast, or one beyond all bounds, where {before} has one")
            }
            Some(ratio) => {
                format!("its squared error was {ratio:.6} of that of {before} over {frames} frames")
            }
            None => format!("{before} had no forecast over {frames} frames"),
        };
        if shadow_for > 0 && (spoiled || ratio.is_some_and(|ratio| ratio > 1.0)) {
            (self.on_trial, self.state.trial) = (None, None);
            self.change(Change::Drop);
            self.answer(asked, Outcome::Worse, format!("model {model} is not taken: {told}"));
            return Ok(());
        }
        // Written before it serves: after a restart it serves from the first frame on.
        let why = format!("model {model} serves: {told}");
        let mut state = State { trial: None, ..self.state.clone() };
        state.before.retain(|known| *known != model);
        state.before.push(before);
        state.serving = Some(model);
        state.last = Some(Answer { asked, outcome: Outcome::Taken, why: why.clone() });
        self.tell(state)?;
        self.change(Change::Take);
        if let Some(checkpoint) = self.on_trial.take() {
            self.serve(checkpoint);
        }
        self.say(Kind::Change, &why);
        Ok(())
    }

    /// What serves from now on.
    fn serve(&mut self, checkpoint: Checkpoint) {
        self.swap.telemetry.serves(&checkpoint.id);
        self.swap.serving = checkpoint;
    }

    fn answer(&mut self, asked: u64, outcome: Outcome, why: String) {
        let kind = if outcome == Outcome::Refused { Kind::Alarm } else { Kind::Change };
        self.say(kind, &why);
        self.state.last = Some(Answer { asked, outcome, why });
        self.untold = true;
    }

    /// Writes what is not written yet.
    fn tell_rest(&mut self) -> Result<()> {
        if self.untold { self.tell(self.state.clone()) } else { Ok(()) }
    }

    /// How things stand from now on, once it is written. Copies of other models go.
    fn tell(&mut self, state: State) -> Result<()> {
        self.swap.folder.tell(&state)?;
        (self.state, self.untold) = (state, false);
        let State { serving, before, trial, .. } = &self.state;
        let tried = trial.as_ref().map(|standing| &standing.model);
        let served = serving.as_ref().unwrap_or(&self.swap.serving.id);
        let named: Vec<&str> =
            [Some(served), before.last(), tried].into_iter().flatten().map(|id| &**id).collect();
        self.swap.folder.clear(&named);
        Ok(())
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

#[cfg(test)]
mod tests;
