//! Windows streamed from archives: a list of places, read when they are drawn.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use physicnet_connectors::zarr::{Archive, shown};
use physicnet_operators::cropping::View;
use physicnet_operators::model::{ModelConfig, VariableConfig};
use physicnet_stream::{Frame, Sensor, format_time};

use super::config::{By, TrainConfig};
use super::random::Random;
use super::sample::{Planes, Sample};
use crate::config::measures;

/// A window: where its first frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    archive: usize,
    sensor: usize,
    first: usize,
}

/// Consecutive frames of one sensor that belong to one part.
#[derive(Clone)]
pub(crate) struct Series {
    archive: usize,
    sensor: usize,
    pub(crate) frames: Range<usize>,
}

impl Series {
    /// Every frame of it.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&Self, usize)> {
        self.frames.clone().map(move |frame| (self, frame))
    }

    /// Its first three quarters, and the last.
    pub(crate) fn split(&self) -> (Self, Self) {
        let Range { start, end } = self.frames;
        let at = start + 3 * (end - start) / 4;
        let part = |frames| Self { frames, ..*self };
        (part(start..at), part(at..end))
    }
}

/// The archives and the windows of each part.
pub(crate) struct Data {
    archives: Vec<Archive>,
    training: Vec<Place>,
    validation: Vec<Place>,
    crop: usize,
    min_measured: f64,
}

impl Data {
    /// Opens the archives, completes the model's config from them (channels, cadence, fitted
    /// transforms) and lists the windows.
    ///
    /// # Errors
    /// When an archive cannot be read, they disagree, or no window fits.
    pub(crate) fn open(config: &TrainConfig, model: &mut ModelConfig) -> Result<Self> {
        let archives: Vec<Archive> =
            config.data.iter().map(Archive::open).collect::<physicnet_stream::Result<_>>()?;
        let sensors: Vec<&Arc<Sensor>> = archives.iter().flat_map(Archive::sensors).collect();
        let first = sensors.first().ok_or_else(|| anyhow!("data: no sensor in the archives"))?;
        complete(model, first)?;
        model.check()?;
        for sensor in &sensors {
            measures(model, sensor)?;
            let [_, height, width] = sensor.grid.shape();
            model.check_size(height, width).with_context(|| sensor.id.to_string())?;
            ensure!(
                config.crop == 0 || model.boundary == physicnet_operators::layers::Boundary::Open,
                "crop: a periodic domain is trained on whole frames; set crop: 0"
            );
        }
        let mut data = Self {
            archives,
            training: Vec::new(),
            validation: Vec::new(),
            crop: config.crop,
            min_measured: config.min_measured,
        };
        data.list(config, model);
        let (history, horizon) = (model.history, model.horizon);
        if data.training.is_empty() {
            let place = shown(&data.archives[0].config().path);
            let seconds = data.archives[0].sensors()[0].cadence.nanoseconds() as f64 / 1e9;
            if let Some(why) = data.archives[0].irregular() {
                bail!(
                    "data: no window of {history} + {horizon} frames, each a cadence after the last, \
                     in the training part of {place}: {why}"
                );
            }
            bail!(
                "data: no window of {history} + {horizon} frames, each a cadence after the last, in \
                 the training part: `physicnet inspect {place}` lists its gaps at the cadence of \
                 {seconds} s; say another `cadence`, or a smaller `history` and `horizon`"
            );
        }
        for (archive, share) in config.mix.iter().enumerate() {
            ensure!(
                *share == 0.0 || data.training.iter().any(|place| place.archive == archive),
                "mix: data[{archive}] is to be drawn, but its training part has no window of \
                 {history} + {horizon} consecutive frames; give it 0, or more frames"
            );
        }
        ensure!(
            config.split.validation == 0.0 || !data.validation.is_empty(),
            "split.validation: {} of the data holds no window of {} + {} consecutive frames; give \
             it more, or 0 to train without: then there is no best.safetensors",
            config.split.validation,
            model.history,
            model.horizon
        );
        data.measured(&data.training, "training", model)?;
        data.measured(&data.validation, "validation", model)?;
        data.fit(model)?;
        Ok(data)
    }

    fn list(&mut self, config: &TrainConfig, model: &ModelConfig) {
        let (split, length) = (config.split, model.history + model.horizon);
        for (archive, store) in self.archives.iter().enumerate() {
            let sensors = store.sensors().len();
            for (sensor, known) in store.sensors().iter().enumerate() {
                let times = store.times(sensor);
                let at = |place: usize, of: usize| place as f64 / of.max(1) as f64;
                let whole = |first: usize| {
                    let steps = times[first..first + length].windows(2);
                    steps.into_iter().all(|pair| known.cadence.steps(pair[0], pair[1]) == 1)
                };
                for first in 0..(times.len() + 1).saturating_sub(length) {
                    if !whole(first) {
                        continue;
                    }
                    let place = Place { archive, sensor, first };
                    let (begin, end) = match split.by {
                        By::Sensor => (at(sensor, sensors), at(sensor, sensors)),
                        By::Time => (at(first, times.len()), at(first + length, times.len())),
                    };
                    // No frame is in two parts: a window must end before the next part begins.
                    let (a, b) = (split.train, split.train + split.validation);
                    if end <= a && (split.by == By::Time || begin < a) {
                        self.training.push(place);
                    } else if begin >= a && end <= b && (split.by == By::Time || begin < b) {
                        self.validation.push(place);
                    }
                }
            }
        }
    }

    /// Whether the windows at `places` measure every variable somewhere: as a rule the first does.
    fn measured(&self, places: &[Place], part: &str, model: &ModelConfig) -> Result<()> {
        let mut unseen: Vec<usize> = (0..model.variables.len()).collect();
        for place in places {
            if unseen.is_empty() {
                return Ok(());
            }
            let frame = self.archives[place.archive].read_or_miss(place.sensor, place.first)?;
            let plane = frame.shape[1] * frame.shape[2];
            let measured =
                |c: usize| frame.data[c * plane..][..plane].iter().any(|x| x.is_finite());
            unseen.retain(|c| !measured(*c));
        }
        if let (Some(c), Some(place)) = (unseen.first(), places.first()) {
            bail!(
                "data: no frame that begins a window of the {part} part has a measured pixel of {}, \
                 from {} on; look at it with `physicnet inspect --picture`, or choose another split",
                model.variables[*c].name,
                self.name(*place)
            );
        }
        Ok(())
    }

    /// Fits what the transforms leave out, on training frames.
    fn fit(&self, model: &mut ModelConfig) -> Result<()> {
        if model.variables.iter().all(|variable| variable.transform.fitted()) {
            return Ok(());
        }
        // Of each channel: count, sum, squares and magnitudes.
        let mut all = vec![[0.0_f64; 4]; model.variables.len()];
        let every = (self.training.len() / 500).max(1);
        let length = model.history + model.horizon;
        for (at, place) in self.training.iter().step_by(every).enumerate() {
            // Another frame of each window: of short series the first ones are how all begin.
            let frame = place.first + at % length;
            let frame = self.archives[place.archive].read_or_miss(place.sensor, frame)?;
            let plane = frame.shape[1] * frame.shape[2];
            for (sums, values) in all.iter_mut().zip(frame.data.chunks_exact(plane)) {
                for x in values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)) {
                    let add = [1.0, x, x * x, x.abs()];
                    sums.iter_mut().zip(add).for_each(|(sum, add)| *sum += add);
                }
            }
        }
        for ([n, sum, squares, sizes], variable) in all.into_iter().zip(&mut model.variables) {
            let known = variable.transform.fitted();
            ensure!(known || n > 0.0, "{}: the training part measured nothing", variable.name);
            let variance = (squares / n - (sum / n).powi(2)).max(0.0);
            variable.transform.fit(sum / n, variance.sqrt(), sizes / n);
        }
        Ok(())
    }

    /// How many windows train and how many validate.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.training.len(), self.validation.len())
    }

    /// The frames of the training and of the validation part.
    pub(crate) fn series(&self, model: &ModelConfig) -> [Vec<Series>; 2] {
        [&self.training, &self.validation].map(|places| {
            let mut all: Vec<Series> = Vec::new();
            for &Place { archive, sensor, first } in places {
                let end = first + model.history + model.horizon;
                match all.last_mut() {
                    // The windows of a part come in order, each a frame after the last.
                    Some(last)
                        if (last.archive, last.sensor) == (archive, sensor)
                            && first <= last.frames.end =>
                    {
                        last.frames.end = end;
                    }
                    _ => all.push(Series { archive, sensor, frames: first..end }),
                }
            }
            all
        })
    }

    /// One frame of a series, and whose it is.
    pub(crate) fn frame(&self, series: &Series, frame: usize) -> Result<(&Arc<Sensor>, Frame)> {
        let store = &self.archives[series.archive];
        Ok((&store.sensors()[series.sensor], store.read_or_miss(series.sensor, frame)?))
    }

    /// `[height, width]` of the first sensor.
    pub(crate) fn grid(&self) -> [usize; 2] {
        let [_, height, width] = self.archives[0].sensors()[0].grid.shape();
        [height, width]
    }

    /// The pixels of the largest view that is trained on.
    pub(crate) fn pixels(&self) -> usize {
        let side = |side: usize| if self.crop > 0 { side.min(self.crop) } else { side };
        let sensors = self.archives.iter().flat_map(Archive::sensors);
        let views = sensors.map(|sensor| {
            let [_, height, width] = sensor.grid.shape();
            side(height) * side(width)
        });
        views.max().unwrap_or(0)
    }

    /// Window `index` of step `step`: the same for the same seed, whoever asks.
    pub(crate) fn training(
        &self,
        config: &TrainConfig,
        model: &ModelConfig,
        step: u64,
        index: usize,
    ) -> Result<Sample> {
        let mut random = Random::new(config.seed, &[step, index as u64]);
        let (mut tried, mut read) = (0, Duration::ZERO);
        loop {
            let place = self.draw(&config.mix, &mut random);
            let mut planes = self.planes(place, model)?;
            read += planes.read;
            let cut = self.crop > 0 && (self.crop < planes.height || self.crop < planes.width);
            // A view with too little in it teaches nothing; after many tries take what there is.
            let good = !cut || planes.crop(self.crop, self.min_measured, &mut random);
            tried += 1;
            if good || tried == 50 {
                planes.augment(&config.augment, &model.variables, &mut random);
                let mut sample = planes.sample(model, cut, self.name(place))?;
                sample.batch.view = self.view(place, model, &sample)?;
                sample.read = read;
                return Ok(sample);
            }
        }
    }

    /// A window of the training part; with a mix first the archive, then the window.
    fn draw(&self, mix: &[f64], random: &mut Random) -> Place {
        let all = &self.training;
        if mix.is_empty() {
            return all[random.below(all.len())];
        }
        let mut along = random.uniform() * mix.iter().sum::<f64>();
        let reached = mix.iter().position(|share| {
            along -= share;
            along < 0.0
        });
        let archive = reached.or_else(|| mix.iter().rposition(|&share| share > 0.0)).unwrap_or(0);
        // Windows are listed archive by archive.
        let begin = all.partition_point(|place| place.archive < archive);
        let end = all.partition_point(|place| place.archive <= archive);
        all[begin + random.below(end - begin)]
    }

    /// The windows of the validation part, thinned to `most`.
    pub(crate) fn validation(&self, most: usize) -> Vec<Place> {
        thinned(&self.validation, most)
    }

    /// The windows of the training part, thinned to `most`.
    pub(crate) fn spread(&self, most: usize) -> Vec<Place> {
        thinned(&self.training, most)
    }

    /// A window as it is.
    pub(crate) fn whole(&self, place: Place, model: &ModelConfig) -> Result<Sample> {
        self.planes(place, model)?.sample(model, false, self.name(place))
    }

    /// The local view of a window, by its sensor and reference time.
    fn view(&self, place: Place, model: &ModelConfig, sample: &Sample) -> Result<Option<View>> {
        if !model.local || model.local_view == 0 {
            return Ok(None);
        }
        let store = &self.archives[place.archive];
        let reference = store.times(place.sensor)[place.first + model.history - 1];
        let (_, rows, columns, _) = sample.target.dims4()?;
        let sensor = &store.sensors()[place.sensor].id;
        Ok(Some(View::draw(sensor, reference, (rows, columns), model.local_view)))
    }

    fn planes(&self, place: Place, model: &ModelConfig) -> Result<Planes> {
        let store = &self.archives[place.archive];
        let length = model.history + model.horizon;
        let begun = Instant::now();
        let frames: Vec<Frame> = (place.first..place.first + length)
            .map(|frame| store.read_or_miss(place.sensor, frame))
            .collect::<physicnet_stream::Result<_>>()?;
        let read = begun.elapsed();
        let mut planes = Planes::new(&frames, model);
        planes.read = read;
        Ok(planes)
    }

    fn name(&self, place: Place) -> String {
        let store = &self.archives[place.archive];
        let time = format_time(store.times(place.sensor)[place.first]);
        format!("{} from {time}", store.sensors()[place.sensor].id)
    }
}

/// Every so manieth place, at most `most`.
fn thinned(places: &[Place], most: usize) -> Vec<Place> {
    let every = places.len().div_ceil(most.max(1)).max(1);
    places.iter().step_by(every).copied().collect()
}

/// Fills what the model leaves to its data.
fn complete(model: &mut ModelConfig, sensor: &Sensor) -> Result<()> {
    if model.variables.is_empty() {
        model.variables = sensor.grid.variables.iter().map(VariableConfig::for_variable).collect();
    }
    for (variable, measured) in model.variables.iter_mut().zip(&sensor.grid.variables) {
        if variable.units.is_empty() && variable.name == measured.name {
            variable.units.clone_from(&measured.units);
        }
    }
    if model.cadence.is_none() {
        model.cadence = Some(sensor.cadence);
    }
    Ok(())
}
