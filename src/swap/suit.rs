//! Whether a model may take another's place in a running job.

use std::sync::Arc;

use anyhow::{Result, ensure};
use physicnet_operators::model::{Checkpoint, ModelConfig};
use physicnet_stream::Sensor;

use crate::config::fits;

/// Whether `candidate` may take the place of `serving`: the stores, topics and windows of the job
/// are made for what that one forecasts, with these `products` beside.
///
/// # Errors
/// Says what differs: the model itself, history, horizon, channels, their units, cadence, grid or
/// heads.
pub fn replaces(
    serving: &Checkpoint,
    candidate: &Checkpoint,
    products: &[String],
    sensors: &[Arc<Sensor>],
) -> Result<()> {
    ensure!(candidate.id != serving.id, "model {} serves already", candidate.id);
    let (ours, theirs) = (&serving.config, &candidate.config);
    forecasts_alike(ours, theirs, sensors)?;
    if let (Some(ours), Some(theirs)) = (serving.provenance.grid, candidate.provenance.grid) {
        let [a, b, c, d] = [theirs[0], theirs[1], ours[0], ours[1]];
        ensure!(
            ours == theirs,
            "grid: it was trained on frames of {a} x {b} pixels, the one that serves on {c} x {d}"
        );
    }
    let sharp = products.iter().any(|product| product == "sharp");
    ensure!(
        !sharp || theirs.sharp || !ours.sharp,
        "heads: the job's sinks hold the product `sharp`, and it has no sharp head"
    );
    Ok(())
}

/// Whether a network made like `theirs` forecasts what one made like `ours` does, from the same
/// frames.
pub(super) fn forecasts_alike(
    ours: &ModelConfig,
    theirs: &ModelConfig,
    sensors: &[Arc<Sensor>],
) -> Result<()> {
    let frames = |n| if n == 1 { "1 frame".to_owned() } else { format!("{n} frames") };
    ensure!(
        theirs.history == ours.history,
        "history: it forecasts from {}, the job's windows hold {}",
        frames(theirs.history),
        frames(ours.history)
    );
    ensure!(
        theirs.horizon == ours.horizon,
        "horizon: it forecasts {} leads, the job's sinks hold {}",
        theirs.horizon,
        ours.horizon
    );
    let channels = |config: &ModelConfig| {
        let named = config.variables.iter().map(|v| format!("{} [{}]", v.name, v.units));
        named.collect::<Vec<_>>().join(", ")
    };
    ensure!(
        channels(theirs) == channels(ours),
        "channels: it forecasts {}, the job {}",
        channels(theirs),
        channels(ours)
    );
    for sensor in sensors {
        fits(theirs, sensor)?;
        // What a job may start with, a swap must not bring in unseen.
        let trained = theirs.cadence.filter(|cadence| *cadence != sensor.cadence);
        let trained = trained.filter(|_| theirs.cadence != ours.cadence);
        ensure!(
            trained.is_none(),
            "cadence: it was trained at {} s, sensor {} has {} s",
            trained.map_or(0.0, |cadence| cadence.nanoseconds() as f64 / 1e9),
            sensor.id,
            sensor.cadence.nanoseconds() as f64 / 1e9
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use physicnet_operators::model::VariableConfig;
    use physicnet_stream::{Axis, Cadence, Grid, Variable};

    use super::*;

    #[test]
    fn only_its_like_takes_a_models_place() {
        let variable = |name: &str| Variable { name: name.into(), units: "m s-1".into() };
        let minute = Cadence::new(60_000_000_000).unwrap();
        let (y, x) = (Axis::index("y", 16), Axis::index("x", 16));
        let grid = Grid { variables: vec![variable("u")], y, x };
        let sensors = [Arc::new(Sensor { id: "a".into(), grid, cadence: minute })];
        let config = ModelConfig {
            variables: vec![VariableConfig::for_variable(&variable("u"))],
            cadence: Some(minute),
            ..ModelConfig::default()
        };
        let model = |id: &str, config: ModelConfig| {
            let mut made = Checkpoint::untrained(&config).unwrap();
            (made.id, made.provenance.grid) = (id.into(), Some([16, 16]));
            made
        };
        let serving = model("1", ModelConfig { sharp: true, ..config.clone() });
        let products = ["sharp".to_owned()];
        let why = |candidate: &Checkpoint| {
            let told = replaces(&serving, candidate, &products, &sensors);
            told.err().map_or_else(String::new, |error| error.to_string())
        };
        let like = ModelConfig { sharp: true, hidden: 32, ..config.clone() };
        assert_eq!(why(&model("2", like.clone())), "");
        assert!(why(&model("1", like.clone())).contains("serves already"));
        let second = Cadence::new(1_000_000_000).unwrap();
        let other = vec![VariableConfig::for_variable(&variable("v"))];
        for (config, what) in [
            (ModelConfig { history: 7, ..like.clone() }, "history: it forecasts from 7 frames"),
            (ModelConfig { horizon: 3, ..like.clone() }, "horizon: it forecasts 3 leads"),
            (ModelConfig { variables: other, ..like.clone() }, "channels: it forecasts v [m s-1]"),
            (
                ModelConfig { cadence: Some(second), ..like.clone() },
                "cadence: it was trained at 1 s",
            ),
            (ModelConfig { sharp: false, ..like.clone() }, "heads"),
        ] {
            let told = why(&model("2", config));
            assert!(told.starts_with(what), "{told}");
        }
        let mut larger = model("2", like);
        larger.provenance.grid = Some([32, 16]);
        assert!(why(&larger).starts_with("grid: it was trained on frames of 32 x 16"));
    }
}
