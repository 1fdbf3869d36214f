//! Which dim of a variable is time, which are its rows and columns, and what any other one is.

use physicnet_stream::{Error, Result};

use super::store::{Store, Stored};

const ROWS: [&str; 12] = [
    "y",
    "lat",
    "latitude",
    "row",
    "rows",
    "height",
    "north_south",
    "south_north",
    "nlat",
    "rlat",
    "yc",
    "projection_y_coordinate",
];
const COLUMNS: [&str; 12] = [
    "x",
    "lon",
    "longitude",
    "column",
    "columns",
    "width",
    "west_east",
    "east_west",
    "nlon",
    "rlon",
    "xc",
    "projection_x_coordinate",
];
const CHANNELS: [&str; 4] = ["channel", "channels", "variable", "band"];
const LEVELS: [&str; 11] = [
    "level",
    "levels",
    "lev",
    "plev",
    "pressure",
    "pressure_level",
    "isobaricinhpa",
    "altitude",
    "depth",
    "z",
    "sigma",
];
const SAMPLES: [&str; 4] = ["sample", "sensor", "trajectory", "member"];

/// The places of a variable's dims. A dim of length one that is nothing of these is ignored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) time: usize,
    pub(super) y: usize,
    pub(super) x: usize,
    pub(super) channel: Option<usize>,
    /// One sensor for every index.
    pub(super) sample: Option<usize>,
    /// In a store of ensemble forecasts, the members: as many sensors for every sample.
    pub(super) member: Option<usize>,
}

/// The name of the store's time dim: that of a coordinate which is a time, `time` first.
///
/// # Errors
/// When there is none, naming the arrays that there are.
pub(super) fn time_dim(store: &Store) -> Result<String> {
    let mut names: Vec<_> = store.names().collect();
    names.sort_by_key(|name| (*name != "time", *name != "valid_time"));
    for name in names {
        let Some(array) = store.array(name).ok().flatten() else { continue };
        if array.is_time() && array.dims == [name] {
            return Ok(name.to_owned());
        }
    }
    let why = "has no time coordinate (one-dimensional, named as its dim, with units like \
               \"seconds since 1970-01-01\")";
    Err(Error::new(store.name(), format!("{why}; its arrays are: {}", listed(store))))
}

/// The names of a store's arrays, for an error.
pub(super) fn listed(store: &Store) -> String {
    let names: Vec<_> = store.names().collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The dims of more than one index that are neither `known`, nor channels, rows or columns.
pub(super) fn beyond<'a>(array: &'a Stored, known: &[&str]) -> Vec<&'a str> {
    let lower: Vec<String> = array.dims.iter().map(|dim| dim.to_lowercase()).collect();
    let one_of = |dim: usize, names: &[&str]| names.contains(&&*lower[dim]);
    let mut rest: Vec<usize> = (0..lower.len())
        .filter(|dim| !known.contains(&&*array.dims[*dim]) && !one_of(*dim, &CHANNELS))
        .collect();
    let place = |names: &[&str]| rest.iter().position(|dim| one_of(*dim, names));
    match (place(&ROWS), place(&COLUMNS)) {
        (Some(_), Some(_)) => rest.retain(|dim| !one_of(*dim, &ROWS) && !one_of(*dim, &COLUMNS)),
        // The last two, as `Layout` takes them.
        _ => rest.truncate(rest.len().saturating_sub(2)),
    }
    rest.retain(|dim| array.shape.get(*dim).is_some_and(|n| *n > 1));
    rest.into_iter().map(|dim| &*array.dims[dim]).collect()
}

/// Whether a dim is called like heights or depths: no members of an ensemble.
pub(super) fn is_level(dim: &str) -> bool {
    LEVELS.contains(&&*dim.to_lowercase())
}

impl Layout {
    /// Finds the roles of `array`'s dims, by their names first, by their order otherwise; `member` is
    /// the dim of an ensemble's members.
    ///
    /// # Errors
    /// When it does not have time and two more dims, or has dims that nothing is known of.
    pub(super) fn of(array: &Stored, time: &str, member: Option<&str>) -> Result<Self> {
        let dims = &array.dims;
        let known = format!("its dims are ({})", dims.join(", "));
        if dims.len() != array.shape.len() {
            return Err(array.error("its dims have no names; write the store with xarray"));
        }
        let Some(time) = dims.iter().position(|dim| dim == time) else {
            return Err(array.error(format!("has no dim {time}; {known}")));
        };
        let find = |names: &[&str]| {
            dims.iter().position(|dim| names.contains(&dim.to_lowercase().as_str()))
        };
        let member = dims.iter().position(|dim| Some(&**dim) == member);
        let (channel, mut sample) = (find(&CHANNELS), find(&SAMPLES));
        sample = sample.filter(|sample| Some(*sample) != member);
        let rest = |taken: &[Option<usize>]| -> Vec<usize> {
            (0..dims.len()).filter(|d| *d != time && !taken.contains(&Some(*d))).collect()
        };
        let (y, x) = match (find(&ROWS), find(&COLUMNS)) {
            (Some(y), Some(x)) => (y, x),
            // Unknown names: the last two, as arrays of images have them.
            _ => match rest(&[channel, sample, member])[..] {
                [.., y, x] => (y, x),
                _ => return Err(array.error(format!("needs time and two more dims; {known}"))),
            },
        };
        let mut beyond = rest(&[channel, sample, member, Some(y), Some(x)]);
        beyond.retain(|dim| array.shape[*dim] != 1);
        if sample.is_none() && beyond.len() == 1 {
            sample = beyond.pop();
        }
        if !beyond.is_empty() {
            let names: Vec<_> = beyond.into_iter().map(|dim| dims[dim].as_str()).collect();
            let why = format!("cannot tell what dim {} is; select one index", names.join(", or "));
            return Err(array.error(format!("{why}, `ds.isel({}=0)`; {known}", names[0])));
        }
        Ok(Self { time, y, x, channel, sample, member })
    }
}
