//! The layout of a forecast store: WeatherBench 2's names, CF's attributes.

use std::sync::Arc;

use physicnet_stream::{Cadence, Error, Forecast, Grid, Product, Result, Sensor, Serving};
use serde_json::json;

use super::encode::{Field, native};
use super::writer::axis_field;

/// Entries in a chunk of a coordinate along time: one each would make opening slow. Tests cross
/// from chunk to chunk soon.
pub(super) const LENGTH: u64 = if cfg!(test) { 4 } else { 1024 };
const LEAD: &str = "prediction_timedelta";
const SECOND: i64 = 1_000_000_000;
/// The coordinates along time that the data arrays name; those of older stores name fewer.
const BESIDE: &str = "missing model revision serving";
pub(super) const OLDER: [&str; 2] = ["missing revision", "missing model revision"];
/// The flag of what is served; where nothing is learnt, and in what older stores do not say, that is
/// the network's field: 0.
pub(super) fn flag(serving: Option<Serving>) -> i32 {
    let flag = Serving::ALL.iter().position(|known| Some(*known) == serving);
    flag.unwrap_or_default() as i32
}

/// What the integers of reference times count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Nanoseconds,
}

impl Unit {
    /// Seconds where a forecast's times are whole ones, unless `nanoseconds` are asked for.
    pub(super) fn choose(nanoseconds: bool, first: &Forecast) -> Self {
        let whole = first.reference_time % SECOND == 0 && lead_unit(first.cadence) == Self::Seconds;
        if whole && !nanoseconds { Self::Seconds } else { Self::Nanoseconds }
    }

    /// What a store's units say.
    pub(super) fn of(units: Option<&str>) -> Self {
        let seconds = units.is_some_and(|units| units.starts_with("seconds"));
        if seconds { Self::Seconds } else { Self::Nanoseconds }
    }

    pub(super) fn nanoseconds(self) -> i64 {
        match self {
            Self::Seconds => SECOND,
            Self::Nanoseconds => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }
}

fn lead_unit(cadence: Cadence) -> Unit {
    if cadence.nanoseconds() % SECOND == 0 { Unit::Seconds } else { Unit::Nanoseconds }
}

/// Which arrays a store has: for every variable the served product under its own name and the
/// others as `variable_product`, f32 `(time, prediction_timedelta, y, x)`, and the coordinates.
pub(super) struct Layout {
    grid: Grid,
    cadence: Cadence,
    leads: u64,
    /// The name of the served product.
    pub(super) served: Arc<str>,
    products: Vec<String>,
    pub(super) unit: Unit,
    /// The models whose forecasts there are, in the order in which they came.
    pub(super) models: Vec<Arc<str>>,
}

impl Layout {
    /// The layout for forecasts such as `first`, with `products` beside the served one.
    ///
    /// # Errors
    /// When names of arrays would clash, or the forecast does not fit the sensor's grid.
    pub(super) fn new(
        sensor: &Sensor,
        first: &Forecast,
        products: &[String],
        unit: Unit,
    ) -> Result<Self> {
        let Some(served) = first.products.first().map(|product| Arc::clone(&product.name)) else {
            return Err(Error::new(format!("forecast of {}", sensor.id), "has no product"));
        };
        let mut products = products.to_vec();
        products.retain(|name| **name != *served);
        let mut grid = sensor.grid.clone();
        for axis in [&mut grid.y, &mut grid.x] {
            // WeatherBench 2 knows the long names alone.
            match &*axis.name {
                "lat" => axis.name = "latitude".into(),
                "lon" => axis.name = "longitude".into(),
                _ => {}
            }
        }
        let layout = Self {
            grid,
            cadence: first.cadence,
            leads: first.shape[0] as u64,
            served,
            products,
            unit,
            models: vec![Arc::clone(&first.model)],
        };
        let mut names: Vec<_> = layout.fields(0).into_iter().map(|field| field.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let why = format!("two arrays would be called {}; rename a variable", pair[0]);
            return Err(Error::new(&sensor.id, why));
        }
        Ok(layout)
    }

    /// All arrays of a store of `length` forecasts.
    pub(super) fn fields(&self, length: u64) -> Vec<Field> {
        let mut fields = self.data(length);
        fields.extend(self.along_time(length));
        fields.extend([self.lead(), axis_field(&self.grid.y), axis_field(&self.grid.x)]);
        fields
    }

    /// The forecasts themselves, variable by variable, the served product first.
    fn data(&self, length: u64) -> Vec<Field> {
        let [_, rows, columns] = self.grid.shape().map(|n| n as u64);
        let dims = ["time", LEAD, &self.grid.y.name, &self.grid.x.name];
        let (shape, chunk) = ([length, self.leads, rows, columns], [1, self.leads, rows, columns]);
        let mut fields = Vec::new();
        for variable in &self.grid.variables {
            let own = [variable.name.clone()];
            let others = self.products.iter().map(|product| format!("{}_{product}", variable.name));
            for name in own.into_iter().chain(others) {
                let field = Field::f32(&name, &dims, &shape, &chunk)
                    .text("units", &variable.units)
                    .text("coordinates", BESIDE);
                fields.push(field);
            }
        }
        fields
    }

    /// `time`, `revision`, `missing`, `model` and `serving` of a store of `length` forecasts.
    pub(super) fn along_time(&self, length: u64) -> [Field; 5] {
        let field = |name, data_type, fill| {
            Field::new(name, data_type, fill, &["time"], &[length], &[LENGTH])
        };
        [
            field("time", "int64", json!(i64::MIN))
                .text("units", &format!("{} since 1970-01-01", self.unit.name()))
                .text("calendar", "proleptic_gregorian")
                .text("standard_name", "forecast_reference_time"),
            field("revision", "int32", json!(-1))
                .text("long_name", "0 for the first forecast of its reference time"),
            field("missing", "float32", json!("NaN"))
                .text("long_name", "share of missing pixels in the input window")
                .text("units", "1"),
            // What a store from before there was this coordinate holds is by its first model.
            field("model", "int32", json!(0))
                .text("long_name", "the model that made it")
                .list("flag_values", (0..self.models.len() as i64).collect())
                .text("flag_meanings", &self.models.join(" ")),
            field("serving", "int32", json!(0))
                .text("long_name", "what is served: the network's field, a blend, or a baseline")
                .list("flag_values", (0..Serving::ALL.len() as i64).collect())
                .text("flag_meanings", &Serving::ALL.map(Serving::label).join(" ")),
        ]
    }

    /// The lead times. xarray takes them for a timedelta by the word `seconds` and the `dtype`.
    fn lead(&self) -> Field {
        let unit = lead_unit(self.cadence);
        let letters = if unit == Unit::Seconds { "s" } else { "ns" };
        Field::new(LEAD, "int64", json!(i64::MIN), &[LEAD], &[self.leads], &[self.leads])
            .text("units", unit.name())
            .text("dtype", &format!("timedelta64[{letters}]"))
            .text("standard_name", "forecast_period")
    }

    /// The chunks that never change: lead times, rows, columns.
    pub(super) fn fixed(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let step = self.cadence.nanoseconds() / lead_unit(self.cadence).nanoseconds();
        let leads: Vec<i64> = (1..=self.leads as i64).map(|lead| lead * step).collect();
        let Grid { y, x, .. } = &self.grid;
        let (rows, columns) = (axis_field(y), axis_field(x));
        Ok(vec![
            (self.lead().key(&[0]), self.lead().encode(native!(leads))?),
            (rows.key(&[0]), rows.encode(native!(y.values))?),
            (columns.key(&[0]), columns.encode(native!(x.values))?),
        ])
    }

    /// A forecast's values, array by array: `[lead, y, x]` each.
    ///
    /// # Errors
    /// When it has another shape, or lacks a product that is to be stored.
    pub(super) fn chunks(&self, forecast: &Forecast) -> Result<Vec<(Field, Vec<u8>)>> {
        let [channels, rows, columns] = self.grid.shape();
        let expected = [self.leads as usize, channels, rows, columns];
        let served = forecast.products.first().filter(|product| product.name == self.served);
        let mut products = vec![served.ok_or_else(|| {
            Error::new("products", format!("{} is not the first of them", self.served))
        })?];
        for name in &self.products {
            let found = forecast.products.iter().find(|product| *product.name == **name);
            products.push(found.ok_or_else(|| {
                let made: Vec<_> = forecast.products.iter().map(|p| &*p.name).collect();
                let why = format!("the job makes no {name}, but {}", made.join(", "));
                Error::new("products", why)
            })?);
        }
        let whole = expected.iter().product::<usize>();
        let fits =
            |product: &&Product| [whole, channels * rows * columns].contains(&product.data.len());
        let same = forecast.shape == expected && forecast.cadence == self.cadence;
        if !same || !products.iter().all(fits) {
            let why = format!("is {:?}, not {expected:?} as the store", forecast.shape);
            return Err(Error::new("shape", why));
        }
        let of = |product: &Product, channel: usize| -> Vec<u8> {
            let fields = (1..=expected[0]).map(|lead| product.field(expected, lead, channel));
            fields.flat_map(|field| native!(field)).collect()
        };
        let mut values = Vec::new();
        for channel in 0..channels {
            values.extend(products.iter().map(|product| of(product, channel)));
        }
        Ok(self.data(0).into_iter().zip(values).collect())
    }
}
