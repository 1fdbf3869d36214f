//! What a job file says, and how it becomes the parts of a dataflow.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use physicnet_connectors::rejects::RejectsConfig;
use physicnet_connectors::{Opened, RejectsSink, SinkConfig, Source, SourceConfig};
use physicnet_operators::admission::AdmissionConfig;
use physicnet_operators::ensemble::{EnsembleConfig, Quantile};
use physicnet_operators::experts::Bank;
use physicnet_operators::fusion::FuseConfig;
use physicnet_operators::learning::LearnConfig;
use physicnet_operators::model::{
    Checkpoint, ModelConfig, Precision, Processor, Serve, VariableConfig,
};
use physicnet_operators::scoring::{ScoringConfig, Totals};
use physicnet_operators::swapping::Trial;
use physicnet_stream::Sensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fit::{
    catalogue, fits, goes_on, kinds, other_grid, products, progress, reaches, resume,
};
use super::{DriftSection, EnsembleSection, LearnSection, ScoringSection, places};
use crate::dashboard::{self, DashboardConfig, Served};
use crate::engine::{Cluster, Counts, Parts};
use crate::evaluate::{Ensembles, Rivals};
use crate::health::Health;
use crate::scores::ScoresFile;
use crate::study::Study;
use crate::swap::{Folder, Swap, serving};
use crate::telemetry::{About, Telemetry};

/// A job: sources, a model, sinks, and what happens between them.
///
/// ```yaml
/// sources:
///   - {type: zarr, path: radar.zarr, variables: [precip_rate]}
/// model: {checkpoint: radar.safetensors}
/// sinks:
///   - {type: zarr, path: "forecasts/{sensor}.zarr"}
/// workers: 2
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name in logs, and in Kafka: its consumer group, transactional id and topics bear it.
    #[serde(default = "name")]
    pub name: String,
    /// Where frames come from.
    pub sources: Vec<SourceConfig>,
    /// What forecasts them.
    #[serde(default)]
    pub model: ModelSection,
    /// Which frames are used, and what stands in for missing ones.
    #[serde(default)]
    pub admission: AdmissionConfig,
    /// Where forecasts go.
    #[serde(default)]
    pub sinks: Vec<SinkConfig>,
    /// Where unused frames go; absent, they are logged alone.
    #[serde(default)]
    pub rejects: Option<RejectsConfig>,
    /// What is verified while the job runs; absent, nothing.
    #[serde(default)]
    pub scoring: Option<ScoringSection>,
    /// How forecasts learn from their verification; absent, they do not.
    #[serde(default)]
    pub learn: Option<LearnSection>,
    /// The ensemble around the served forecast; absent, there is none.
    #[serde(default)]
    pub ensemble: Option<EnsembleSection>,
    /// When a sensor no longer shows what the model was trained on.
    #[serde(default)]
    pub drift: DriftSection,
    /// Where the running job can be looked at; absent, nowhere.
    #[serde(default)]
    pub dashboard: Option<DashboardConfig>,
    /// Worker threads of each process.
    #[serde(default = "one")]
    pub workers: usize,
    /// `host:port` of every process, in order; empty for a single one.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Which of the hosts this process is, counted from 0.
    #[serde(default)]
    pub process: usize,
    /// What computes the network: `auto` (the GPUs that answer, where the program was built with
    /// CUDA, else the CPU), `cpu`, `cuda:0`, or `cuda:0,1` for workers that take turns.
    #[serde(default)]
    pub device: Processor,
    /// In what a GPU multiplies: `f32`, `bf16` or `f16`.
    #[serde(default)]
    pub precision: Precision,
    /// How many epochs may be open at once: a bound of the memory, and of the largest batch.
    #[serde(default = "in_flight")]
    pub in_flight: u64,
    /// The most windows that are computed as one batch.
    #[serde(default = "batch")]
    pub batch: usize,
}

/// The network of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The file that `physicnet train` left.
    pub checkpoint: Option<PathBuf>,
    /// Without a checkpoint: an untrained model, whose forecast is its expert's.
    pub untrained: Option<ModelConfig>,
    /// Which head is served, if not the one that the checkpoint says.
    pub serve: Option<Serve>,
    /// How many leads a forecast has: beyond the network's horizon it goes on from its own. Absent, as
    /// many as the horizon.
    pub leads: Option<usize>,
    /// The folder through which another model can be asked for while the job runs; absent, none
    /// can.
    pub control: Option<PathBuf>,
}

fn name() -> String {
    "physicnet".to_owned()
}

fn one() -> usize {
    1
}

fn in_flight() -> u64 {
    8
}

fn batch() -> usize {
    8
}

impl Job {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// Names the key that does not fit and what would.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.sources.is_empty(), "sources: name at least one");
        ensure!(self.workers > 0, "workers: 0; at least 1 is needed");
        ensure!(self.batch > 0, "batch: 0; at least 1 is needed");
        ensure!(self.in_flight > 0, "in_flight: 0; at least 1 is needed");
        let processes = self.hosts.len().max(1);
        ensure!(
            self.process < processes,
            "process: {} of {processes} hosts; they are counted from 0",
            self.process
        );
        ensure!(
            self.model.checkpoint.is_some() != self.model.untrained.is_some(),
            "model: give either `checkpoint` (a file) or `untrained` (a model without weights, \
             e.g. {{history: 4, horizon: 12, expert: advection}})"
        );
        ensure!(self.model.leads != Some(0), "model.leads: 0; at least 1 is needed");
        let revised = self.admission.revise_within.unwrap_or(0);
        self.scoring.iter().try_for_each(|scoring| scoring.check(revised))?;
        self.drift.check()?;
        self.learn.iter().try_for_each(LearnSection::check)?;
        self.ensemble.iter().try_for_each(EnsembleSection::check)?;
        if let Some(dashboard) = &self.dashboard {
            dashboard.address()?;
        }
        Ok(())
    }

    /// How many workers there are, and where.
    pub fn cluster(&self) -> Cluster {
        Cluster { workers: self.workers, hosts: self.hosts.clone(), process: self.process }
    }

    /// The network that the model section names, for these `sensors`.
    ///
    /// # Errors
    /// When the file cannot be read, is not a checkpoint, or there is no sensor to ask.
    pub fn checkpoint(&self, sensors: &[Arc<Sensor>]) -> Result<Checkpoint> {
        let checkpoint = match (&self.model.checkpoint, &self.model.untrained) {
            (Some(path), _) => Checkpoint::load(path)?,
            (None, Some(config)) => {
                let mut config = config.clone();
                if let (true, Some(sensor)) = (config.variables.is_empty(), sensors.first()) {
                    let variables = sensor.grid.variables.iter();
                    config.variables = variables.map(VariableConfig::for_variable).collect();
                }
                Checkpoint::untrained(&config)?
            }
            (None, None) => bail!("model.checkpoint: name a file"),
        };
        Ok(serving(checkpoint, self.model.serve)?)
    }

    /// Opens everything that the job names.
    ///
    /// # Errors
    /// When something cannot be opened, or the sensors, the model and the sinks do not suit one
    /// another.
    pub fn open(&self) -> Result<Parts> {
        self.check()?;
        self.dashboard.iter().try_for_each(|dashboard| dashboard.access().map(drop))?;
        let sources = self.sources()?;
        let sensors = kinds(&sources)?;
        let Some(control) = &self.model.control else {
            let checkpoint = self.checkpoint(&sensors)?;
            return self.assemble(sources, checkpoint);
        };
        let folder = Folder::new(control, &self.name);
        let state = folder.state()?;
        let checkpoint = match &state.serving {
            Some(model) => {
                let path = folder.model(model);
                tracing::info!(
                    "model {model} serves since a swap, in place of model.checkpoint; remove {}, \
                     and the file of scores, to begin with that one again",
                    control.join("state.json").display()
                );
                serving(Checkpoint::load(&path)?, self.model.serve)?
            }
            None => self.checkpoint(&sensors)?,
        };
        let mut parts = self.assemble_since(sources, checkpoint, &state.before)?;
        let scoring = parts.scoring.clone().unwrap_or_else(|| self.verification());
        parts.swap = Some(Swap {
            folder,
            serving: parts.checkpoint.clone(),
            own: self.model.checkpoint.clone(),
            serve: self.model.serve,
            products: parts.fuse.products.clone(),
            sensors,
            drift: self.drift.clone(),
            // A trial compares squared errors alone.
            scoring: ScoringConfig { channels: Vec::new(), ..scoring },
            trial: Trial::default(),
            telemetry: Telemetry::default(),
        });
        Ok(parts)
    }

    /// How forecasts are held against frames, whatever is scored of them.
    fn verification(&self) -> ScoringConfig {
        let revised = self.admission.revise_within.unwrap_or(0);
        let own = self.scoring.as_ref().and_then(|section| section.correct_within);
        ScoringConfig {
            largest_jump: Some(self.admission.largest_jump),
            correct_within: own.unwrap_or(revised.saturating_add(3)),
            ..ScoringConfig::default()
        }
    }

    /// Serves the dashboard of the job that `parts` make, if it is to have one.
    ///
    /// # Errors
    /// When its address is not to be had.
    pub fn serve(&self, parts: &mut Parts) -> Result<Option<Served>> {
        let Some(dashboard) = &self.dashboard else { return Ok(None) };
        let about = About::of(&self.name, parts, &self.cluster());
        let lags = parts.sources.iter().filter_map(Source::lag).collect();
        parts.telemetry =
            Telemetry::listen(about, &parts.catalogue, &parts.counts, &parts.totals, lags);
        if let Some(swap) = &mut parts.swap {
            swap.telemetry = parts.telemetry.clone();
        }
        let served = dashboard::serve(dashboard, &parts.telemetry)?;
        tracing::info!("the dashboard is at http://{}", served.address());
        Ok(Some(served))
    }

    /// Opens the sources.
    ///
    /// # Errors
    /// When one cannot be opened, naming it.
    pub fn sources(&self) -> Result<Vec<Source>> {
        let open = |(i, source): (usize, &SourceConfig)| {
            source.open(&self.name).with_context(|| format!("sources[{i}]"))
        };
        self.sources.iter().enumerate().map(open).collect()
    }

    /// The parts of the job around opened `sources` and a `checkpoint`.
    ///
    /// # Errors
    /// As [`open`](Job::open).
    pub fn assemble(&self, sources: Vec<Source>, checkpoint: Checkpoint) -> Result<Parts> {
        self.assemble_since(sources, checkpoint, &[])
    }

    /// The parts around a `checkpoint` that others have served `before`.
    fn assemble_since(
        &self,
        sources: Vec<Source>,
        checkpoint: Checkpoint,
        before: &[Arc<str>],
    ) -> Result<Parts> {
        let catalogue = catalogue(&sources)?;
        for sensor in catalogue.known().chain(catalogue.any()) {
            fits(&checkpoint.config, sensor)?;
            other_grid(checkpoint.provenance.grid, sensor);
            self.model.leads.iter().try_for_each(|&leads| reaches(leads, sensor))?;
        }
        products(self, &checkpoint.config)?;
        self.device.check()?;
        places::check(self, &catalogue)?;
        let (mut sinks, mut ledger) = (Vec::new(), None);
        for (i, sink) in self.sinks.iter().enumerate() {
            let opened = sink.open(&self.name, &sources, &catalogue);
            match opened.with_context(|| format!("sinks[{i}]"))? {
                Opened::Sink(sink) => sinks.push(sink),
                Opened::Ledger(only) => {
                    ensure!(ledger.is_none(), "sinks[{i}]: a job keeps its progress in one place");
                    ledger = Some(*only);
                }
            }
        }
        ensure!(
            ledger.is_none() || self.name != name(),
            "name: give the job a name of its own: with Kafka it is the consumer group and the \
             transactional id, and two jobs of one name end each other"
        );
        let needs_ledger = sources.iter().any(|source| matches!(source, Source::Kafka(_)));
        ensure!(
            ledger.is_some() || !needs_ledger,
            "sinks: a job that reads Kafka keeps its progress there; add {{type: kafka, cluster: \
             ..., topic: ...}}, without `topic` if its forecasts go elsewhere"
        );
        let mut products: Vec<String> =
            self.sinks.iter().flat_map(|sink| sink.products().to_vec()).collect();
        products.extend(self.scoring.iter().flat_map(|scoring| scoring.products.clone()));
        if self.learn.is_some() {
            products.extend(["advection", "persistence"].map(String::from));
        }
        products.sort();
        products.dedup();
        let ensemble = self.ensemble.as_ref().map(|section| EnsembleConfig {
            members: section.members,
            memory: section.memory,
            transforms: checkpoint.config.variables.iter().map(|v| v.transform).collect(),
            quantiles: products.iter().filter_map(|name| Quantile::named(name)).collect(),
        });
        let rejects = self
            .rejects
            .as_ref()
            .map(|config| RejectsSink::Directory(config.clone(), catalogue.clone()));
        let variables = &checkpoint.config.variables;
        let scoring = self.scoring.as_ref().map(|section| ScoringConfig {
            channels: variables.iter().map(|v| section.metrics(&v.units)).collect(),
            ..self.verification()
        });
        let (totals, mut scores) = (Totals::default(), None);
        if let Some((path, scoring)) =
            self.scoring.as_ref().and_then(|section| section.store.as_ref()).zip(scoring.as_ref())
        {
            let (file, verified) =
                ScoresFile::open(path, &checkpoint.id, before, &scoring.channels)?;
            *totals.now() = verified;
            scores = Some(file);
        }
        let written = progress(&sinks, &catalogue)?;
        sources.iter().try_for_each(|source| goes_on(source, &written))?;
        let mut parts = Parts {
            resume: resume(&written, &catalogue),
            drift: self.drift.config(checkpoint.usage.as_ref())?,
            health: Health::default(),
            sources,
            admission: self.admission.clone(),
            bank: Bank::default(),
            fuse: FuseConfig { products, leads: self.model.leads },
            checkpoint,
            processor: self.device.clone(),
            precision: self.precision,
            batch: self.batch,
            in_flight: self.in_flight,
            sinks,
            rejects: rejects.unwrap_or_default(),
            ledger,
            scoring,
            totals,
            scores,
            learn: None,
            ensemble,
            counts: Counts::default(),
            telemetry: Telemetry::default(),
            rivals: Rivals::default(),
            ensembles: Ensembles::default(),
            study: Study::default(),
            swap: None,
            catalogue,
        };
        parts.learn = self.learn.as_ref().map(|&LearnSection { memory, gate }| {
            // What a restart makes again is what waits for its verification, and what the file of
            // scores may be ahead of the sinks.
            // As many versions of frames as a gate remembers.
            let keep = 4 * parts.pending() + self.in_flight as usize;
            LearnConfig { memory, gate, keep }
        });
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::config::{load, parse};

    #[test]
    fn a_job_is_short_and_typos_are_refused() {
        let text = "sources: [{type: zarr, path: a.zarr}]\nmodel: {checkpoint: m.safetensors}\n";
        let job: Job = parse(text, false).unwrap();
        job.check().unwrap();
        assert_eq!((job.workers, job.sinks.len()), (1, 0));
        for (bad, expected) in [
            ("wrokers: 2", "wrokers: unknown field"),
            ("admission: {gap: leap}", "admission.gap: unknown variant"),
            ("sinks: [{type: kafak}]", "sinks[0]"),
            ("device: gpu", "device: \"gpu\" is no device"),
            ("learn: {memroy: 9}", "learn.memroy: unknown field"),
            ("sinks: [{type: zarr, path: a, prodcuts: []}]", "sinks[0]"),
        ] {
            let error = parse::<Job>(&format!("{text}{bad}"), false).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        for (bad, expected) in [
            ("workers: 0", "workers"),
            ("model: {checkpoint: m.safetensors, leads: 0}", "model.leads"),
            ("process: 1", "process"),
            ("scoring: {data_range: [1, 0]}", "scoring.data_range"),
            ("drift: {alarm: 1.5}", "drift.alarm"),
            ("drift: {window: 0}", "drift.window"),
            ("learn: {memory: 0}", "learn.memory"),
            ("ensemble: {members: 1}", "ensemble.members"),
            ("ensemble: {memory: 0}", "ensemble.memory"),
            ("dashboard: {listen: '0.0.0.0:8080'}", "dashboard.listen"),
            ("dashboard: {listen: 8080 please}", "dashboard.listen"),
        ] {
            let job: Job = parse(&format!("{text}{bad}"), false).unwrap();
            let error = job.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn every_shipped_config_loads() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut folders = vec![root];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if !matches!(&*kind, "yaml" | "yml" | "toml") {
                    continue;
                } else if stem.contains("train") || path.ends_with(format!("model/{stem}.{kind}")) {
                    load::<crate::training::TrainConfig>(&path).unwrap();
                } else if stem.contains("simulate") {
                    load::<physicnet_connectors::synthetic::SyntheticSource>(&path).unwrap();
                } else {
                    load::<Job>(&path).unwrap().check().unwrap();
                }
            }
        }
    }
}
