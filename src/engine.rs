//! Runs the picture: workers, processes, the step loop and how it ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use physicnet_connectors::kafka::{Claim, Ledger};
use physicnet_connectors::{RejectsSink, Sink, Source};
use physicnet_operators::admission::{AdmissionConfig, Admitted};
use physicnet_operators::ensemble::EnsembleConfig;
use physicnet_operators::experts::Bank;
use physicnet_operators::fusion::FuseConfig;
use physicnet_operators::learning::LearnConfig;
use physicnet_operators::model::{Checkpoint, Precision, Processor};
use physicnet_operators::quantization::DriftConfig;
use physicnet_operators::scoring::{ScoringConfig, Totals};
use physicnet_stream::{Catalogue, Error, Failure, Forecast, Frame, Pace, Reject, Resume, Stop};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;
use timely::{CommunicationConfig, Config, WorkerConfig};

use crate::evaluate::{Ensembles, Rivals};
use crate::health::Health;
use crate::scores::{Lessons, ScoresFile};
use crate::study::Study;
use crate::swap::Swap;
use crate::telemetry::Telemetry;
use crate::{dataflow, greeting, peers};

/// How long a worker sleeps at most. Messages and activations wake it; nothing wakes it where another
/// worker fails. At rest its sleep is what a job costs.
const GLANCE: Duration = Duration::from_millis(100);

/// How many workers there are and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Worker threads of each process.
    pub workers: usize,
    /// `host:port` of every process, in order; empty or one for a single process.
    pub hosts: Vec<String>,
    /// Which of them this process is.
    pub process: usize,
}

/// Everything that a job's dataflow is put together from: opened, checked, ready.
pub struct Parts {
    /// Where frames come from.
    pub sources: Vec<Source>,
    /// Every sensor of the sources.
    pub catalogue: Catalogue,
    /// Where the sources go on reading, by the sinks; a ledger knows better.
    pub resume: Resume,
    /// Which frames are used.
    pub admission: AdmissionConfig,
    /// The network.
    pub checkpoint: Checkpoint,
    /// What computes it.
    pub processor: Processor,
    /// In what that multiplies, where it is a GPU.
    pub precision: Precision,
    /// Experts of the program's own, forecasting beside those of the house.
    pub bank: Bank,
    /// What goes out with a forecast.
    pub fuse: FuseConfig,
    /// The largest batch of a stage.
    pub batch: usize,
    /// How many epochs may be open at once.
    pub in_flight: u64,
    /// Where forecasts go.
    pub sinks: Vec<Sink>,
    /// Where unused frames go.
    pub rejects: RejectsSink,
    /// Where the progress of the job is kept, if in Kafka.
    pub ledger: Option<Ledger>,
    /// What is verified, if anything.
    pub scoring: Option<ScoringConfig>,
    /// The verification's running totals.
    pub totals: Totals,
    /// The file that keeps them over a restart, if one does.
    pub scores: Option<ScoresFile>,
    /// How forecasts learn from their verification, if they do.
    pub learn: Option<LearnConfig>,
    /// The ensemble around the served forecast, if there is one.
    pub ensemble: Option<EnsembleConfig>,
    /// What has flowed so far.
    pub counts: Counts,
    /// When a sensor's codes are alarming.
    pub drift: DriftConfig,
    /// How each sensor is.
    pub health: Health,
    /// Who watches, if anyone does.
    pub telemetry: Telemetry,
    /// Forecasts of others that are scored beside the job's own.
    pub rivals: Rivals,
    /// Where ensembles are verified, if they are.
    pub ensembles: Ensembles,
    /// What is learnt of forecasts beside their scores.
    pub study: Study,
    /// What may take the model's place while the job runs, if it is to be asked for.
    pub swap: Option<Swap>,
}

impl Parts {
    /// How many leads a forecast has.
    pub fn leads(&self) -> usize {
        self.fuse.leads.unwrap_or(self.checkpoint.config.horizon)
    }

    /// For how many cadences back a restart makes again what waits for its verification.
    pub(crate) fn pending(&self) -> usize {
        let (Some(scoring), Some(_)) = (&self.scoring, &self.scores) else { return 0 };
        let window = self.checkpoint.config.history + self.admission.largest_gap as usize + 1;
        self.leads() + scoring.correct_within as usize + window
    }
}

/// What has flowed through this process.
#[derive(Clone, Default)]
pub struct Counts(Arc<Counters>);

#[derive(Default)]
struct Counters {
    frames: AtomicU64,
    admitted: AtomicU64,
    filled: AtomicU64,
    parted: AtomicU64,
    forecasts: AtomicU64,
    rejects: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    /// Frames read by the sources of this process.
    pub fn frames(&self) -> u64 {
        self.0.frames.load(Ordering::Relaxed)
    }

    /// Frames admitted to windows, without those made up for gaps.
    pub fn admitted_frames(&self) -> u64 {
        self.0.admitted.load(Ordering::Relaxed)
    }

    /// Frames made up for gaps.
    pub fn filled(&self) -> u64 {
        self.0.filled.load(Ordering::Relaxed)
    }

    /// Windows begun anew after a gap too long to fill.
    pub fn parted(&self) -> u64 {
        self.0.parted.load(Ordering::Relaxed)
    }

    /// Forecasts made.
    pub fn forecasts(&self) -> u64 {
        self.0.forecasts.load(Ordering::Relaxed)
    }

    /// Frames refused, by reason.
    pub fn rejects(&self) -> BTreeMap<&'static str, u64> {
        self.0.rejects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn frame(&self) -> impl FnMut(&Frame) + 'static {
        let counters = Arc::clone(&self.0);
        move |_| _ = counters.frames.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn admitted(&self) -> impl FnMut(&Admitted) + 'static {
        let counters = Arc::clone(&self.0);
        move |frame| {
            let counter = if frame.filled() { &counters.filled } else { &counters.admitted };
            counter.fetch_add(1, Ordering::Relaxed);
            let after = frame.plan.as_ref().and_then(|plan| plan.after);
            counters.parted.fetch_add(after.is_some().into(), Ordering::Relaxed);
        }
    }

    pub(crate) fn forecast(&self) -> impl FnMut(&Forecast) + 'static {
        let counters = Arc::clone(&self.0);
        // One that is made again for its verification has gone out before.
        move |forecast| {
            counters.forecasts.fetch_add(u64::from(!forecast.replay), Ordering::Relaxed);
        }
    }

    pub(crate) fn reject(&self) -> impl FnMut(&Reject) + 'static {
        let counters = Arc::clone(&self.0);
        move |reject| {
            let mut rejects = counters.rejects.lock().unwrap_or_else(PoisonError::into_inner);
            *rejects.entry(reject.reason.label()).or_default() += 1;
        }
    }
}

/// Runs the job until its sources end or `stop` is asked, and all that is in flight is durable.
///
/// # Errors
/// When the cluster cannot be built, a worker fails, or an operator reported what it cannot
/// mend (a full disk, a broken device).
pub fn run(parts: Parts, cluster: &Cluster, stop: &Stop) -> Result<()> {
    let failure = Failure::default();
    let parts = Arc::new(parts);
    let (stop, reported) = (stop.clone(), failure.clone());
    let several = cluster.hosts.len() > 1;
    let config = timely_config(cluster)?;
    if several {
        let job = greeting::Job {
            workers: cluster.workers,
            processes: cluster.hosts.len(),
            sensors: parts.catalogue.known().map(|sensor| sensor.id.clone()).collect(),
        };
        if !greeting::meet(cluster, &job, &stop)? {
            return Ok(());
        }
        peers::end_with_them(&cluster.hosts);
    }
    let guards = timely::execute(config, move |worker| {
        let pace = Pace {
            durable: ProbeHandle::new(),
            in_flight: parts.in_flight,
            stop: stop.clone(),
            failure: failure.clone(),
        };
        work(worker, &parts, &pace, several)
    })
    .map_err(|error| anyhow!("starting the workers: {error}"))?;
    for outcome in guards.join() {
        outcome.map_err(|error| anyhow!("a worker ended: {error}"))??;
    }
    match reported.take() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Runs this worker's share to its end. With `several` processes a failure ends this one at once:
/// what the others would take for a clean end, they would wait behind for ever.
fn work(worker: &mut Worker, parts: &Parts, pace: &Pace, several: bool) -> Result<()> {
    let device = parts.processor.device(worker.index());
    let net = device.and_then(|device| parts.checkpoint.network_in(&device, parts.precision));
    let net = net.map_err(|error| pace.failure.report(Error::new("the network", error)));
    let asks = parts.ledger.is_some() || parts.scores.is_some() || parts.swap.is_some();
    let (claim, start) = if asks {
        agree(worker, parts, pace)
    } else {
        (None, Start { resume: parts.resume.clone(), ..Start::default() })
    };
    let beat = parts.telemetry.worker(worker);
    if let Ok(net) = net {
        worker.dataflow_named::<u64, _, _>("physicnet", |scope| {
            dataflow::forecast(scope, parts, Rc::new(net), &start, claim, pace);
        });
        beat.built(&start.resume);
        while !pace.durable.done() && !pace.failure.failed() {
            beat.step(pace);
            worker.step_or_park(Some(GLANCE));
        }
    }
    beat.ended(pace.failure.failed());
    if several && pace.failure.failed() {
        if let Some(error) = pace.failure.take() {
            tracing::error!("{error}");
        }
        std::process::exit(1);
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    Ok(())
}

/// What every worker starts from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Start {
    /// Where the sources go on.
    pub resume: Resume,
    /// What forecasts have been taught.
    pub lessons: Lessons,
    /// The model that serves.
    pub model: Arc<str>,
}

/// Where the job goes on, the same for every worker of every process: the first worker makes
/// itself the one writer of the ledger, if there is one, and only then reads it and tells the
/// others. The file of the scores is its own too.
fn agree(worker: &mut Worker, parts: &Parts, pace: &Pace) -> (Option<Claim>, Start) {
    let heard = Rc::new(RefCell::new(None));
    let hearing = Rc::clone(&heard);
    let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<Option<Start>>>>::new();
    let told = worker.dataflow(|scope| {
        let told = scope.input_from(&mut input).broadcast();
        told.inspect(move |start| *hearing.borrow_mut() = Some(start.clone())).probe().0
    });
    let mut claim = None;
    if worker.index() == 0 {
        let resume = match &parts.ledger {
            Some(ledger) => ledger.claim(&pace.stop).map(|(own, resume)| {
                claim = Some(own);
                resume
            }),
            None => Ok(parts.resume.clone()),
        };
        let start = resume.map(|resume| {
            let model = Arc::clone(&parts.checkpoint.id);
            let mut start = Start { resume, model, ..Start::default() };
            if let Some(scores) = &parts.scores {
                start.resume.reach_back(scores.reached().clone());
                start.lessons = scores.lessons().clone();
            }
            start
        });
        input.send(start.map_err(|error| pace.failure.report(error)).ok());
    }
    input.close();
    while !told.done() && !pace.failure.failed() {
        worker.step_or_park(Some(GLANCE));
    }
    let start = heard.borrow_mut().take().flatten().unwrap_or_else(|| {
        // In the process of the first worker its own report stands, which says why.
        pace.failure.report(Error::new("process 0", "could not start; its log says why"));
        Start { model: Arc::clone(&parts.checkpoint.id), ..Start::default() }
    });
    if start.model != parts.checkpoint.id {
        // They may have read a folder of swaps while another instance changed the model.
        let (first, own) = (&start.model, &parts.checkpoint.id);
        let why = format!(
            "process 0 starts with model {first}, this one with {own}; give all of them the same \
             file and folder, and start again"
        );
        pace.failure.report(Error::new("model", why));
    }
    (claim, start)
}

fn timely_config(cluster: &Cluster) -> Result<Config> {
    let Cluster { workers, hosts, process } = cluster.clone();
    if workers == 0 {
        return Err(anyhow!("workers: 0; at least 1 is needed"));
    }
    let communication = match hosts.len() {
        0 | 1 if workers == 1 => CommunicationConfig::Thread,
        0 | 1 => CommunicationConfig::Process(workers),
        count if process < count => CommunicationConfig::Cluster {
            threads: workers,
            process,
            addresses: hosts,
            report: false,
            zerocopy: false,
        },
        count => return Err(anyhow!("process {process} of {count} hosts: count from 0")),
    };
    Ok(Config { communication, worker: WorkerConfig::default() })
}
