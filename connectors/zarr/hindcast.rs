//! Stores of forecasts that anyone made, in the layout of WeatherBench 2: read by reference time.

use std::collections::BTreeMap;
use std::path::Path;

use physicnet_stream::{Axis, Cadence, Error, Result, Sensor, Time};

use super::archive::Archive;
use super::config::ZarrSource;
use super::layout::{beyond, is_level, listed, time_dim};
use super::leads::{self, LEADS};
use super::place::shown;
use super::store::Store;

/// Decoded chunks that are kept, MiB, at least: a chunk may hold all leads and members, which are read
/// one by one. So two chunks are kept, however large.
const CACHE_MIB: usize = 64;

/// Forecasts of one sensor, open for reading: arrays over reference time, lead, rows and columns, and
/// those of an ensemble over its members as well, whatever that dim is called.
pub struct Hindcast {
    name: String,
    /// Its "sensors" are the leads, of the first member, then of the second, ...
    archive: Archive,
    members: usize,
    /// The row of each reference time; of one that is there twice, the last.
    rows: BTreeMap<Time, usize>,
    /// Lead times, nanoseconds.
    leads: Vec<i64>,
    /// Whether rows, and columns, run the other way than the sensor's.
    flip: [bool; 2],
}

impl Hindcast {
    /// Opens the store at `path` for the variables of `sensor`, on its grid. Axes may run the other
    /// way; a store without coordinates is taken to have the sensor's.
    ///
    /// # Errors
    /// When it is no store of forecasts, lacks a variable, has it in other units, or lies on another
    /// grid.
    pub fn open(path: &Path, sensor: &Sensor) -> Result<Self> {
        let store = Store::open(path)?;
        let name = shown(path);
        let (lead, leads) = leads(&store)?;
        let time = time_dim(&store)?;
        let (mut member, mut chunk) = (None, 0);
        for variable in &sensor.grid.variables {
            let Some(array) = store.array(&variable.name)? else { continue };
            chunk += array.chunk.iter().product::<u64>() as usize * size_of::<f32>();
            let mut more = beyond(&array, &[&time, &lead]);
            let members = more.iter().position(|dim| !is_level(dim)).map(|at| more.remove(at));
            if let Some(dim) = more.first() {
                let why = format!(
                    "{} has a dim {dim} beside {time}, {lead}, rows and columns{}; select one index, \
                     `ds.isel({dim}=0)`",
                    variable.name,
                    members.map_or(String::new(), |dim| format!(", and members along {dim}"))
                );
                return Err(Error::new(name, why));
            }
            member = member.or_else(|| members.map(str::to_owned));
        }
        let variables = sensor.grid.variables.iter().map(|variable| variable.name.clone());
        let config = ZarrSource {
            variables: variables.collect(),
            // Reference times may lie further apart than the leads.
            cadence: Some(format!("{}ns", sensor.cadence.nanoseconds())),
            cache_mib: CACHE_MIB.max(chunk.div_ceil(1 << 19)),
            ..ZarrSource::new(path)
        };
        let archive = Archive::of(&store, &config, member.as_deref())?;
        let found = archive.sensors().len();
        let members = found / leads.len().max(1);
        if members * leads.len() != found || (member.is_none() && members != 1) {
            let why = format!("has {} lead times, its variables {found}", leads.len());
            return Err(Error::new(name, why));
        }
        if let Some(dim) = &member {
            tracing::info!("{name}: an ensemble of {members} members along {dim}");
        }
        let Some(first) = archive.sensors().first() else {
            return Err(Error::new(name, "has no lead time"));
        };
        for (own, wanted) in first.grid.variables.iter().zip(&sensor.grid.variables) {
            if !alike(&own.units, &wanted.units) {
                let why = format!(
                    "its {} is in {}, the observations are in {}; convert one of them",
                    own.name, own.units, wanted.units
                );
                return Err(Error::new(name, why));
            }
        }
        let flip = [
            direction(&first.grid.y, &sensor.grid.y).map_err(|why| Error::new(&name, why))?,
            direction(&first.grid.x, &sensor.grid.x).map_err(|why| Error::new(&name, why))?,
        ];
        let rows = archive.times(0).iter().enumerate().map(|(row, &time)| (time, row)).collect();
        Ok(Self { name, archive, members, rows, leads, flip })
    }

    /// Where it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many members its forecasts have: 1 where it is no ensemble.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The forecast of a reference time for leads of 1..=`horizon` cadences, f32
    /// `(lead, channel, y, x)` as the sensor's frames lie: NaN at a lead that there is not. Of an
    /// ensemble the mean of its members, missing where one of them is. `None` where there is no
    /// forecast within half a cadence of the reference time.
    ///
    /// # Errors
    /// When a chunk cannot be read.
    pub fn read(
        &self,
        reference_time: Time,
        cadence: Cadence,
        horizon: usize,
    ) -> Result<Option<Vec<f32>>> {
        let Some(row) = self.row(reference_time, cadence) else { return Ok(None) };
        let size = self.archive.sensors()[0].grid.shape().iter().product::<usize>();
        let mut data = vec![f32::NAN; horizon * size];
        for (lead, out) in (1..).zip(data.chunks_exact_mut(size.max(1))) {
            let Some(place) = self.place(cadence, lead) else { continue };
            if self.members == 1 {
                out.copy_from_slice(&self.field(place, row)?);
                continue;
            }
            let mut sums = vec![0.0; size];
            for member in 0..self.members {
                let field = self.field(member * self.leads.len() + place, row)?;
                sums.iter_mut().zip(&field).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let mean = |sum: f64| (sum / self.members as f64) as f32;
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = mean(sum));
        }
        Ok(Some(data))
    }

    /// Every member's field for a lead of `lead` cadences, f32 `(channel, y, x)`; none where there is
    /// no such forecast or lead.
    ///
    /// # Errors
    /// When a chunk cannot be read.
    pub fn ensemble(
        &self,
        reference_time: Time,
        cadence: Cadence,
        lead: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let (row, place) = (self.row(reference_time, cadence), self.place(cadence, lead as i64));
        let Some((row, place)) = row.zip(place) else { return Ok(Vec::new()) };
        let field = |member: usize| self.field(member * self.leads.len() + place, row);
        (0..self.members).map(field).collect()
    }

    /// The row of the forecast within half a cadence of a reference time.
    fn row(&self, reference_time: Time, cadence: Cadence) -> Option<usize> {
        let half = cadence.nanoseconds() / 2;
        let near = self.rows.range(reference_time - half..=reference_time + half);
        near.min_by_key(|(time, _)| (*time - reference_time).abs()).map(|(_, row)| *row)
    }

    /// The place of the lead time within a quarter of a cadence of `lead` cadences.
    fn place(&self, cadence: Cadence, lead: i64) -> Option<usize> {
        let (wanted, half) = (cadence.after(0, lead), cadence.nanoseconds() / 2);
        self.leads.iter().position(|have| 2 * (have - wanted).abs() <= half)
    }

    /// A field as the sensor's frames lie.
    fn field(&self, place: usize, row: usize) -> Result<Vec<f32>> {
        let [_, height, width] = self.archive.sensors()[0].grid.shape();
        let mut data = self.archive.read(place, row)?.data;
        turn(&mut data, [height, width], self.flip);
        Ok(data)
    }
}

/// The dim of lead times, and the lead times of the store, nanoseconds.
fn leads(store: &Store) -> Result<(String, Vec<i64>)> {
    let mut names: Vec<_> = store.names().collect();
    names.sort_by_key(|name| LEADS.iter().position(|lead| lead == name).unwrap_or(LEADS.len()));
    if let Some(found) = names.into_iter().find_map(|name| leads::coordinate(store, name)) {
        return Ok((found.dims.concat(), found.spans()?));
    }
    let why = "is no store of forecasts: it has no coordinate of lead times \
               (prediction_timedelta, say); its arrays are: ";
    Err(Error::new(store.name(), format!("{why}{}", listed(store))))
}

/// Whether two units are one, however that is written: `mm h-1` and `mm/hr`. One that is not said
/// is taken to be the other.
fn alike(one: &str, other: &str) -> bool {
    let spelt = |units: &str| {
        let units = units.replace(['^', '*'], "").replace("hr", "h");
        let mut parts = units.split('/').map(str::trim);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |whole, below| format!("{whole} {below}-1"))
    };
    let (one, other) = (one.trim(), other.trim());
    one.is_empty() || other.is_empty() || spelt(one) == spelt(other)
}

/// Whether `axis` runs the other way than the `wanted` one.
fn direction(axis: &Axis, wanted: &Axis) -> std::result::Result<bool, String> {
    let (have, want) = (&axis.values, &wanted.values);
    let step = want.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(f64::INFINITY, f64::min);
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 0.01 * step;
    let same = have.len() == want.len();
    if same && (have.iter().zip(want).all(close) || *axis == Axis::index(&axis.name, have.len())) {
        Ok(false)
    } else if same && have.iter().rev().zip(want).all(close) {
        Ok(true)
    } else {
        let ends = |values: &[f64]| match (values.first(), values.last()) {
            (Some(first), Some(last)) => format!("{} from {first} to {last}", values.len()),
            _ => "none".to_owned(),
        };
        let (name, have, want) = (&axis.name, ends(have), ends(want));
        Err(format!("its axis {name} has other pixels ({have}) than the observations ({want})"))
    }
}

/// Turns planes around.
fn turn(planes: &mut [f32], [height, width]: [usize; 2], [rows, columns]: [bool; 2]) {
    if columns {
        planes.chunks_exact_mut(width.max(1)).for_each(<[f32]>::reverse);
    }
    if rows {
        for plane in planes.chunks_exact_mut((height * width).max(1)) {
            for y in 0..height / 2 {
                let (above, below) = plane.split_at_mut((height - 1 - y) * width);
                above[y * width..][..width].swap_with_slice(&mut below[..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_alike_however_they_are_written() {
        for same in ["mm h-1", "mm/h", "mm hr-1", "mm/hr", "mm h^-1", "mm h**-1", " mm / h", ""] {
            assert!(alike(same, "mm h-1"), "{same}");
        }
        for other in ["m h-1", "mm", "mm s-1", "kg m-2 h-1"] {
            assert!(!alike(other, "mm h-1"), "{other}");
        }
    }

    #[test]
    fn axes_may_run_the_other_way_and_no_further() {
        let axis = |values: &[f64]| Axis {
            name: "y".to_owned(),
            units: "km".to_owned(),
            values: values.to_vec(),
        };
        let wanted = axis(&[10.0, 12.0, 14.0]);
        assert_eq!(direction(&axis(&[10.0, 12.0, 14.001]), &wanted), Ok(false));
        assert_eq!(direction(&axis(&[14.0, 12.0, 10.0]), &wanted), Ok(true));
        assert_eq!(direction(&Axis::index("y", 3), &wanted), Ok(false));
        for other in [&[10.0, 12.0][..], &[10.5, 12.5, 14.5]] {
            let why = direction(&axis(other), &wanted).unwrap_err();
            assert!(why.contains("3 from 10 to 14"), "{why}");
        }
        let planes = || vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for (flip, expected) in [
            ([false, false], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            ([true, false], [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]),
            ([false, true], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]),
        ] {
            let mut turned = planes();
            turn(&mut turned, [3, 2], flip);
            assert_eq!(turned, expected, "{flip:?}");
        }
    }
}
