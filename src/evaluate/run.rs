//! Replays a period through the dataflow and scores what it forecast.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use physicnet_connectors::{Source, SourceConfig};
use physicnet_operators::fusion::PRODUCTS;
use physicnet_operators::scoring::{Fss, Metrics, Span};
use physicnet_stream::{Sensor, Stop, Time, format_time};

use super::{Against, Ensembles, Report, Rivals};
use crate::config::{Job, ScoringSection};
use crate::engine;
use crate::study::{About, Findings, Study};

/// Which forecasts are scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The first reference time; absent, the first full window.
    pub from: Option<Time>,
    /// The valid time to stop reading before; absent, the end.
    pub to: Option<Time>,
    /// Of the reference times from `from` on, every how manieth; 0 is 1.
    pub stride: u64,
}

/// What an evaluation takes in and finds out beside the usual scores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Forecasts of others, scored like the job's own.
    pub against: Vec<Against>,
    /// Whether more than scores is wanted: spectra, maps, cases, contests, the codebook, and
    /// fractions skill scores at every threshold over windows of 1, 2, 4, ... pixels.
    pub study: bool,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The scores.
    pub report: Report,
    /// What else was wanted, and what it is about.
    pub study: Option<(About, Findings)>,
}

/// Runs `job` over its sources' archives, without waiting at their end, and scores the served
/// product, both heads, persistence, advection and the linear trend. Its sinks get the forecasts.
///
/// # Errors
/// When the job does not fit together, a source never ends, what is wanted is not to be had, or
/// the run fails.
pub fn evaluate(job: &Job, period: &Period, wanted: &Wanted, stop: &Stop) -> Result<Evaluation> {
    let mut job = job.clone();
    ensure!(
        job.hosts.len() < 2 || !wanted.study,
        "hosts: a report is made by one process; leave `hosts` out"
    );
    job.check()?;
    let mut scoring = job.scoring.take().unwrap_or_default();
    scoring.products = PRODUCTS.map(String::from).into();
    // A job's own scores go on without it, and it begins with none.
    scoring.store = None;
    job.sources.iter().try_for_each(ends)?;
    let whole = job.sources()?;
    let known = whole.iter().map(Source::sensors).collect::<Result<Vec<_>, _>>()?;
    let sensors = known.concat();
    let checkpoint = job.checkpoint(&sensors)?;
    for (source, own) in job.sources.iter_mut().zip(&known) {
        restrict(source, period, checkpoint.config.history, own);
    }
    let variables = checkpoint.config.variables.clone();
    let ranges = if scoring.ssim && scoring.data_range.is_none() {
        let skewed = |i: usize| Metrics::usual(&variables[i].units).ssim.is_some();
        if (0..variables.len()).all(skewed) { Vec::new() } else { data_ranges(&whole)? }
    } else {
        Vec::new()
    };
    let asked: Vec<Metrics> = (variables.iter().enumerate())
        .map(|(i, variable)| {
            let data_range = scoring.data_range.or(ranges.get(i).copied());
            ScoringSection { data_range, ..scoring.clone() }.metrics(&variable.units)
        })
        .collect();
    let mut channels = asked.clone();
    if wanted.study {
        channels.iter_mut().for_each(|metrics| add_scales(metrics, &sensors));
    }
    job.scoring = Some(scoring);
    let mut parts = job.assemble(job.sources()?, checkpoint)?;
    if let Some(config) = &mut parts.scoring {
        config.channels.clone_from(&channels);
        config.from = period.from;
        config.stride = period.stride;
    }
    parts.rivals = Rivals::open(&wanted.against, &sensors)?;
    if parts.rivals.any_ensemble() || parts.ensemble.is_some() {
        parts.ensembles = Ensembles::begin();
    }
    if wanted.study {
        let about = About::new(&parts, sensors, period.stride);
        parts.study = Study::begin(about);
    }
    let (study, ensembles) = (parts.study.clone(), parts.ensembles.clone());
    let (totals, model) = (parts.totals.clone(), Arc::clone(&parts.checkpoint.id));
    engine::run(parts, &job.cluster(), stop)?;
    let variables: Vec<_> =
        variables.into_iter().zip(channels).map(|(v, m)| (v.name, v.units, m)).collect();
    let mut report =
        Report::new(&model, &totals.over(Span::All), &variables).with(ensembles.verified());
    for (variable, asked) in report.variables.iter_mut().zip(&asked) {
        variable.told = asked.fss.len();
    }
    let study = study.about().map(|about| (about.clone(), study.findings()));
    Ok(Evaluation { report, study })
}

/// Adds fractions skill scores at every threshold over windows of 1, 2, 4, ... pixels, up to half
/// of the shorter side of the smallest frame.
fn add_scales(metrics: &mut Metrics, sensors: &[Arc<Sensor>]) {
    let sides = sensors.iter().flat_map(|sensor| sensor.grid.shape()[1..].to_vec());
    let most = sides.min().unwrap_or(1) / 2;
    for &threshold in &metrics.thresholds {
        for scale in (0..).map(|power| 1 << power).take_while(|scale| *scale <= most.max(1)) {
            let fss = Fss { threshold, scale };
            if !metrics.fss.contains(&fss) {
                metrics.fss.push(fss);
            }
        }
    }
}

/// Whether a source comes to an end by itself.
fn ends(source: &SourceConfig) -> Result<()> {
    match source {
        SourceConfig::Synthetic(synthetic) if synthetic.frames.is_none() => {
            bail!("sources: simulated sensors never end; set `frames`")
        }
        SourceConfig::Kafka(kafka) => bail!(
            "sources: topics {:?} go on for ever; evaluate an archive, or `run` the job with \
             `scoring`",
            kafka.topics
        ),
        SourceConfig::Zarr(_) | SourceConfig::Synthetic(_) => Ok(()),
    }
}

/// Narrows a source to what the period needs, with the frames of the first window of its own
/// sensors before it.
fn restrict(source: &mut SourceConfig, period: &Period, history: usize, own: &[Arc<Sensor>]) {
    match source {
        SourceConfig::Zarr(zarr) => {
            zarr.follow = false;
            zarr.rate = None;
            if let (Some(from), Some(sensor)) = (period.from, own.first()) {
                let first = sensor.cadence.after(from, 1 - history as i64);
                zarr.from = Some(format_time(first));
            }
            if let Some(to) = period.to {
                zarr.to = Some(format_time(to));
            }
        }
        SourceConfig::Synthetic(synthetic) => synthetic.rate = None,
        // Never ends.
        SourceConfig::Kafka(_) => {}
    }
}

/// The least and the largest value of every channel over all frames of the archives.
///
/// # Errors
/// When a frame cannot be read, or a source is no archive.
pub fn data_ranges(sources: &[Source]) -> Result<Vec<[f64; 2]>> {
    let mut ranges: Vec<[f64; 2]> = Vec::new();
    for source in sources {
        let Source::Zarr(archive) = source else {
            bail!("scoring.data_range: give it; simulated data has no archive to take it from");
        };
        for sensor in 0..archive.sensors().len() {
            for frame in 0..archive.times(sensor).len() {
                let frame = archive.read(sensor, frame)?;
                let pixels = (frame.shape[1] * frame.shape[2]).max(1);
                ranges.resize(frame.shape[0], [f64::INFINITY, f64::NEG_INFINITY]);
                for ([lo, hi], field) in ranges.iter_mut().zip(frame.data.chunks(pixels)) {
                    for &value in field.iter().filter(|v| v.is_finite()) {
                        *lo = lo.min(value.into());
                        *hi = hi.max(value.into());
                    }
                }
            }
        }
    }
    let span = |[lo, hi]: [f64; 2]| if lo < hi { [lo, hi] } else { [0.0, 1.0] };
    Ok(ranges.into_iter().map(span).collect())
}
