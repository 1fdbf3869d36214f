//! Archives as xarray would write them: what simulations and tests are kept in.

use std::path::Path;

use physicnet_stream::{Axis, Error, Frame, Grid, Result, Time, format_time};
use serde_json::{Map, Value, json};

use super::encode::{Field, bytes, native, root};
use super::place::{self, Writing};

/// Frames in a chunk.
const FRAMES: usize = 16;

/// Writes frames as one f32 array per variable, `(time, y, x)` or `(sample, time, y, x)`, in
/// blosc chunks of 16 whole frames; Zarr v3 with consolidated metadata.
///
/// The store comes into being with [`finish`](Self::finish); until then other writers are kept out,
/// and what is dropped before leaves nothing.
pub struct ArchiveWriter {
    files: Box<dyn Writing>,
    grid: Grid,
    attributes: Map<String, Value>,
    sampled: bool,
    times: Vec<Time>,
    samples: Vec<Sample>,
    finished: bool,
}

/// What is known of one sample: how many frames it has, the last of them still to be written.
#[derive(Clone, Default)]
struct Sample {
    frames: usize,
    pending: Vec<Vec<f32>>,
}

impl ArchiveWriter {
    /// A store at `path`, which must not exist or be empty, of one sensor, or of `samples`
    /// trajectories that share their valid times. `attributes` go to its root.
    ///
    /// # Errors
    /// When there is something at `path`, or another one is writing there.
    pub fn create(
        path: &Path,
        grid: &Grid,
        samples: Option<usize>,
        attributes: Map<String, Value>,
    ) -> Result<Self> {
        let files = place::hold(path, false)?;
        if files.place().list()?.names().next().is_some() {
            return Err(Error::new(
                place::shown(path),
                "exists already; remove it or name another",
            ));
        }
        Ok(Self {
            files,
            grid: grid.clone(),
            attributes,
            sampled: samples.is_some(),
            times: Vec::new(),
            samples: vec![Sample::default(); samples.unwrap_or(1)],
            finished: false,
        })
    }

    /// Appends a frame to sample `sample` (0 where there are none): its values f32
    /// `(channel, y, x)` and its valid time, which must be that of the same frame of the other
    /// samples. Samples may come one after another or frame by frame.
    ///
    /// # Errors
    /// When the frame does not fit, or the disk refuses it.
    pub fn append(&mut self, sample: usize, frame: &Frame) -> Result<()> {
        let what = || format!("frame {} of sample {sample}", format_time(frame.valid_time));
        let shape = self.grid.shape();
        if frame.shape != shape || frame.data.len() != shape.iter().product::<usize>() {
            let why = format!("has shape {:?}, the grid {shape:?}", frame.shape);
            return Err(Error::new(what(), why));
        }
        let count = self.samples.len();
        let Some(state) = self.samples.get_mut(sample) else {
            return Err(Error::new(what(), format!("the store has {count} samples")));
        };
        match self.times.get(state.frames) {
            None => self.times.push(frame.valid_time),
            Some(time) if *time == frame.valid_time => {}
            Some(time) => {
                let why = format!("should be valid at {} as in other samples", format_time(*time));
                return Err(Error::new(what(), why));
            }
        }
        state.frames += 1;
        state.pending.push(frame.data.clone());
        if state.pending.len() == FRAMES { self.write(sample) } else { Ok(()) }
    }

    /// Writes what is left, the coordinates, and the metadata last.
    ///
    /// # Errors
    /// When the samples have not equally many frames, or the disk refuses.
    pub fn finish(mut self) -> Result<()> {
        let length = self.times.len();
        if let Some(short) = self.samples.iter().position(|sample| sample.frames != length) {
            let why = format!("has {} frames, not {length}", self.samples[short].frames);
            return Err(Error::new(format!("sample {short}"), why));
        }
        for sample in 0..self.samples.len() {
            self.write(sample)?;
        }
        let mut fields = self.fields();
        let (time, values) = time_field(&self.times);
        self.files.put(&time.key(&[0]), &time.encode(native!(values))?)?;
        fields.push(time);
        for axis in [&self.grid.y, &self.grid.x] {
            let field = axis_field(axis);
            self.files.put(&field.key(&[0]), &field.encode(native!(axis.values))?)?;
            fields.push(field);
        }
        for field in &fields {
            self.files.put(&format!("{}/zarr.json", field.name), &bytes(&field.metadata()))?;
        }
        self.attributes.entry("Conventions").or_insert(json!("CF-1.11"));
        self.files.publish(&bytes(&root(&self.attributes, &fields)))?;
        self.finished = true;
        Ok(())
    }

    fn fields(&self) -> Vec<Field> {
        let Grid { variables, y, x } = &self.grid;
        let (rows, columns) = (y.values.len() as u64, x.values.len() as u64);
        let mut dims = vec!["time", &y.name, &x.name];
        let mut shape = vec![self.times.len() as u64, rows, columns];
        let mut chunk = vec![FRAMES as u64, rows, columns];
        if self.sampled {
            dims.insert(0, "sample");
            shape.insert(0, self.samples.len() as u64);
            chunk.insert(0, 1);
        }
        let field = |name: &str| Field::f32(name, &dims, &shape, &chunk).blosc();
        variables.iter().map(|v| field(&v.name).text("units", &v.units)).collect()
    }

    /// Writes the pending frames of a sample as its newest chunk.
    fn write(&mut self, sample: usize) -> Result<()> {
        let state = &mut self.samples[sample];
        let frames = std::mem::take(&mut state.pending);
        if frames.is_empty() {
            return Ok(());
        }
        let at = (state.frames - 1) / FRAMES;
        let place = [sample as u64, at as u64, 0, 0];
        let [_, rows, columns] = self.grid.shape();
        let plane = rows * columns;
        for (channel, field) in self.fields().iter().enumerate() {
            let mut values = vec![f32::NAN; FRAMES * plane];
            for (out, frame) in values.chunks_exact_mut(plane.max(1)).zip(&frames) {
                out.copy_from_slice(&frame[channel * plane..(channel + 1) * plane]);
            }
            let place = if self.sampled { &place[..] } else { &place[1..] };
            self.files.put(&field.key(place), &field.encode(native!(values))?)?;
        }
        Ok(())
    }
}

impl Drop for ArchiveWriter {
    fn drop(&mut self) {
        if !self.finished {
            // All that is there is ours, and half a data set would only be in the way.
            let _ = self.files.remove("");
        }
    }
}

/// The time coordinate in one chunk: int64 CF, in seconds unless that loses something.
fn time_field(times: &[Time]) -> (Field, Vec<i64>) {
    const SECOND: i64 = 1_000_000_000;
    let whole = times.iter().all(|time| time % SECOND == 0);
    let (units, unit) = if whole { ("seconds", SECOND) } else { ("nanoseconds", 1) };
    let length = times.len() as u64;
    let field = Field::new("time", "int64", json!(i64::MIN), &["time"], &[length], &[length])
        .text("units", &format!("{units} since 1970-01-01"))
        .text("calendar", "proleptic_gregorian")
        .text("standard_name", "time");
    (field, times.iter().map(|time| time / unit).collect())
}

/// The coordinate along an axis: f64, in one chunk.
pub(super) fn axis_field(axis: &Axis) -> Field {
    let length = axis.values.len() as u64;
    let standard = match axis.name.as_str() {
        "lat" | "latitude" => "latitude",
        "lon" | "longitude" => "longitude",
        _ => "",
    };
    Field::new(&axis.name, "float64", json!("NaN"), &[&axis.name], &[length], &[length])
        .text("units", &axis.units)
        .text("standard_name", standard)
}
