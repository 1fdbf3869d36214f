//! What the room promises, over stores of its own making.

mod archive;
#[cfg(feature = "cloud")]
mod cloud;
mod crash;
#[cfg(feature = "cloud")]
mod processes;
mod stream;
mod xarray;

use std::sync::Arc;

use physicnet_stream::{
    Axis, Cadence, Catalogue, Forecast, Frame, Grid, Product, Sensor, Variable,
};

/// A grid of two variables, rows falling in latitude.
fn grid(rows: usize, columns: usize) -> Grid {
    let variable = |name: &str, units: &str| Variable { name: name.into(), units: units.into() };
    let latitudes = (0..rows).map(|i| 60.0 - i as f64).collect();
    Grid {
        variables: vec![variable("rain", "mm h-1"), variable("t2m", "K")],
        y: Axis { name: "latitude".into(), units: "degrees_north".into(), values: latitudes },
        x: Axis::index("x", columns),
    }
}

/// Frame `at` of a sensor, valid `at` times five minutes after 2020-01-01, its values telling.
fn frame(sensor: &str, grid: &Grid, at: u64) -> Frame {
    let shape = grid.shape();
    let value = |i: usize| if i == 3 { f32::NAN } else { at as f32 + i as f32 / 1024.0 };
    Frame {
        sensor: sensor.into(),
        valid_time: (1_577_836_800 + 300 * at as i64) * 1_000_000_000,
        offset: at,
        shape,
        data: (0..shape.iter().product()).map(value).collect(),
        replay: false,
        scored: false,
        record: None,
    }
}

/// A catalogue of the sensors called so, on `grid`, every five minutes.
fn catalogue(names: &[&str], grid: &Grid) -> Catalogue {
    let cadence = Cadence::new(300_000_000_000).unwrap();
    let sensor = |name: &&str| Arc::new(Sensor { id: name.into(), grid: grid.clone(), cadence });
    names.iter().map(sensor).collect()
}

/// A forecast of three leads at the time of [`frame`] `at`.
fn forecast(sensor: &str, grid: &Grid, at: u64) -> Forecast {
    let [channels, rows, columns] = grid.shape();
    let shape = [3, channels, rows, columns];
    let product = |name: &str, sign: f32| {
        let values = 0..shape.iter().product();
        let data = values.map(|i: usize| sign * (at as f32 + i as f32 / 1024.0)).collect();
        Product { name: name.into(), data: Arc::new(data) }
    };
    Forecast {
        sensor: sensor.into(),
        reference_time: frame(sensor, grid, at).valid_time,
        cadence: Cadence::new(300_000_000_000).unwrap(),
        shape,
        products: vec![product("mean", 1.0), product("persistence", -1.0)],
        serving: None,
        ensemble: None,
        model: "abc".into(),
        candidate: false,
        revision: 0,
        missing: 0.25,
        offset: at,
        frame_time: frame(sensor, grid, at).valid_time,
        replay_from: at.saturating_sub(3),
        replay: false,
        scored: false,
    }
}
