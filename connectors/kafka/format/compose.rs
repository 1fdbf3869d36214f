//! Frames and forecasts as messages.

use std::borrow::Cow;

use physicnet_stream::{Axis, Error, Forecast, Frame, Grid, Result, Sensor, Variable as Channel};

use super::dtype::Values;
use super::message::{Message, SIGNAL, Variable};

const SECOND: i64 = 1_000_000_000;

/// A frame: one channel is the `signal`; several are a variable each, so that each has its unit,
/// or the `signal` together where the format has `one_array`.
pub(super) fn frame<'a>(
    frame: &'a Frame,
    sensor: &'a Sensor,
    one_array: bool,
) -> Result<Message<'a>> {
    let Sensor { id, grid, .. } = sensor;
    let count = grid.shape().iter().product::<usize>();
    if frame.shape != grid.shape() || frame.data.len() != count || count == 0 {
        return Err(misfit(sensor, &frame.shape, frame.data.len()));
    }
    let [channels, height, width] = frame.shape;
    let field = |(data, channel): (&'a [f32], &'a Channel)| Variable {
        name: if channels == 1 { SIGNAL } else { channel.name.as_str() }.into(),
        unit: channel.units.as_str().into(),
        label: channel.name.as_str().into(),
        axes: axes(&[], grid),
        shape: vec![height, width],
        values: Values::F32(data),
    };
    let mut variables: Vec<Variable> = if one_array && channels > 1 {
        vec![together(grid, &["channel"], frame.shape.to_vec(), &frame.data)]
    } else {
        frame.data.chunks_exact(height * width).zip(&grid.variables).map(field).collect()
    };
    variables.extend([coordinate(&grid.y), coordinate(&grid.x)]);
    Ok(Message { source_name: id.as_str().into(), timestamp: Some(frame.valid_time), variables })
}

/// The served product of a forecast, with what tells it from any other.
pub(super) fn forecast<'a>(forecast: &'a Forecast, sensor: &'a Sensor) -> Result<Message<'a>> {
    let Sensor { id, grid, .. } = sensor;
    let [leads, channels, height, width] = forecast.shape;
    let count = grid.shape().iter().product::<usize>().saturating_mul(leads);
    let data = forecast.products.first().map_or(&[][..], |product| &product.data);
    if [channels, height, width] != grid.shape() || data.len() != count || count == 0 {
        return Err(misfit(sensor, &forecast.shape, data.len()));
    }
    let names: Vec<&str> = grid.variables.iter().map(|v| v.name.as_str()).collect();
    let units: Vec<&str> = grid.variables.iter().map(|v| v.units.as_str()).collect();
    let (extra, shape): (&[_], _) = match channels {
        1 => (&["lead_time"], vec![leads, height, width]),
        _ => (&["lead_time", "channel"], vec![leads, channels, height, width]),
    };
    let cadence = forecast.cadence.nanoseconds();
    let (scale, unit, date) = if cadence % SECOND == 0 && forecast.reference_time % SECOND == 0 {
        (SECOND, "s", "datetime64[s]")
    } else {
        (1, "ns", "datetime64[ns]")
    };
    let lead = |k| cadence.saturating_mul(k as i64) / scale;
    let lead_times: Vec<i64> = (1..=leads).map(lead).collect();
    let reference = Values::i64s(&[forecast.reference_time / scale]);
    let mut variables = vec![
        together(grid, extra, shape, data),
        Variable { axes: vec!["lead_time".into()], ..line("lead_time", unit, &lead_times) },
        scalar("forecast_reference_time", date, reference),
        text("model", &forecast.model),
        scalar("revision", "", Values::i32(i32::try_from(forecast.revision).unwrap_or(i32::MAX))),
        scalar("missing", "", Values::f32(forecast.missing)),
        coordinate(&grid.y),
        coordinate(&grid.x),
    ];
    if channels > 1 {
        variables.extend([text("channel", &names.join(",")), text("units", &units.join(","))]);
    }
    if let Some(serving) = forecast.serving {
        variables.push(text("served", serving.label()));
    }
    Ok(Message {
        source_name: id.as_str().into(),
        timestamp: Some(forecast.reference_time),
        variables,
    })
}

/// All channels in one array, which has a unit where all of them have the same.
fn together<'a>(
    grid: &'a Grid,
    extra: &[&'a str],
    shape: Vec<usize>,
    data: &'a [f32],
) -> Variable<'a> {
    let names: Vec<&str> = grid.variables.iter().map(|v| v.name.as_str()).collect();
    let unit = grid.variables.first().map_or("", |first| &first.units);
    let common = grid.variables.iter().all(|variable| variable.units == unit);
    Variable {
        name: SIGNAL.into(),
        unit: if common { unit } else { "" }.into(),
        label: names.join(",").into(),
        axes: axes(extra, grid),
        shape,
        values: Values::F32(data),
    }
}

fn misfit(sensor: &Sensor, shape: &[usize], held: usize) -> Error {
    let expected = sensor.grid.shape();
    let why = format!("shape {shape:?} with {held} values does not fit its grid {expected:?}");
    Error::new(format!("message of {}", sensor.id), why)
}

fn axes<'a>(extra: &[&'a str], grid: &'a Grid) -> Vec<Cow<'a, str>> {
    let names = extra.iter().copied().chain([grid.y.name.as_str(), grid.x.name.as_str()]);
    names.map(Cow::Borrowed).collect()
}

fn coordinate(axis: &Axis) -> Variable<'_> {
    // Readers parse units; the spelling of CF is not one that they all know.
    let unit = match axis.units.as_str() {
        "degrees_north" | "degrees_east" => "deg",
        unit => unit,
    };
    Variable {
        name: axis.name.as_str().into(),
        unit: unit.into(),
        label: "".into(),
        axes: vec![axis.name.as_str().into()],
        shape: vec![axis.values.len()],
        values: Values::f64s(&axis.values),
    }
}

fn scalar<'a>(name: &'a str, unit: &'a str, values: Values<'a>) -> Variable<'a> {
    let (label, axes, shape) = ("".into(), Vec::new(), Vec::new());
    Variable { name: name.into(), unit: unit.into(), label, axes, shape, values }
}

fn line<'a>(name: &'a str, unit: &'a str, values: &[i64]) -> Variable<'a> {
    Variable { shape: vec![values.len()], ..scalar(name, unit, Values::i64s(values)) }
}

fn text<'a>(name: &'a str, text: &str) -> Variable<'a> {
    Variable { shape: vec![text.len()], ..scalar(name, "", Values::text(text)) }
}
