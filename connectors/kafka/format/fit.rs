//! A message as a frame on the grid that a job expects.

use physicnet_stream::Variable as Channel;

use super::message::{Message, SIGNAL, Variable, quoted};
use super::{Expected, Measured, axes, when};

/// The frame in a message.
pub(super) fn fit(message: &Message, expected: &Expected) -> Result<Measured, String> {
    let &Expected { grid, time } = expected;
    let valid_time = when::valid_time(message, time)?;
    axes::check_coordinates(message, grid)?;
    let shape = grid.shape();
    let [channels, height, width] = shape;
    let data = match (message.get(SIGNAL), grid.variables.as_slice()) {
        (Some(signal), [channel]) => field(signal, expected, channel, &[height, width])?,
        (Some(signal), all) => {
            // One array has one unit: it must be that of every channel which has one.
            let with_unit = all.iter().find(|channel| !fits(signal, channel)).or(all.first());
            let channel = with_unit.ok_or("the grid has no variables")?;
            field(signal, expected, channel, &[channels, height, width])?
        }
        (None, [channel]) => field(named(message, channel)?, expected, channel, &[height, width])?,
        (None, all) => {
            let mut data = Vec::with_capacity(shape.iter().product());
            for channel in all {
                let variable = named(message, channel)?;
                data.extend(field(variable, expected, channel, &[height, width])?);
            }
            data
        }
    };
    Ok(Measured { source_name: message.source_name.to_string(), valid_time, shape, data })
}

fn named<'m, 'a>(message: &'m Message<'a>, channel: &Channel) -> Result<&'m Variable<'a>, String> {
    message.get(&channel.name).ok_or_else(|| {
        let (name, names) = (quoted(&channel.name), message.names());
        format!("no variable \"{SIGNAL}\" or {name}; there is {names}")
    })
}

/// The values of one variable, which must have the unit of the channel and this shape, but for
/// axes of length 1 before it.
fn field(
    variable: &Variable,
    expected: &Expected,
    channel: &Channel,
    shape: &[usize],
) -> Result<Vec<f32>, String> {
    let wrong = |why: String| Err(format!("variable {}: {why}", quoted(&variable.name)));
    if !fits(variable, channel) {
        let (has, wants) = (quoted(&variable.unit), quoted(&channel.units));
        return wrong(format!("unit {has} where the job says {wants} for {:?}", channel.name));
    }
    axes::check_names(variable, expected.grid)?;
    let extra = variable.shape.len().saturating_sub(shape.len());
    let (before, rest) = variable.shape.split_at(extra);
    if rest != shape || before.iter().any(|dim| *dim != 1) {
        return wrong(format!("shape {:?} where the grid has {shape:?}", variable.shape));
    }
    match variable.values.to_f32() {
        Some(data) => Ok(data),
        None => wrong("holds text where numbers are needed".to_owned()),
    }
}

/// Whether a variable has the unit of a channel; none in either fits any.
fn fits(variable: &Variable, channel: &Channel) -> bool {
    variable.unit.is_empty() || channel.units.is_empty() || variable.unit == channel.units
}
