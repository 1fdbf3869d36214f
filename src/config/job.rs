//! What a job file says, and how it becomes the parts of a dataflow.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use physicnet_connectors::rejects::RejectsConfig;
use physicnet_connectors::{Opened, RejectsSink, Sink, SinkConfig, Source, SourceConfig};
use physicnet_operators::admission::AdmissionConfig;
use physicnet_operators::fusion::FuseConfig;
use physicnet_operators::learning::LearnConfig;
use physicnet_operators::model::{Checkpoint, ModelConfig, Serve, VariableConfig};
use physicnet_operators::scoring::{Fss, Metrics, Scale, ScoringConfig, Totals};
use physicnet_stream::{Catalogue, Position, Resume, Sensor, SensorId};
use serde::{Deserialize, Serialize};

use super::{DriftSection, LearnSection};
use crate::dashboard::{self, DashboardConfig, Served};
use crate::engine::{Cluster, Counts, Parts};
use crate::health::Health;
use crate::scores::ScoresFile;
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// How many epochs may be open at once: a bound of the memory, and of the largest batch.
    #[serde(default = "in_flight")]
    pub in_flight: u64,
    /// The most windows that are computed as one batch.
    #[serde(default = "batch")]
    pub batch: usize,
}

/// The network of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The file that `physicnet train` left.
    pub checkpoint: Option<PathBuf>,
    /// Without a checkpoint: an untrained model, whose forecast is its expert's.
    pub untrained: Option<ModelConfig>,
    /// Which head is served, if not the one that the checkpoint says.
    pub serve: Option<Serve>,
}

/// What is verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoringSection {
    /// What is forecast and scored beside the served product: `mean`, `sharp`, `persistence`,
    /// `advection`, `trend`. Heads that the model lacks are left out.
    pub products: Vec<String>,
    /// CSI, POD and FAR are taken above these, in the units of the data; absent, at 0.1, 1 and
    /// 5 for rain in mm/h and not at all for anything else.
    pub thresholds: Option<Vec<f64>>,
    /// Whether structural similarity is taken; it costs more than all other scores together.
    pub ssim: bool,
    /// The least and the largest value of the data, for the SSIM of anything but rain.
    pub data_range: Option<[f64; 2]>,
    /// The fractions skill scores; absent, at 1 mm/h over 10 pixels for rain alone.
    pub fss: Option<Vec<Fss>>,
    /// Frames and forecasts that come late, or again, change the scores while they are at most so
    /// many cadences behind the newest frame; absent, 3 more than `admission.revise_within`.
    pub correct_within: Option<u32>,
    /// The file that keeps the scores over a restart; absent, they begin anew.
    pub store: Option<PathBuf>,
}

impl Default for ScoringSection {
    fn default() -> Self {
        let products = ["persistence", "advection"].map(String::from).into();
        Self {
            products,
            thresholds: None,
            ssim: false,
            data_range: None,
            fss: None,
            correct_within: None,
            store: None,
        }
    }
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

impl ScoringSection {
    /// What is scored of a variable in `units`.
    pub fn metrics(&self, units: &str) -> Metrics {
        let usual = Metrics::usual(units);
        let linear =
            |[minimum, maximum]: [f64; 2]| Scale::Linear { minimum, range: maximum - minimum };
        Metrics {
            thresholds: self.thresholds.clone().unwrap_or(usual.thresholds),
            ssim: if self.ssim { usual.ssim.or(self.data_range.map(linear)) } else { None },
            fss: self.fss.clone().unwrap_or(usual.fss),
        }
    }
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
        let revised = self.admission.revise_within.unwrap_or(0);
        if let Some(within) = self.scoring.as_ref().and_then(|scoring| scoring.correct_within) {
            ensure!(
                within >= revised,
                "scoring.correct_within: {within} is less than admission.revise_within, {revised}: \
                 revised forecasts would not be verified"
            );
        }
        self.drift.check()?;
        self.learn.iter().try_for_each(LearnSection::check)?;
        if let Some(dashboard) = &self.dashboard {
            dashboard.address()?;
        }
        if let Some([lo, hi]) = self.scoring.as_ref().and_then(|s| s.data_range) {
            ensure!(lo < hi, "scoring.data_range: [{lo}, {hi}]; the second must be larger");
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
        let mut checkpoint = match (&self.model.checkpoint, &self.model.untrained) {
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
        if let Some(serve) = self.model.serve {
            checkpoint.config.serve = serve;
            checkpoint.config.check()?;
        }
        Ok(checkpoint)
    }

    /// Opens everything that the job names.
    ///
    /// # Errors
    /// When something cannot be opened, or the sensors, the model and the sinks do not suit one
    /// another.
    pub fn open(&self) -> Result<Parts> {
        self.check()?;
        let sources = self.sources()?;
        let checkpoint = self.checkpoint(&kinds(&sources)?)?;
        self.assemble(sources, checkpoint)
    }

    /// Serves the dashboard of the job that `parts` make, if it is to have one.
    ///
    /// # Errors
    /// When its address is not to be had.
    pub fn serve(&self, parts: &mut Parts) -> Result<Option<Served>> {
        let Some(dashboard) = &self.dashboard else { return Ok(None) };
        let about = About::of(&self.name, parts, &self.cluster());
        parts.telemetry = Telemetry::listen(about, &parts.catalogue, &parts.counts, &parts.totals);
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
        let catalogue = catalogue(&sources)?;
        for sensor in catalogue.known().chain(catalogue.any()) {
            fits(&checkpoint.config, sensor)?;
        }
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
        let rejects = self
            .rejects
            .as_ref()
            .map(|config| RejectsSink::Directory(config.clone(), catalogue.clone()));
        let revised = self.admission.revise_within.unwrap_or(0);
        let variables = &checkpoint.config.variables;
        let scoring = self.scoring.as_ref().map(|section| ScoringConfig {
            channels: variables.iter().map(|v| section.metrics(&v.units)).collect(),
            correct_within: section.correct_within.unwrap_or(revised + 3),
            ..ScoringConfig::default()
        });
        let (totals, mut scores) = (Totals::default(), None);
        if let Some((path, scoring)) =
            self.scoring.as_ref().and_then(|section| section.store.as_ref()).zip(scoring.as_ref())
        {
            let (file, verified) = ScoresFile::open(path, &checkpoint.id, &scoring.channels)?;
            *totals.now() = verified;
            scores = Some(file);
        }
        let resume = resume(&sinks, &catalogue)?;
        sources.iter().try_for_each(|source| reaches(source, &resume))?;
        let mut parts = Parts {
            resume,
            drift: self.drift.config(checkpoint.usage.as_ref())?,
            health: Health::default(),
            sources,
            admission: self.admission.clone(),
            fuse: FuseConfig { model: Arc::clone(&checkpoint.id), products },
            checkpoint,
            device: Device::Cpu,
            batch: self.batch,
            in_flight: self.in_flight,
            sinks,
            rejects: rejects.unwrap_or_default(),
            ledger,
            scoring,
            totals,
            scores,
            learn: None,
            counts: Counts::default(),
            telemetry: Telemetry::default(),
            catalogue,
        };
        parts.learn = self.learn.as_ref().map(|&LearnSection { memory, gate }| {
            // What a restart makes again is what waits for its verification, and what the file of
            // scores may be ahead of the sinks.
            let keep = parts.pending() + self.in_flight as usize;
            LearnConfig { memory, gate, keep }
        });
        Ok(parts)
    }
}

/// Every sensor of the sources that is known by name, in their order.
fn sensors(sources: &[Source]) -> Result<Vec<Arc<Sensor>>> {
    let lists = sources.iter().map(|source| Ok(source.sensors()?));
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

/// What the sensors of the sources are like, whatever their names.
fn kinds(sources: &[Source]) -> Result<Vec<Arc<Sensor>>> {
    let any = sources.iter().filter_map(Source::any).map(Arc::clone);
    Ok(sensors(sources)?.into_iter().chain(any).collect())
}

fn catalogue(sources: &[Source]) -> Result<Catalogue> {
    let mut catalogue = Catalogue::default();
    for sensor in sensors(sources)? {
        let id = sensor.id.clone();
        ensure!(
            catalogue.insert(sensor),
            "sources: two sensors are called {id}; give one source another `sensor` or `name`"
        );
    }
    for any in sources.iter().filter_map(Source::any) {
        ensure!(
            catalogue.insert_any(Arc::clone(any)),
            "sources: two of them take sensors of any name; name the `sensors` of one"
        );
    }
    ensure!(!catalogue.is_empty(), "sources: they have no sensors");
    Ok(catalogue)
}

/// Whether the model can take the frames of the sensor.
fn fits(model: &ModelConfig, sensor: &Sensor) -> Result<()> {
    let expected: Vec<&str> = model.variables.iter().map(|v| v.name.as_str()).collect();
    let found: Vec<&str> = sensor.grid.variables.iter().map(|v| v.name.as_str()).collect();
    ensure!(
        expected == found,
        "sensor {}: it measures {found:?} and the model was made for {expected:?}; \
         choose them by the source's `variables`",
        sensor.id
    );
    for (variable, measured) in model.variables.iter().zip(&sensor.grid.variables) {
        let (ours, theirs) = (&variable.units, &measured.units);
        ensure!(
            ours.is_empty() || theirs.is_empty() || ours == theirs,
            "sensor {}: {} is in \"{theirs}\" and the model was made for \"{ours}\"; convert the \
             data, or, if the two mean the same, write the model's unit into its `units`",
            sensor.id,
            variable.name
        );
    }
    let [_, height, width] = sensor.grid.shape();
    model.check_size(height, width).with_context(|| format!("sensor {}", sensor.id))?;
    if let Some(cadence) = model.cadence.filter(|cadence| *cadence != sensor.cadence) {
        tracing::warn!(
            sensor = %sensor.id,
            "the model was trained at a cadence of {} s; this sensor has {} s",
            cadence.nanoseconds() as f64 / 1e9,
            sensor.cadence.nanoseconds() as f64 / 1e9,
        );
    }
    Ok(())
}

/// Whether a store still has the frames that the job goes on at.
fn reaches(source: &Source, resume: &Resume) -> Result<()> {
    let Source::Zarr(archive) = source else { return Ok(()) };
    for (at, sensor) in archive.sensors().iter().enumerate() {
        let (from, frames) = (resume.from(&sensor.id), archive.times(at).len());
        let last = (0..frames).rev().find_map(|frame| archive.offset(frame));
        ensure!(
            from == 0 || last.is_some_and(|last| from <= last),
            "sensor {}: its store has {frames} frames and the job goes on at frame {from}: was it \
             made anew? Give the job other sinks to begin anew as well",
            sensor.id
        );
    }
    Ok(())
}

/// Where reading goes on, so that no sink misses a forecast: the least advanced one decides.
fn resume(sinks: &[Sink], catalogue: &Catalogue) -> Result<Resume> {
    let mut least: Option<BTreeMap<SensorId, u64>> = None;
    for sink in sinks.iter().filter(|sink| !matches!(sink, Sink::Call(_))) {
        let progress = sink.progress(catalogue)?;
        let offsets = catalogue.known().map(|sensor| {
            let progress = progress.get(&sensor.id);
            (sensor.id.clone(), progress.map_or(0, |progress| progress.replay_from))
        });
        least = Some(match least {
            None => offsets.collect(),
            Some(least) => offsets
                .map(|(sensor, offset)| (sensor.clone(), offset.min(least[&sensor])))
                .collect(),
        });
    }
    let window = |(sensor, offset): (SensorId, u64)| {
        let position = Position { log: sensor.as_str().into(), offset };
        (sensor, vec![position])
    };
    let windows = least.unwrap_or_default().into_iter().map(window).collect();
    Ok(Resume { windows, ..Resume::default() })
}

#[cfg(test)]
mod tests {
    use physicnet_stream::{Axis, Cadence, Grid, Variable};

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
            ("learn: {memroy: 9}", "learn.memroy: unknown field"),
            ("sinks: [{type: zarr, path: a, prodcuts: []}]", "sinks[0]"),
        ] {
            let error = parse::<Job>(&format!("{text}{bad}"), false).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        for (bad, expected) in [
            ("workers: 0", "workers"),
            ("process: 1", "process"),
            ("scoring: {data_range: [1, 0]}", "scoring.data_range"),
            ("drift: {alarm: 1.5}", "drift.alarm"),
            ("drift: {window: 0}", "drift.window"),
            ("learn: {memory: 0}", "learn.memory"),
            ("dashboard: {listen: '0.0.0.0:8080'}", "dashboard.listen"),
            ("dashboard: {listen: 8080 please}", "dashboard.listen"),
        ] {
            let job: Job = parse(&format!("{text}{bad}"), false).unwrap();
            let error = job.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_model_takes_only_its_units() {
        let sensor = |units: &str| {
            let variables = vec![Variable { name: "t2m".into(), units: units.into() }];
            let grid = Grid { variables, y: Axis::index("y", 16), x: Axis::index("x", 16) };
            Sensor { id: "a".into(), grid, cadence: Cadence::new(1).unwrap() }
        };
        let variables = vec![VariableConfig::for_variable(&sensor("K").grid.variables[0])];
        let model = ModelConfig { variables, ..ModelConfig::default() };
        fits(&model, &sensor("K")).unwrap();
        fits(&model, &sensor("")).unwrap();
        let error = fits(&model, &sensor("degC")).unwrap_err().to_string();
        assert!(error.contains("degC") && error.contains("\"K\""), "{error}");
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
                } else if stem.contains("train") {
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
