//! One simulated sensor, frame after frame.

use std::sync::Arc;

use physicnet_stream::{Frame, Result, Sensor, Time};

use super::navier_stokes::Flow;
use super::rain::Sky;
use super::{Field, SyntheticSource};

/// The frames of one sensor in the order of their offsets; made as they are asked for.
///
/// Depends on the configuration and the sensor's index alone. `Send`: recordings may be made on
/// as many threads as there are sensors.
pub struct Recording {
    sensor: Arc<Sensor>,
    state: Simulation,
    start: Time,
    frames: Option<u64>,
    /// The offset that `state` is at.
    at: u64,
    /// The offset of the next frame.
    next: u64,
}

enum Simulation {
    NavierStokes(Box<Flow>),
    Rain(Box<Sky>),
}

impl Recording {
    /// The recording of the sensor `index` of `config`.
    ///
    /// # Errors
    /// When a setting is out of its range, or the flow blows up in its warm-up.
    pub fn new(config: &SyntheticSource, index: usize) -> Result<Self> {
        let sensors = config.sensors()?;
        Self::of(config, index, Arc::clone(&sensors[index % sensors.len()]))
    }

    /// As [`new`](Self::new), for a sensor that is known already.
    pub(super) fn of(config: &SyntheticSource, index: usize, sensor: Arc<Sensor>) -> Result<Self> {
        let key = [config.seed, index as u64];
        let state = match &config.field {
            Field::NavierStokes(field) => Simulation::NavierStokes(Flow::new(field, &key)?.into()),
            Field::Rain(field) => Simulation::Rain(Sky::new(field, &key)?.into()),
        };
        let ((start, _), frames) = (config.clock()?, config.frames);
        Ok(Self { sensor, state, start, frames, at: 0, next: 0 })
    }

    /// Who is seen.
    pub fn sensor(&self) -> &Arc<Sensor> {
        &self.sensor
    }

    /// The offset of the next frame.
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// Makes the frame at `offset` the next one, if it lies ahead; what lies between is
    /// simulated when the frame is asked for, or by [`approach`](Self::approach).
    pub fn seek(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    /// Whether there is no next frame.
    pub fn ended(&self) -> bool {
        self.frames.is_some_and(|frames| self.next >= frames)
    }

    /// Simulates at most `frames` frames on the way to the next one; whether it is reached.
    ///
    /// # Errors
    /// When the flow blows up, naming the settings.
    pub fn approach(&mut self, frames: u64) -> Result<bool> {
        for _ in 0..frames.min(self.next - self.at) {
            match &mut self.state {
                Simulation::NavierStokes(flow) => flow.advance()?,
                Simulation::Rain(sky) => sky.advance(),
            }
            self.at += 1;
        }
        Ok(self.at == self.next)
    }

    /// The next frame; none after the last.
    ///
    /// # Errors
    /// When the flow blows up, naming the settings.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.ended() {
            return Ok(None);
        }
        self.approach(u64::MAX)?;
        let data = match &mut self.state {
            Simulation::NavierStokes(flow) => flow.render()?,
            Simulation::Rain(sky) => sky.render(),
        };
        let (offset, sensor) = (self.next, &self.sensor);
        self.next += 1;
        let valid_time = sensor.cadence.after(self.start, offset as i64);
        let shape = sensor.grid.shape();
        Ok(Some(Frame::new(sensor.id.clone(), valid_time, offset, shape, data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{NavierStokes, Rain};

    fn both() -> [SyntheticSource; 2] {
        let rain = Rain { height: 24, width: 40, ..Rain::default() };
        let flow = NavierStokes { size: 16, warm_up: 0.7, ..NavierStokes::default() };
        [Field::Rain(rain), Field::NavierStokes(flow)].map(|field| SyntheticSource {
            sensors: 2,
            frames: Some(30),
            ..SyntheticSource::new(field)
        })
    }

    fn record(config: &SyntheticSource, index: usize, from: u64) -> Vec<Frame> {
        let mut recording = Recording::new(config, index).unwrap();
        recording.seek(from);
        std::iter::from_fn(|| recording.next_frame().unwrap()).collect()
    }

    #[test]
    fn a_recording_is_its_seed_and_index() {
        for config in both() {
            let first = record(&config, 0, 0);
            assert_eq!(first.len(), 30);
            assert_eq!(record(&config, 0, 0), first);
            // A restart anywhere goes on as if nothing had happened.
            for from in [1, 17, 29, 30, 31] {
                assert_eq!(record(&config, 0, from), first[30.min(from as usize)..]);
            }
            // What the others do is of no account.
            assert_eq!(record(&SyntheticSource { sensors: 1, ..config.clone() }, 0, 0), first);

            assert_ne!(record(&config, 1, 0)[3].data, first[3].data);
            let reseeded = SyntheticSource { seed: 1, ..config.clone() };
            assert_ne!(record(&reseeded, 0, 0)[3].data, first[3].data);
            assert_eq!(first[2].valid_time - first[0].valid_time, 600_000_000_000);
        }
    }

    #[test]
    fn recordings_go_to_threads() {
        fn sent<T: Send>(_: &T) {}
        sent(&Recording::new(&both()[0], 0).unwrap());
    }
}
