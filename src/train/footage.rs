//! Frames at random access, wherever they lie.

use std::sync::Arc;

use physicnet_connectors::zarr::Archive;
use physicnet_stream::{Frame, Result, Sensor, Time};

/// Sensors and their frames, by index.
pub(crate) trait Footage: Send + Sync {
    /// The sensors.
    fn sensors(&self) -> &[Arc<Sensor>];
    /// The valid times of a sensor's frames.
    fn times(&self, sensor: usize) -> &[Time];
    /// One frame.
    fn read(&self, sensor: usize, frame: usize) -> Result<Frame>;
}

impl Footage for Archive {
    fn sensors(&self) -> &[Arc<Sensor>] {
        Archive::sensors(self)
    }

    fn times(&self, sensor: usize) -> &[Time] {
        Archive::times(self, sensor)
    }

    fn read(&self, sensor: usize, frame: usize) -> Result<Frame> {
        Archive::read(self, sensor, frame)
    }
}

/// Sequences held in memory: simulated ones.
#[derive(Default)]
pub(crate) struct Reels {
    sensors: Vec<Arc<Sensor>>,
    times: Vec<Vec<Time>>,
    frames: Vec<Vec<Frame>>,
}

impl Reels {
    /// Adds a sensor with its frames.
    pub(crate) fn push(&mut self, sensor: Arc<Sensor>, frames: Vec<Frame>) {
        self.sensors.push(sensor);
        self.times.push(frames.iter().map(|frame| frame.valid_time).collect());
        self.frames.push(frames);
    }
}

impl Footage for Reels {
    fn sensors(&self) -> &[Arc<Sensor>] {
        &self.sensors
    }

    fn times(&self, sensor: usize) -> &[Time] {
        &self.times[sensor]
    }

    fn read(&self, sensor: usize, frame: usize) -> Result<Frame> {
        Ok(self.frames[sensor][frame].clone())
    }
}
