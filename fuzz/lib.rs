//! What the targets share: any bytes, read every way that a job reads them.

use physicnet_connectors::kafka::format::{
    Expected, Format, TimeFrom, decode, describe, source_name,
};
use physicnet_stream::{Axis, Grid, Variable};

fn grid(names: [&str; 2], from: [f64; 2], shape: [usize; 2], channels: &[(&str, &str)]) -> Grid {
    let axis = |k: usize| {
        let values = (0..shape[k]).map(|i| from[k] + i as f64).collect();
        Axis { name: names[k].to_owned(), units: String::new(), values }
    };
    let channel =
        |&(name, units): &(&str, &str)| Variable { name: name.to_owned(), units: units.to_owned() };
    Grid { variables: channels.iter().map(channel).collect(), y: axis(0), x: axis(1) }
}

/// Reads bytes as the grids of the golden messages and others; panics where a decoder does, or
/// where what it returns does not hold together.
pub fn read(format: Format, bytes: &[u8]) {
    let grids = [
        grid(["lat", "lon"], [10.0, 20.0], [4, 5], &[("t2m", "K")]),
        grid(["y", "x"], [0.0, 0.5], [2, 3], &[("rain", "mm/h")]),
        grid(["y", "x"], [0.0, 0.0], [2, 3], &[("u", "m/s"), ("v", "m/s")]),
    ];
    for grid in &grids {
        for time in [TimeFrom::Timestamp, TimeFrom::Coordinate("time".to_owned())] {
            match decode(format, bytes, &Expected { grid, time: &time }) {
                Ok(measured) => {
                    assert_eq!(measured.shape, grid.shape());
                    assert_eq!(measured.data.len(), measured.shape.iter().product::<usize>());
                    assert_eq!(source_name(format, bytes), Some(measured.source_name));
                }
                Err(reason) => {
                    let why = reason.to_string();
                    assert!(!why.is_empty() && why.len() < 2_000, "{}: {why}", why.len());
                }
            }
        }
    }
    match describe(format, bytes) {
        Ok(said) => {
            assert_eq!(said.data.len(), said.shape.iter().product::<usize>());
            assert!(said.axes.is_empty() || said.axes.len() == said.shape.len());
        }
        Err(why) => assert!(!why.is_empty() && why.len() < 2_000, "{}: {why}", why.len()),
    }
}
