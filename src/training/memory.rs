//! Whether a training fits the machine, told before it begins and not by whoever ends processes.

use anyhow::{Result, ensure};
use physicnet_operators::model::ModelConfig;

use super::config::TrainConfig;

const GIB: f64 = (1_u64 << 30) as f64;
/// From here on it is told where the machine's memory is not known.
const MUCH: f64 = 4.0 * GIB;

/// What a training takes, in bytes, by what takes it: about, within a third of what was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    caches: f64,
    windows: f64,
    activations: f64,
    weights: f64,
}

impl Need {
    /// Of views of so many pixels and a network of so many weights: docs/training.md has the
    /// formula.
    pub(super) fn of(
        config: &TrainConfig,
        model: &ModelConfig,
        pixels: usize,
        weights: usize,
    ) -> Self {
        let caches: usize = config.data.iter().map(|store| store.cache_mib).sum();
        let [history, horizon, channels] =
            [model.history, model.horizon, model.variables.len()].map(|n| n as f64);
        let [skip, decoder, hidden] = [model.skip, model.decoder, model.hidden].map(|n| n as f64);
        let coarse = (8.0 * skip * history + 10.0 * decoder + 4.0 * hidden)
            / (model.global_scale.max(1) as f64).powi(2);
        let lead = 110.0 + 70.0 * channels + if model.sharp { 35.0 } else { 0.0 };
        let local = if model.local { 520.0 + 150.0 * horizon } else { 0.0 };
        let at_once = config.threads.min(config.batch) as f64;
        let (pixels, batch) = (pixels as f64, config.batch as f64);
        Self {
            caches: caches as f64 * f64::from(1 << 20),
            windows: 4.0 * batch * (2.0 * history + 3.0 * horizon) * channels * 4.0 * pixels,
            activations: at_once * (coarse + lead * horizon + local) * pixels,
            weights: 7.0 * 4.0 * weights as f64,
        }
    }

    fn all(self) -> f64 {
        self.caches + self.windows + self.activations + self.weights
    }

    /// Whether it fits into so many bytes; where those are not known, the log is told of much.
    ///
    /// # Errors
    /// When it does not, with what takes it and what to make smaller.
    pub(super) fn fits(self, there: Option<f64>) -> Result<()> {
        let gib = |bytes: f64| format!("{:.1} GiB", bytes / GIB);
        let all = self.all();
        match there {
            Some(there) => ensure!(
                all <= there,
                "memory: about {} are needed (caches {}, windows {}, activations {}, weights {}) and \
                 the machine has {}; choose a smaller `crop`, `batch`, `threads` or `cache_mib`",
                gib(all),
                gib(self.caches),
                gib(self.windows),
                gib(self.activations),
                gib(self.weights),
                gib(there)
            ),
            None if all > MUCH => tracing::warn!("about {} of memory are needed", gib(all)),
            None => {}
        }
        Ok(())
    }
}

/// The machine's memory in bytes, or the part of it that this process may have, where the system
/// says so (Linux).
pub(super) fn of_machine() -> Option<f64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    let all = read("/proc/meminfo").and_then(|text| total(&text));
    [limit, all].into_iter().flatten().reduce(f64::min)
}

/// The bytes that the text of /proc/meminfo names as all of it.
fn total(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use physicnet_connectors::zarr::ZarrSource;
    use physicnet_operators::cropping::Transform;
    use physicnet_operators::model::VariableConfig;

    use super::*;

    fn need(side: usize, horizon: usize, hidden: usize, all: bool, threads: usize) -> f64 {
        let variable = VariableConfig {
            name: "u".into(),
            units: String::new(),
            transform: Transform::Identity,
            keep: Vec::new(),
            ceiling: None,
        };
        let config: TrainConfig = serde_json::from_value(serde_json::json!({
            "data": [ZarrSource { cache_mib: 1, ..ZarrSource::new("a.zarr") }],
            "out": "out", "batch": threads, "threads": threads
        }))
        .unwrap();
        let model = ModelConfig {
            variables: vec![variable],
            horizon,
            hidden,
            sharp: all,
            local: all,
            ..ModelConfig::default()
        };
        Need::of(&config, &model, side * side, 60_000).all()
    }

    /// Largest resident sets of trainings of two steps, without the 28 MiB of the program itself.
    #[test]
    fn it_is_about_what_was_measured() {
        for (of, measured) in [
            (need(128, 4, 16, false, 1), 27e6),
            (need(256, 4, 16, false, 1), 106e6),
            (need(256, 4, 64, false, 1), 119e6),
            (need(256, 12, 16, false, 1), 201e6),
            (need(256, 12, 16, true, 1), 354e6),
            (need(256, 4, 16, true, 2), 353e6),
        ] {
            let off = of / measured;
            assert!((0.8..1.35).contains(&off), "{of:e} for {measured:e}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let need = Need { caches: 0.0, windows: 2.0 * GIB, activations: GIB, weights: 0.0 };
        assert!(need.fits(None).is_ok() && need.fits(Some(3.0 * GIB)).is_ok());
        let error = need.fits(Some(2.5 * GIB)).unwrap_err().to_string();
        assert!(error.contains("about 3.0 GiB") && error.contains("has 2.5 GiB"), "{error}");
        assert_eq!(total("MemTotal:    1024 kB\nMemFree: 3 kB\n"), Some(f64::from(1 << 20)));
    }
}
