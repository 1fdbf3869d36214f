//! The verification's memory: running totals, and a file that keeps them over a restart.
//!
//! ```text
//! sums of pairs ─┐
//!                ├─► worker 0: complete epochs ─► totals ─► a file (own thread), now and then
//! marks, learnt ─┘
//! ```
//!
//! An epoch is taken in once the sinks have it: the file is never ahead of what went out, so that a
//! forecast that is made again is made from what was known then. The file says up to where it has taken frames in. A start reads those again that came later,
//! and those whose forecasts wait for their observations: nothing is counted twice or left out.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use differential_dataflow::VecCollection;
use physicnet_operators::ensemble::Known;
use physicnet_operators::learning::Learnt;
use physicnet_operators::scoring::{Key, Metrics, Pair, Series, Sums, Totals, Verified};
use physicnet_stream::{Error, Failure, Mark, Resume, SensorId, Time};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::{ProbeHandle, StreamVec};

/// The layout of the file; another one is not read.
const VERSION: u32 = 1;
/// How long another job on the file may take to end: a newer instance takes over from an older.
const TAKEOVER: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// How often the file is written while frames come.
const EVERY: Duration = Duration::from_secs(1);
/// How soon to look whether the sinks have an epoch.
const SINKING: Duration = Duration::from_millis(5);
/// Writing takes at most this share of the time.
const SHARE: u32 = 50;

/// Where the scores of a job are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoresFile {
    path: PathBuf,
    /// Whose scores they are, and which.
    head: Head,
    /// The frames up to which it reached when it was opened.
    reached: Resume,
    /// What forecasts had been taught by them.
    lessons: Lessons,
}

/// What forecasts have been taught, by sensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lessons {
    /// How they are served, in a job that learns.
    pub learnt: BTreeMap<SensorId, Learnt>,
    /// How far off they have been, in one with an ensemble.
    pub errors: BTreeMap<SensorId, Known>,
}

/// Keeps other jobs out of the file of scores at `path` while what it returns is held, by a file
/// beside it that ends in `.lock`: the file itself is replaced again and again. The system lets go
/// of it when the process ends. Nothing where the system locks no files.
///
/// # Errors
/// When another job has it and does not end, or there can be no file.
pub fn lock(path: &Path) -> Result<Option<File>> {
    let what = || format!("scoring.store: {}", path.display());
    let mut name = path.file_name().context("names no file").with_context(what)?.to_owned();
    name.push(".lock");
    let beside = folder(path).join(name);
    std::fs::create_dir_all(folder(path)).with_context(what)?;
    let opened = File::options().create(true).append(true).open(&beside);
    let file = opened.with_context(|| format!("{}: its lock {}", what(), beside.display()))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if begun.elapsed() > TAKEOVER => bail!(
                "{}: another job keeps its scores there; end that one, or name another file",
                what()
            ),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Where the file is, or comes to be.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// The first line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    version: u32,
    model: Arc<str>,
    channels: Vec<Metrics>,
}

/// Each further line but the last.
#[derive(Serialize, Deserialize)]
struct Line {
    key: Key,
    newest: Time,
    series: Series,
}

/// After those, in a job whose forecasts learn, one for each sensor.
#[derive(Serialize, Deserialize)]
struct LearntLine {
    sensor: SensorId,
    learnt: Learnt,
}

/// After those, in a job with an ensemble, one for each sensor.
#[derive(Serialize, Deserialize)]
struct ErrorsLine {
    sensor: SensorId,
    errors: Known,
}

/// What else an epoch tells the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Note {
    /// How far the job has come.
    Mark(Mark),
    /// What is known of a sensor.
    Learnt(SensorId, Box<Learnt>),
    /// How far off a sensor's forecasts have been.
    Errors(SensorId, Box<Known>),
}

impl ScoresFile {
    /// The file at `path` for the scores of `model`, which took the place of those `before`, with
    /// what is scored of each channel; and the totals that it holds, none where there is no file
    /// yet.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn open(
        path: &Path,
        model: &Arc<str>,
        before: &[Arc<str>],
        channels: &[Metrics],
    ) -> Result<(Self, Verified)> {
        let head = Head { version: VERSION, model: Arc::clone(model), channels: channels.to_vec() };
        let mut scores = Self {
            path: path.to_owned(),
            head,
            reached: Resume::default(),
            lessons: Lessons::default(),
        };
        let what = || format!("scoring.store: {}", path.display());
        let verified = match File::open(path) {
            Ok(file) => scores.read(BufReader::new(file), before).with_context(what)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Verified::default(),
            Err(error) => return Err(error).with_context(what),
        };
        Ok((scores, verified))
    }

    /// The frames up to which it reached when it was opened.
    pub fn reached(&self) -> &Resume {
        &self.reached
    }

    /// What forecasts had been taught when it was opened.
    pub fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    fn read(&mut self, file: impl BufRead, before: &[Arc<str>]) -> Result<Verified> {
        let foreign = "is no file of scores; name another";
        let mut lines = file.lines();
        let mut verified = Verified::default();
        let head = lines.next().context(foreign)??;
        let head: Head = serde_json::from_str(&head).context(foreign)?;
        ensure!(
            head.version == VERSION,
            "was written in version {}, this program reads {VERSION}; run a newer one",
            head.version
        );
        ensure!(
            head.model == self.head.model || before.contains(&head.model),
            "holds the scores of model {}, this job's is {}; name another file",
            head.model,
            self.head.model
        );
        ensure!(
            head.channels == self.head.channels,
            "holds other scores than the job asks for (thresholds, ssim or fss); name another file"
        );
        let mut resume = None;
        for line in lines {
            let line = line?;
            ensure!(resume.is_none(), "goes on behind its end");
            if let Ok(Line { key, newest, series }) = serde_json::from_str(&line) {
                verified.restore(key, series, newest);
            } else if let Ok(LearntLine { sensor, learnt }) = serde_json::from_str(&line) {
                self.lessons.learnt.insert(sensor, learnt);
            } else if let Ok(ErrorsLine { sensor, errors }) = serde_json::from_str(&line) {
                self.lessons.errors.insert(sensor, errors);
            } else {
                resume = Some(serde_json::from_str(&line).context(foreign)?);
            }
        }
        self.reached = resume.context("is cut off; remove it to begin anew")?;
        Ok(verified)
    }

    fn error(&self, why: String) -> Error {
        Error::new(format!("scoring.store: {}", self.path.display()), why)
    }

    /// Replaces the file, whole or not at all.
    fn write(&self, verified: &Verified, lessons: &Lessons, resume: &Resume) -> Result<()> {
        let folder = folder(&self.path);
        std::fs::create_dir_all(folder)?;
        let mut name = self.path.file_name().context("names no file")?.to_owned();
        name.push(".new");
        let new = folder.join(name);
        let mut file = std::io::BufWriter::new(File::create(&new)?);
        serde_json::to_writer(&mut file, &self.head)?;
        file.write_all(b"\n")?;
        for (key, series, newest) in verified.series() {
            let (key, series) = (key.clone(), series.clone());
            serde_json::to_writer(&mut file, &Line { key, newest, series })?;
            file.write_all(b"\n")?;
        }
        for (sensor, learnt) in &lessons.learnt {
            let (sensor, learnt) = (sensor.clone(), learnt.clone());
            serde_json::to_writer(&mut file, &LearntLine { sensor, learnt })?;
            file.write_all(b"\n")?;
        }
        for (sensor, errors) in &lessons.errors {
            let (sensor, errors) = (sensor.clone(), errors.clone());
            serde_json::to_writer(&mut file, &ErrorsLine { sensor, errors })?;
            file.write_all(b"\n")?;
        }
        serde_json::to_writer(&mut file, resume)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(|error| anyhow!("{error}"))?.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        // The first file of all must outlast a power cut: without one, all counts as scored.
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    }
}

/// Adds up what is verified in `totals`, which hold what `file` held, and keeps it there, on
/// worker 0; `resume` is where the job goes on, and `sunk` is behind the sinks. The frontier of
/// what it returns passes the end when the file is written.
pub fn keep<'scope>(
    sums: VecCollection<'scope, u64, Pair, Sums>,
    notes: StreamVec<'scope, u64, Note>,
    totals: &Totals,
    file: &ScoresFile,
    resume: &Resume,
    sunk: &ProbeHandle<u64>,
    failure: &Failure,
) -> StreamVec<'scope, u64, ()> {
    let scope = notes.scope();
    let sunk = sunk.clone();
    let (totals, file, failure) = (totals.clone(), file.clone(), failure.clone());
    let (mut reached, mut lessons) = (file.reached.clone(), file.lessons.clone());
    // What it has never seen begins now.
    for (log, next) in &resume.next {
        reached.next.entry(Arc::clone(log)).or_insert(*next);
    }
    for (sensor, window) in &resume.windows {
        reached.windows.entry(sensor.clone()).or_insert_with(|| window.clone());
    }
    if scope.index() == 0 && !file.path.exists() {
        // Before the first frame: a start without a file takes all that went out for scored.
        let written = file.write(&totals.now(), &lessons, &reached);
        written.unwrap_or_else(|error| failure.report(file.error(format!("{error:#}"))));
    }
    let sums_to_first = Exchange::new(|_: &(Pair, u64, Sums)| 0);
    let notes_to_first = Exchange::new(|_: &Note| 0);
    sums.inner.binary_frontier::<_, CapacityContainerBuilder<Vec<()>>, _, _, _, _>(
        notes,
        sums_to_first,
        notes_to_first,
        "Scores",
        move |cap, info| {
            let wake = scope.worker().sync_activator_for(info.address.to_vec());
            let again = scope.activator_for(info.address);
            // What is written at the end must be written before the end.
            let mut cap = (scope.index() == 0).then_some(cap);
            let mut epochs = BTreeMap::<u64, (Vec<(Pair, Sums)>, Vec<Note>)>::new();
            let mut writing: Option<Receiver<Result<()>>> = None;
            let (mut changed, mut begun, mut took) = (false, Instant::now(), Duration::ZERO);
            move |(sums, sums_frontier), (notes, notes_frontier), output| {
                sums.for_each_stamp(|stamp, batches| {
                    let Some(stamp) = stamp.retain_least(output.output_index()) else { return };
                    let (sums, _) = epochs.entry(*stamp.time()).or_default();
                    let drained = batches.flat_map(|batch| batch.drain(..));
                    sums.extend(drained.map(|(pair, _, sums)| (pair, sums)));
                });
                notes.for_each_stamp(|stamp, batches| {
                    let Some(stamp) = stamp.retain_least(output.output_index()) else { return };
                    let (_, notes) = epochs.entry(*stamp.time()).or_default();
                    notes.extend(batches.flat_map(|batch| batch.drain(..)));
                });
                while let Some(epoch) = epochs.first_entry() {
                    let time = *epoch.key();
                    if sums_frontier.less_equal(&time) || notes_frontier.less_equal(&time) {
                        break;
                    }
                    if sunk.less_equal(&time) {
                        // Nothing wakes it when the sinks are through.
                        again.activate_after(SINKING);
                        break;
                    }
                    let (sums, notes) = epoch.remove();
                    let mut totals = totals.now();
                    sums.into_iter().for_each(|(pair, sums)| totals.add(pair, &sums));
                    for note in notes {
                        match note {
                            Note::Mark(mark) if mark.scored => {}
                            Note::Mark(mark) => reached.apply(mark),
                            Note::Learnt(sensor, now) => {
                                lessons.learnt.insert(sensor, *now);
                            }
                            Note::Errors(sensor, now) => {
                                lessons.errors.insert(sensor, *now);
                            }
                        }
                    }
                    changed = true;
                }
                let Some(own) = &mut cap else { return };
                match writing.as_ref().map(Receiver::try_recv) {
                    None | Some(Err(TryRecvError::Empty)) => {}
                    Some(Ok(Ok(()))) => (writing, took) = (None, begun.elapsed()),
                    Some(told) => {
                        let why = match told {
                            Ok(Err(error)) => format!("{error:#}"),
                            _ => "the thread that writes has ended".to_owned(),
                        };
                        failure.report(file.error(why));
                    }
                }
                if failure.failed() {
                    return; // and the capability stays
                }
                let over = sums_frontier.is_empty() && notes_frontier.is_empty();
                if writing.is_none() {
                    if over && epochs.is_empty() && !changed {
                        cap = None;
                        return;
                    }
                    if changed
                        && (over && epochs.is_empty() || begun.elapsed() > EVERY.max(took * SHARE))
                    {
                        begun = Instant::now();
                        let now = (totals.now().clone(), lessons.clone(), reached.clone());
                        let (file, wake) = (file.clone(), wake.clone());
                        let (answer, told) = channel();
                        let write = move || {
                            let outcome = file.write(&now.0, &now.1, &now.2);
                            // Nobody listens where the worker has gone.
                            _ = answer.send(outcome);
                            _ = wake.activate();
                        };
                        let thread = std::thread::Builder::new().name("Scores".to_owned());
                        if let Err(error) = thread.spawn(write) {
                            let why = format!("cannot start the thread that writes it: {error}");
                            return failure.report(Error::new("scoring.store", why));
                        }
                        (writing, changed) = (Some(told), false);
                    }
                }
                let (sums, notes) = (sums_frontier.frontier(), notes_frontier.frontier());
                if let Some(next) =
                    sums.iter().chain(notes.iter()).min().filter(|next| *next > own.time())
                {
                    own.downgrade(next);
                }
                // Says nothing; it names the container of the output.
                output.session(&own).give_iterator(std::iter::empty::<()>());
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_job() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/scores.jsonl");
        let held = lock(&path).unwrap();
        let refused = lock(&path).unwrap_err().to_string();
        assert!(refused.contains("scores.jsonl: another job"), "{refused}");
        lock(&path.with_file_name("others.jsonl")).unwrap();
        drop(held);
        lock(&path).unwrap();
    }
}
