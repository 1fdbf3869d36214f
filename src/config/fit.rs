//! Whether the sensors, the model and the sinks of a job suit one another, and where it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use physicnet_connectors::zarr::{Progress, shown};
use physicnet_connectors::{Sink, Source};
use physicnet_operators::ensemble::Quantile;
use physicnet_operators::fusion::PRODUCTS;
use physicnet_operators::model::ModelConfig;
use physicnet_stream::{Catalogue, Position, Resume, Sensor, SensorId, format_time};

use super::Job;

/// The most bytes of a product of one forecast that a job may ask for.
const LARGEST: usize = 1 << 29;
/// The most leads.
const FURTHEST: usize = 10_000;

/// Every sensor of the sources that is known by name, in their order.
fn sensors(sources: &[Source]) -> Result<Vec<Arc<Sensor>>> {
    let lists = sources.iter().map(|source| Ok(source.sensors()?));
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

/// What the sensors of the sources are like, whatever their names.
pub(super) fn kinds(sources: &[Source]) -> Result<Vec<Arc<Sensor>>> {
    let any = sources.iter().filter_map(Source::any).map(Arc::clone);
    Ok(sensors(sources)?.into_iter().chain(any).collect())
}

pub(super) fn catalogue(sources: &[Source]) -> Result<Catalogue> {
    let mut catalogue = Catalogue::default();
    for sensor in sensors(sources)? {
        let id = sensor.id.clone();
        ensure!(
            catalogue.insert(sensor),
            "sources: two sensors are called {id}; give a store another `sensor`, a simulation \
             another `name`, and name a sensor of topics under the `sensors` of one source alone"
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

/// Whether the sensor measures what the model is made for, in its units.
pub(crate) fn measures(model: &ModelConfig, sensor: &Sensor) -> Result<()> {
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
    Ok(())
}

/// Whether the model can take the frames of the sensor.
pub(crate) fn fits(model: &ModelConfig, sensor: &Sensor) -> Result<()> {
    measures(model, sensor)?;
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

/// Warns of frames of another size than those that the network was trained on.
pub(super) fn other_grid(trained: Option<[usize; 2]>, sensor: &Sensor) {
    let [_, height, width] = sensor.grid.shape();
    if let Some([rows, columns]) = trained.filter(|trained| *trained != [height, width]) {
        tracing::warn!(
            sensor = %sensor.id,
            "the model was trained on frames of {rows} x {columns} pixels; this sensor has {height} x \
             {width}. It knows of pixels and not of distances: where they are another spacing apart, \
             motion and sizes are not what it learnt; regrid the data to its spacing, or train on them"
        );
    }
}

/// Whether a job holds forecasts of so many leads.
pub(super) fn reaches(leads: usize, sensor: &Sensor) -> Result<()> {
    let lead = 4 * sensor.grid.shape().iter().product::<usize>();
    let most = (LARGEST / lead.max(1)).clamp(1, FURTHEST);
    ensure!(
        leads <= most,
        "model.leads: {leads} leads of {} are more than memory holds, several forecasts of which are \
         always on their way; say {most} or fewer",
        sensor.id
    );
    Ok(())
}

/// Whether the job makes every product that it names.
pub(super) fn products(job: &Job, model: &ModelConfig) -> Result<()> {
    let known = |key: &str, name: &str| match name {
        "network" if job.learn.is_none() => bail!(
            "{key}: network is a product of jobs that learn, and this one has no `learn`; leave it \
             out: what is served is the network's"
        ),
        "network" | "physicnet" => Ok(()),
        name if PRODUCTS.contains(&name) => Ok(()),
        name if Quantile::named(name).is_some() => {
            ensure!(
                job.ensemble.is_some(),
                "{key}: {name} is a quantile of an ensemble, and this job has none; add `ensemble: {{}}`"
            );
            Ok(())
        }
        name => bail!(
            "{key}: no product is called {name}; there are {}, and quantiles of an ensemble, as q10",
            PRODUCTS.join(", ")
        ),
    };
    for name in job.scoring.iter().flat_map(|scoring| &scoring.products) {
        known("scoring.products", name)?;
    }
    for (i, sink) in job.sinks.iter().enumerate() {
        let (key, mut named) = (format!("sinks[{i}].products"), BTreeSet::new());
        for name in sink.products() {
            known(&key, name)?;
            ensure!(named.insert(name), "{key}: {name} is named twice");
            // Scores leave out what is not there; a store has an array for it.
            ensure!(
                model.sharp || name != "sharp",
                "{key}: the model has no sharp head; leave it out"
            );
        }
    }
    Ok(())
}

/// How far each sink has come that keeps its forecasts.
pub(super) fn progress(
    sinks: &[Sink],
    catalogue: &Catalogue,
) -> Result<Vec<BTreeMap<SensorId, Progress>>> {
    let kept = sinks.iter().filter(|sink| !matches!(sink, Sink::Call(_)));
    kept.map(|sink| Ok(sink.progress(catalogue)?)).collect()
}

/// Whether a store is still the one whose frames the sinks have `written` forecasts of.
pub(super) fn goes_on(source: &Source, written: &[BTreeMap<SensorId, Progress>]) -> Result<()> {
    let Source::Zarr(archive) = source else { return Ok(()) };
    for (at, sensor) in archive.sensors().iter().enumerate() {
        for known in written.iter().filter_map(|written| written.get(&sensor.id)) {
            let Progress { next, time, replay_from, .. } = *known;
            let (store, frames) = (shown(&archive.config().path), archive.times(at).len());
            let last = (0..frames).rev().find_map(|frame| archive.offset(frame));
            ensure!(
                replay_from == 0 || last.is_some_and(|last| replay_from <= last),
                "sensor {}: its store {store} has {frames} frames and the job goes on at frame \
                 {replay_from}: was it made anew? Give the job other sinks to begin anew as well",
                sensor.id
            );
            let read = next.saturating_sub(1);
            let both = time.zip(archive.time_at(read));
            if let Some((known, found)) = both.filter(|(known, found)| known != found) {
                bail!(
                    "sensor {}: frame {read} of its store {store} is of {}, and was of {} when the \
                     job read it: was it made anew? Give the job other sinks to begin anew as \
                     well, or bring the store of before back",
                    sensor.id,
                    format_time(found),
                    format_time(known)
                );
            }
        }
    }
    Ok(())
}

/// Where reading goes on, so that no sink misses a forecast: the least advanced one decides.
pub(super) fn resume(written: &[BTreeMap<SensorId, Progress>], catalogue: &Catalogue) -> Resume {
    let mut resume = Resume::default();
    if !written.is_empty() {
        for sensor in catalogue.known() {
            let least = |of: &dyn Fn(&Progress) -> u64| {
                written.iter().map(|known| known.get(&sensor.id).map_or(0, of)).min().unwrap_or(0)
            };
            let log: Arc<str> = sensor.id.as_str().into();
            let first =
                Position { log: Arc::clone(&log), offset: least(&|known| known.replay_from) };
            resume.windows.insert(sensor.id.clone(), vec![first]);
            // The newest frame may have led to more forecasts than were written: it is judged anew.
            resume.next.insert(log, least(&|known| known.next.saturating_sub(1)));
        }
    }
    resume
}

#[cfg(test)]
mod tests {
    use physicnet_operators::model::VariableConfig;
    use physicnet_stream::{Axis, Cadence, Grid, Variable};

    use super::*;

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
}
