//! A message as a frame on the grid that a job expects.

use physicnet_stream::{Grid, Time, Variable as Channel};

use super::message::{Message, SIGNAL, Variable, quoted};
use super::{Measured, axes};

/// The frame of `valid_time` in a message, which was parsed from `bytes`.
pub(super) fn fit(
    message: &Message,
    bytes: &[u8],
    grid: &Grid,
    valid_time: Time,
) -> Result<Measured, String> {
    axes::check_coordinates(message, grid)?;
    let shape = grid.shape();
    let [channels, height, width] = shape;
    let data = match (message.get(SIGNAL), grid.variables.as_slice()) {
        (Some(signal), [channel]) => field(signal, grid, channel, &[height, width])?,
        (Some(signal), all) => {
            // One array has one unit: it must be that of every channel which has one.
            let with_unit = all.iter().find(|channel| !fits(signal, channel)).or(all.first());
            let channel = with_unit.ok_or("the grid has no variables")?;
            field(signal, grid, channel, &[channels, height, width])?
        }
        (None, [channel]) => field(named(message, channel)?, grid, channel, &[height, width])?,
        (None, all) => {
            let mut data = Vec::with_capacity(shape.iter().product());
            for channel in all {
                let variable = named(message, channel)?;
                data.extend(field(variable, grid, channel, &[height, width])?);
            }
            data
        }
    };
    let whole = match (message.get(SIGNAL), grid.variables.as_slice()) {
        (Some(signal), _) => Some(signal),
        (None, [channel]) => message.get(&channel.name),
        (None, _) => None,
    };
    let verbatim = whole.and_then(|variable| variable.values.verbatim()).and_then(|part| {
        let start = part.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
        let range = start..start + part.len();
        // Only what lies in these very bytes can be found there again.
        (range.end <= bytes.len()).then_some(range)
    });
    let source_name = message.source_name.to_string();
    Ok(Measured { source_name, valid_time, shape, data, verbatim })
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
    grid: &Grid,
    channel: &Channel,
    shape: &[usize],
) -> Result<Vec<f32>, String> {
    let wrong = |why: String| Err(format!("variable {}: {why}", quoted(&variable.name)));
    if !fits(variable, channel) {
        let (has, wants) = (quoted(&variable.unit), quoted(&channel.units));
        return wrong(format!("unit {has} where the job says {wants} for {:?}", channel.name));
    }
    axes::check_names(variable, grid)?;
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

#[cfg(test)]
mod tests {
    use physicnet_stream::{Axis, Cadence, Frame, Grid, Sensor};

    use super::super::{Expected, Format, TimeFrom, decode, frame};
    use super::*;

    #[test]
    fn pixels_are_found_again_where_they_stand() {
        let variables = vec![Channel { name: "u".into(), units: "m s-1".into() }];
        let grid = Grid { variables, y: Axis::index("y", 2), x: Axis::index("x", 3) };
        let sensor = Sensor { id: "a".into(), grid, cadence: Cadence::new(1).unwrap() };
        let odd = f32::from_bits(0x7fa0_0001);
        let sent = Frame {
            sensor: "a".into(),
            valid_time: 1,
            offset: 0,
            shape: [1, 2, 3],
            data: vec![1.0, odd, f32::NAN, -0.0, f32::INFINITY, 1e-42],
            replay: false,
            scored: false,
            record: None,
        };
        let time = TimeFrom::default();
        let expected = Expected { grid: &sensor.grid, time: &time };
        for (format, whole) in [(Format::Da00, true), (Format::Ad00, true), (Format::Json, false)] {
            let bytes = frame(format, &sent, &sensor).unwrap();
            let found = decode(format, &bytes, &expected).unwrap();
            let bits = found.data.iter().flat_map(|pixel| pixel.to_le_bytes()).collect::<Vec<_>>();
            let at = found.verbatim;
            assert_eq!(at.is_some(), whole, "{format:?}");
            at.into_iter().for_each(|at| assert_eq!(bytes[at], bits, "{format:?}"));
        }
    }
}
