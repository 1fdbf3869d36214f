//! A store or a simulation into a topic, as its sensors would have sent it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use physicnet_connectors::kafka::format::Format;
use physicnet_connectors::kafka::{Cluster, Published, Publisher};
use physicnet_connectors::synthetic::{Recording, SyntheticSource};
use physicnet_connectors::zarr::{Archive, ZarrSource, is_url, shown};
use physicnet_stream::{Frame, Sensor, Stop, Time};

use crate::config::load;

/// Frames that a thread may have ready: reading goes on while the brokers take their time.
const READY: usize = 4;
/// The longest wait before looking whether to stop.
const NAP: Duration = Duration::from_millis(50);

/// What is published, and where to.
#[derive(Clone, Debug)]
pub struct Publish {
    /// A Zarr store, or a file that says what to simulate.
    pub origin: PathBuf,
    /// Where the topic is.
    pub cluster: Cluster,
    /// Its name.
    pub topic: String,
    /// How frames are written in a message.
    pub format: Format,
    /// How many partitions it gets if it has to be made.
    pub partitions: Option<i32>,
    /// The variables of a store, in the order of the channels; empty: all.
    pub variables: Vec<String>,
    /// What the sensor, or the names of all sensors, are called instead.
    pub sensor: Option<String>,
    /// The first valid time of a store to publish.
    pub from: Option<String>,
    /// The valid time of a store to stop before.
    pub to: Option<String>,
    /// Frames a second and sensor; by default as fast as it goes.
    pub rate: Option<f64>,
    /// Whether a store begins anew at its end, its times going on.
    pub repeat: bool,
}

/// What was published, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What the brokers have acknowledged.
    pub published: Published,
    /// In how many seconds.
    pub seconds: f64,
    /// Whether it was asked to end before its end.
    pub stopped: bool,
}

/// Publishes all frames, step by step: the first of every sensor, then the second of each.
///
/// # Errors
/// When the origin or the topic cannot be opened, a frame cannot be read, or the brokers do not
/// take one.
pub fn publish(config: &Publish, stop: &Stop) -> Result<Outcome> {
    if let Some(rate) = config.rate {
        ensure!(rate.is_finite() && rate > 0.0, "--rate: {rate} is no positive number of frames/s");
    }
    let origin = Origin::open(config)?;
    let Publish { cluster, topic, format, partitions, .. } = config;
    let publisher = Publisher::open(cluster, topic, *format, *partitions, stop)?;
    let sensors = origin.sensors()?;
    let bar = bar(origin.steps().map(|steps| steps * sensors.len() as u64));
    let begun = Instant::now();
    let streamed = stream(&origin, &sensors, |step, frame, sensor| {
        if let Some(rate) = config.rate {
            let due = Duration::from_secs_f64(step as f64 / rate);
            while let Some(left) = due.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
                if stop.stopped() {
                    break;
                }
                publisher.idle(left.min(NAP))?;
                show(&bar, publisher.published(), begun);
            }
        }
        let sent = !stop.stopped() && publisher.send(&frame, sensor)?;
        show(&bar, publisher.published(), begun);
        Ok(sent)
    });
    // What is in the queue is finished even where a frame could not be read.
    let published = publisher.finish();
    bar.finish_and_clear();
    streamed?;
    Ok(Outcome {
        published: published?,
        seconds: begun.elapsed().as_secs_f64(),
        stopped: stop.stopped(),
    })
}

/// Where frames come from.
enum Origin {
    Store { archive: Box<Archive>, repeat: bool },
    Simulation(Box<SyntheticSource>),
}

impl Origin {
    fn open(config: &Publish) -> Result<Self> {
        let Publish { origin: path, variables, sensor, from, to, repeat, .. } = config;
        ensure!(
            path.exists() || is_url(path),
            "{}: is not there; give a Zarr store, or a file that says what to simulate, e.g. \
             configs/kafka/simulate.yaml",
            path.display()
        );
        if path.is_dir() || is_url(path) {
            let source = ZarrSource {
                variables: variables.clone(),
                sensor: sensor.clone(),
                from: from.clone(),
                to: to.clone(),
                ..ZarrSource::new(path)
            };
            source.validate()?;
            let archive = Box::new(Archive::open(&source)?);
            ensure!(
                archive.leads().is_empty(),
                "{}: holds forecasts, of {} leads, and topics take frames: publish the store of \
                 frames that they were made of",
                shown(path),
                archive.leads().len()
            );
            let frames = archive.times(0).len();
            ensure!(frames > 0, "{}: has no frames in the period", shown(path));
            return Ok(Self::Store { archive, repeat: *repeat });
        }
        let of_stores = [
            ("--variable", !variables.is_empty()),
            ("--from", from.is_some()),
            ("--to", to.is_some()),
            ("--repeat", *repeat),
        ];
        if let Some((flag, _)) = of_stores.iter().find(|(_, given)| *given) {
            bail!("{flag} is for stores; what is simulated is said in {}", path.display());
        }
        let mut source: SyntheticSource =
            load(path).context("neither a store (a directory) nor a file of a simulation")?;
        source.name = sensor.clone().or(source.name);
        source.validate().with_context(|| path.display().to_string())?;
        Ok(Self::Simulation(Box::new(source)))
    }

    fn sensors(&self) -> Result<Vec<Arc<Sensor>>> {
        match self {
            Self::Store { archive, .. } => Ok(archive.sensors().to_vec()),
            Self::Simulation(source) => Ok(source.sensors()?),
        }
    }

    /// How many frames each sensor has, if they end.
    fn steps(&self) -> Option<u64> {
        match self {
            Self::Store { repeat: true, .. } => None,
            Self::Store { archive, .. } => Some(archive.times(0).len() as u64),
            Self::Simulation(source) => source.frames,
        }
    }

    /// The frames of the `sensors` of these indices, a step of all after the other, as far as
    /// `hand` takes them; none for a sensor that has ended before the others.
    fn walk(&self, sensors: &[usize], hand: impl Fn(Result<Option<Frame>>) -> bool) {
        let walked = match self {
            Self::Store { archive, repeat } => store(archive, *repeat, sensors, &hand),
            Self::Simulation(source) => simulation(source, sensors, &hand),
        };
        if let Err(error) = walked {
            hand(Err(error));
        }
    }
}

fn store(
    archive: &Archive,
    repeat: bool,
    sensors: &[usize],
    hand: &impl Fn(Result<Option<Frame>>) -> bool,
) -> Result<()> {
    let times = archive.times(0);
    let cadence = archive.sensors().first().map_or(0, |sensor| sensor.cadence.nanoseconds());
    let set = || times.iter().filter(|time| **time != Time::MIN);
    let (first, last) = (set().min().unwrap_or(&0), set().max().unwrap_or(&0));
    let lap = last.saturating_sub(*first).saturating_add(cadence);
    for round in 0_i64.. {
        for frame in 0..times.len() {
            for &sensor in sensors {
                let mut read = archive.read(sensor, frame)?;
                read.valid_time = read.valid_time.saturating_add(lap.saturating_mul(round));
                if !hand(Ok(Some(read))) {
                    return Ok(());
                }
            }
        }
        if !repeat {
            break;
        }
    }
    Ok(())
}

fn simulation(
    source: &SyntheticSource,
    sensors: &[usize],
    hand: &impl Fn(Result<Option<Frame>>) -> bool,
) -> Result<()> {
    let recordings = sensors.iter().map(|sensor| Recording::new(source, *sensor));
    let mut recordings = recordings.collect::<physicnet_stream::Result<Vec<_>>>()?;
    while recordings.iter().any(|recording| !recording.ended()) {
        for recording in &mut recordings {
            if !hand(Ok(recording.next_frame()?)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Shows `send` every frame with its step and its sensor, until it says no. Threads read or
/// simulate ahead, a share of the sensors each; the order does not depend on their number.
fn stream(
    origin: &Origin,
    sensors: &[Arc<Sensor>],
    mut send: impl FnMut(u64, Frame, &Sensor) -> Result<bool>,
) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let threads = threads.min(sensors.len()).max(1);
    thread::scope(|scope| {
        let start = |thread: usize| {
            let (sender, receiver): (SyncSender<Result<Option<Frame>>>, _) = sync_channel(READY);
            let share: Vec<usize> = (thread..sensors.len()).step_by(threads).collect();
            scope.spawn(move || origin.walk(&share, |frame| sender.send(frame).is_ok()));
            receiver
        };
        // Owned here, so that leaving early closes the channels and thereby ends the threads.
        let receivers: Vec<Receiver<Result<Option<Frame>>>> = (0..threads).map(start).collect();
        for step in 0.. {
            let mut ended = true;
            for (index, sensor) in sensors.iter().enumerate() {
                // A thread that is done has no frame of any of its sensors any more.
                let frame = receivers[index % threads].recv().unwrap_or(Ok(None))?;
                let Some(frame) = frame else { continue };
                ended = false;
                if !send(step, frame, sensor)? {
                    return Ok(());
                }
            }
            if ended {
                break;
            }
        }
        Ok(())
    })
}

fn bar(frames: Option<u64>) -> ProgressBar {
    let (bar, style) = match frames {
        Some(frames) => {
            (ProgressBar::new(frames), "{bar:30} {pos}/{len} frames  {msg}  {eta} left")
        }
        None => (ProgressBar::no_length(), "{spinner} {pos} frames  {msg}"),
    };
    ProgressStyle::with_template(style).map_or(bar.clone(), |style| bar.with_style(style))
}

fn show(bar: &ProgressBar, published: Published, begun: Instant) {
    let Published { frames, bytes } = published;
    bar.set_position(frames);
    let seconds = begun.elapsed().as_secs_f64().max(1e-3);
    bar.set_message(format!("{:.1} MB/s", bytes as f64 / 1e6 / seconds));
}

impl Outcome {
    /// What to tell when it is done: how many frames went where.
    pub fn text(&self, origin: &Path, topic: &str) -> String {
        let Self { published: Published { frames, bytes }, seconds, stopped } = self;
        let (rate, megabytes) = (*frames as f64 / seconds, *bytes as f64 / 1e6);
        let how = if *stopped { "stopped: " } else { "" };
        format!(
            "{}: {how}{frames} frames, {megabytes:.1} MB to topic {topic} in {seconds:.1} s: \
             {rate:.0} frames/s, {:.1} MB/s",
            origin.display(),
            megabytes / seconds
        )
    }
}
