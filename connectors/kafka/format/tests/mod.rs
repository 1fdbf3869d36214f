//! What the tests share: goldens, grids, messages to spoil.

mod fit;
mod hostile;
mod json;
mod promise;
mod python;
mod refused;
mod round_trips;
mod times;
mod verifier;

use std::sync::Arc;

use physicnet_stream::{Axis, Cadence, Forecast, Frame, Grid, Product, Sensor, Variable};

use super::dtype::Values;
use super::message::{self, Message};
use super::{Expected, Format, Measured, TimeFrom, da00, decode};

/// Written by the Python client; `golden/README.md` says what is in them.
const GOLDENS: [(&str, &[u8]); 6] = [
    ("frame", include_bytes!("../golden/frame_f32_1x4x5.bin")),
    ("bare", include_bytes!("../golden/frame_f32_1x4x5_min.bin")),
    ("nan", include_bytes!("../golden/frame_f32_1x4x5_nan.bin")),
    ("int16", include_bytes!("../golden/frame_i16_2x3.bin")),
    ("edges", include_bytes!("../golden/frame_f64_2x3_errors_attr.bin")),
    ("forecast", include_bytes!("../golden/forecast_f32_2x4x5.bin")),
];

/// 2026-01-01T00:00:00Z, the time of every golden.
const TIME: i64 = 1_767_225_600_000_000_000;

const FORMATS: [Format; 3] = [Format::Da00, Format::Ad00, Format::Json];

fn golden(name: &str) -> &'static [u8] {
    GOLDENS.iter().find(|(golden, _)| *golden == name).unwrap().1
}

fn axis(name: &str, values: &[f64]) -> Axis {
    Axis { name: name.into(), units: String::new(), values: values.to_vec() }
}

fn channels(channels: &[(&str, &str)]) -> Vec<Variable> {
    let channel =
        |&(name, units): &(&str, &str)| Variable { name: name.into(), units: units.into() };
    channels.iter().map(channel).collect()
}

/// The grid of the goldens of 4 by 5.
fn weather() -> Grid {
    Grid {
        variables: channels(&[("t2m", "K")]),
        y: axis("latitude", &[10.0, 11.0, 12.0, 13.0]),
        x: axis("lon", &[20.0, 21.0, 22.0, 23.0, 24.0]),
    }
}

/// The grid of the goldens of 2 by 3.
fn rain() -> Grid {
    Grid {
        variables: channels(&[("rain", "mm/h")]),
        y: axis("y", &[7.0, 8.0]),
        x: axis("x", &[0.5, 1.5, 2.5]),
    }
}

fn wind() -> Grid {
    Grid { variables: channels(&[("u", "m/s"), ("v", "m/s")]), ..rain() }
}

fn sensor(grid: Grid) -> Sensor {
    let cadence = Cadence::new(300_000_000_000).unwrap();
    Sensor { id: "radar/north".into(), grid, cadence }
}

fn read(format: Format, bytes: &[u8], grid: &Grid) -> Result<Measured, String> {
    let read = decode(format, bytes, &Expected { grid, time: &TimeFrom::Timestamp });
    read.map_err(|reason| reason.to_string())
}

/// A `da00` variable of numbers that count from 0.
fn array<'a>(name: &'a str, axes: &[&'a str], shape: &[usize]) -> message::Variable<'a> {
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|value| value as f64).collect();
    message::Variable {
        name: name.into(),
        unit: "".into(),
        label: "".into(),
        axes: axes.iter().map(|axis| (*axis).into()).collect(),
        shape: shape.to_vec(),
        values: Values::f64s(&values),
    }
}

fn message(variables: Vec<message::Variable>) -> Message {
    Message { source_name: "cam1".into(), timestamp: Some(TIME), variables }
}

/// What a job with this grid makes of a message of these variables.
fn judge(variables: Vec<message::Variable>, grid: &Grid) -> Result<Measured, String> {
    read(Format::Da00, &da00::write(&message(variables)).unwrap(), grid)
}

/// A frame of random bits: NaN with payloads, infinities, subnormals and all.
fn frame(grid: &Grid, random: &mut Random) -> Frame {
    let shape = grid.shape();
    let data = random.floats(shape.iter().product());
    Frame {
        sensor: "any".into(),
        valid_time: random.bits() as i64,
        offset: 0,
        shape,
        data,
        replay: false,
        scored: false,
        record: None,
    }
}

/// A forecast of random bits.
fn forecast(grid: &Grid, leads: usize, random: &mut Random) -> Forecast {
    let [channels, height, width] = grid.shape();
    let shape = [leads, channels, height, width];
    let product = |name: &str, data: Vec<f32>| Product { name: name.into(), data: data.into() };
    let count = shape.iter().product();
    Forecast {
        sensor: "any".into(),
        reference_time: TIME,
        cadence: Cadence::new(300_000_000_000).unwrap(),
        shape,
        products: vec![
            product("mean", random.floats(count)),
            product("persistence", random.floats(count)),
        ],
        serving: None,
        ensemble: None,
        model: Arc::from("abc"),
        candidate: false,
        revision: 2,
        missing: 0.25,
        offset: 9,
        frame_time: TIME,
        replay_from: 4,
        replay: false,
        scored: false,
    }
}

/// The same numbers to the bit, NaN being one number.
fn same(a: &[f32], b: &[f32]) -> bool {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| f32::from_bits(self.bits() as u32)).collect()
    }
}
