//! The arrays of a store as channels of a frame, read chunk by chunk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use physicnet_stream::{Axis, Error, Result, Variable};

use super::cache::Cache;
use super::config::{Absent, ZarrSource};
use super::decode::Unpack;
use super::layout::{Layout, listed};
use super::place::AT_ONCE;
use super::store::{Store, Stored, Unread};

/// One array of the store and the channels that it gives.
pub(super) struct Channels {
    pub(super) array: Stored,
    pub(super) layout: Layout,
    unpack: Unpack,
    /// What a chunk that the store does not hold is full of.
    absent: f32,
    pub(super) count: usize,
    /// Which chunk along time was read last.
    last: AtomicU64,
}

/// The variables asked for, or every one over time and two more dims.
pub(super) fn variables(
    store: &Store,
    config: &ZarrSource,
    time: &str,
    member: Option<&str>,
) -> Result<Vec<Channels>> {
    if !config.variables.is_empty() {
        let named = config.variables.iter().map(|name| {
            let array = store.array(name)?.ok_or_else(|| {
                let why = format!("has no variable {name}; its arrays are: {}", listed(store));
                Error::new(store.name(), why)
            })?;
            Channels::new(array, time, member, config.absent)
        });
        return named.collect();
    }
    let mut found = Vec::new();
    for name in store.names() {
        let Some(array) = store.array(name)? else { continue };
        let frames = array.is_numeric() && array.shape.len() > 2;
        if frames && array.dims.iter().any(|dim| dim == time) {
            found.push(Channels::new(array, time, member, config.absent)?);
        }
    }
    Ok(found)
}

impl Channels {
    fn new(array: Stored, time: &str, member: Option<&str>, absent: Absent) -> Result<Self> {
        let layout = Layout::of(&array, time, member)?;
        let unpack = array.unpack()?;
        let absent = match absent {
            Absent::Auto => unpack.absent(array.fill()),
            Absent::Fill => unpack.fill(array.fill()),
            Absent::Missing => f32::NAN,
        };
        let count = layout.channel.map_or(1, |dim| array.shape[dim] as usize);
        Ok(Self { array, layout, unpack, absent, count, last: AtomicU64::new(0) })
    }

    /// `[samples, times, rows, columns]`, which variables must share.
    pub(super) fn extent(&self) -> [u64; 4] {
        let Layout { time, y, x, sample, member, .. } = self.layout;
        let shape = &self.array.shape;
        let each = |dim: Option<usize>| dim.map_or(1, |dim| shape[dim]);
        [each(member) * each(sample), shape[time], shape[y], shape[x]]
    }

    pub(super) fn names(&self) -> Vec<Variable> {
        let name = self.array.name();
        let units = self.array.text("units").to_owned();
        let named = |name: String| Variable { name, units: units.clone() };
        match self.layout.channel {
            None => vec![named(name.to_owned())],
            Some(_) => (0..self.count).map(|i| named(format!("{name}_{i}"))).collect(),
        }
    }

    /// The axis along dim `dim`: its coordinate where that is numbers, pixels otherwise.
    pub(super) fn axis(&self, store: &Store, dim: usize) -> Result<Axis> {
        let (name, length) = (&self.array.dims[dim], self.array.shape[dim] as usize);
        if let Some(coordinate) = store.array(name)?
            && coordinate.shape == [length as u64]
            && let Some(values) = coordinate.coordinate()?
        {
            let units = coordinate.text("units").to_owned();
            return Ok(Axis { name: name.clone(), units, values });
        }
        Ok(Axis::index(name, length))
    }

    /// Reads one frame into `out`, laid out with strides `[channel, y, x]`.
    pub(super) fn read(
        &self,
        index: usize,
        row: u64,
        sample: u64,
        cache: &Cache,
        out: &mut [f32],
        strides: [usize; 3],
    ) -> Result<(), Unread> {
        let Layout { time, y, x, channel, sample: samples, member } = self.layout;
        let dims = self.array.shape.len();
        // What to read along each dim, and how far apart that lies in the frame.
        let mut ranges = vec![(0, 1); dims];
        let mut steps = vec![0; dims];
        for (dim, step) in [(Some(y), strides[1]), (Some(x), strides[2]), (channel, strides[0])] {
            if let Some(dim) = dim {
                (ranges[dim], steps[dim]) = ((0, self.array.shape[dim]), step);
            }
        }
        ranges[time] = (row, row + 1);
        let samples_each = samples.map_or(1, |dim| self.array.shape[dim].max(1));
        for (dim, at) in [(samples, sample % samples_each), (member, sample / samples_each)] {
            if let Some(dim) = dim {
                ranges[dim] = (at, at + 1);
            }
        }
        if ranges.iter().any(|(low, high)| low == high) {
            return Ok(());
        }
        let chunk = &self.array.chunk;
        let first: Vec<u64> = ranges.iter().zip(chunk).map(|((low, _), n)| low / n).collect();
        let last: Vec<u64> =
            ranges.iter().zip(chunk).map(|((_, high), n)| (high - 1) / n).collect();
        if self.array.reads_ahead() {
            self.ahead(index, cache, &first, &last);
        }
        let mut place = first.clone();
        loop {
            let values = self.values(index, &place, cache)?;
            let copy = Copy { chunk, place: &place, ranges: &ranges, steps: &steps };
            copy.run(&values, out, 0, 0, 0);
            if !step(&mut place, &first, &last) {
                return Ok(());
            }
        }
    }

    /// Begins to read the chunks from `first` to `last`, and where they are read in the order of
    /// time those after them.
    fn ahead(&self, index: usize, cache: &Cache, first: &[u64], last: &[u64]) {
        let time = self.layout.time;
        let before = self.last.swap(first[time], Ordering::Relaxed);
        let forward = (before..=before + 1).contains(&first[time]);
        let end = self.array.shape[time].div_ceil(self.array.chunk[time]);
        let (mut wanted, mut from, mut to) = (Vec::new(), first.to_vec(), last.to_vec());
        while wanted.len() < AT_ONCE as usize && from[time] < end {
            let mut place = from.clone();
            loop {
                if !cache.holds(&(index, place.clone())) {
                    wanted.push(place.clone());
                }
                if !step(&mut place, &from, &to) {
                    break;
                }
            }
            if !forward || from[time] - first[time] >= AT_ONCE {
                break;
            }
            from[time] += 1;
            to[time] += 1;
        }
        self.array.ahead(&wanted);
    }

    /// The physical values of a chunk.
    fn values(&self, index: usize, place: &[u64], cache: &Cache) -> Result<Arc<[f32]>, Unread> {
        let key = (index, place.to_vec());
        if let Some(values) = cache.get(&key) {
            return Ok(values);
        }
        let length = self.array.chunk.iter().product::<u64>() as usize;
        let values: Arc<[f32]> = match self.array.chunk(place)? {
            Some(bytes) => self.unpack.values(&bytes).into(),
            None => vec![self.absent; length].into(),
        };
        if values.len() != length {
            let why = format!("chunk {place:?} holds {} values, not {length}", values.len());
            return Err(Unread::Corrupt(self.array.error(why)));
        }
        cache.put(key, Arc::clone(&values));
        Ok(values)
    }
}

/// Goes to the next place from `first` to `last`, the last dim first; false behind the last one.
fn step(place: &mut [u64], first: &[u64], last: &[u64]) -> bool {
    let Some(dim) = (0..place.len()).rev().find(|dim| place[*dim] < last[*dim]) else {
        return false;
    };
    place[dim] += 1;
    place[dim + 1..].copy_from_slice(&first[dim + 1..]);
    true
}

/// The copying of what a chunk holds of a frame.
struct Copy<'a> {
    chunk: &'a [u64],
    place: &'a [u64],
    ranges: &'a [(u64, u64)],
    steps: &'a [usize],
}

impl Copy<'_> {
    /// Copies along `dim` and those after it, from `source` in the chunk to `target` in `out`.
    fn run(&self, values: &[f32], out: &mut [f32], dim: usize, source: usize, target: usize) {
        let (length, origin) = (self.chunk[dim], self.place[dim] * self.chunk[dim]);
        let (low, high) = self.ranges[dim];
        let (from, to) = (low.max(origin), high.min(origin + length));
        let stride: u64 = self.chunk[dim + 1..].iter().product();
        let at = |i: u64| {
            let source = source + ((i - origin) * stride) as usize;
            (source, target + (i - low) as usize * self.steps[dim])
        };
        if dim + 1 < self.chunk.len() {
            for i in from..to {
                let (source, target) = at(i);
                self.run(values, out, dim + 1, source, target);
            }
        } else if self.steps[dim] == 1 {
            let ((source, target), count) = (at(from), (to - from) as usize);
            out[target..target + count].copy_from_slice(&values[source..source + count]);
        } else {
            for (source, target) in (from..to).map(at) {
                out[target] = values[source];
            }
        }
    }
}
