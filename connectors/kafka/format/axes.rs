//! The axes and coordinates of a message against those of a grid.

use physicnet_stream::{Axis, Grid};

use super::dtype::Dtype;
use super::message::{Message, Variable, listed, quoted};

/// Checks the names of a variable's last two axes; those before them are the caller's matter.
pub(super) fn check_names(variable: &Variable, grid: &Grid) -> Result<(), String> {
    let [.., y, x] = variable.axes.as_slice() else { return Ok(()) };
    if same(y, &grid.y.name) && same(x, &grid.x.name) {
        return Ok(());
    }
    let (name, axes) = (quoted(&variable.name), listed(&variable.axes));
    let expected = format!("[{:?}, {:?}]", grid.y.name, grid.x.name);
    Err(if same(y, &grid.x.name) && same(x, &grid.y.name) {
        format!("variable {name}: axes {axes} are transposed: the grid's are {expected}")
    } else {
        format!("variable {name}: axes {axes} where the grid has {expected}")
    })
}

/// Checks the coordinates that a message carries for the grid's axes.
pub(super) fn check_coordinates(message: &Message, grid: &Grid) -> Result<(), String> {
    for axis in [&grid.y, &grid.x] {
        let found = message.variables.iter().find(|variable| {
            let about = variable.axes.first().is_none_or(|name| same(name, &axis.name));
            variable.shape.len() == 1 && about && same(&variable.name, &axis.name)
        });
        if let Some(variable) = found {
            check_coordinate(variable, axis)?;
        }
    }
    Ok(())
}

/// Short and long names of the same axis: messages say `lat`, stores `latitude`.
fn same(a: &str, b: &str) -> bool {
    fn long(name: &str) -> &str {
        match name {
            "lat" => "latitude",
            "lon" => "longitude",
            name => name,
        }
    }
    long(a) == long(b)
}

fn check_coordinate(variable: &Variable, axis: &Axis) -> Result<(), String> {
    let wrong = |why: String| Err(format!("coordinate {}: {why}", quoted(&variable.name)));
    let (expected, dtype) = (&axis.values, variable.values.dtype());
    let (count, pixels) = (variable.shape[0], expected.len());
    if count != pixels && count != pixels + 1 {
        return wrong(format!("{count} values for {pixels} pixels"));
    }
    let Some(mut found) = variable.values.to_f64() else {
        return wrong("holds text where numbers are needed".to_owned());
    };
    if count == pixels + 1 {
        // Bin edges. Halved before they are added, lest huge ones overflow.
        found = found.windows(2).map(|edges| edges[0] / 2.0 + edges[1] / 2.0).collect();
    }
    let steps = expected.windows(2).map(|pair| (pair[1] - pair[0]).abs());
    let step = steps.min_by(f64::total_cmp).unwrap_or(1.0);
    // What a value in the message cannot be told from.
    let epsilon = if dtype == Dtype::Float32 { f32::EPSILON.into() } else { 4.0 * f64::EPSILON };
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tolerance = 1e-6 * step + epsilon * (expected.abs() + step);
        if found.is_nan() || (found - expected).abs() > tolerance {
            return wrong(format!("value {at} is {found}, the grid's is {expected}"));
        }
    }
    Ok(())
}
