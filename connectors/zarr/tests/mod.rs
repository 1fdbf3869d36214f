//! What the room promises, over stores of its own making.

mod archive;

use physicnet_stream::{Axis, Frame, Grid, Variable};

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
    }
}
