//! One simulated sensor, frame after frame.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_stream::{Frame, Result, Sensor, Time};

use super::arrivals::Arrivals;
use super::field::Simulation;
use super::{Faults, Field, SyntheticSource};

/// The frames of one sensor in the order of their offsets; made as they are asked for.
///
/// Depends on the configuration and the sensor's index alone. `Send`: recordings may be made on
/// as many threads as there are sensors.
pub struct Recording {
    sensor: Arc<Sensor>,
    field: Field,
    faults: Faults,
    /// The seed and the sensor's index.
    key: [u64; 2],
    episode: Option<u64>,
    start: Time,
    state: Box<dyn Simulation>,
    /// The frame that `state` is at.
    at: u64,
    arrivals: Arrivals,
    /// Frames behind `at` that come later, or again.
    held: BTreeMap<u64, Vec<f32>>,
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
        let (key, (start, _)) = ([config.seed, index as u64], config.clock()?);
        Ok(Self {
            sensor,
            field: config.field.clone(),
            faults: config.faults.clone(),
            key,
            episode: config.episode,
            start,
            state: config.field.physics().begin(&key)?,
            at: 0,
            arrivals: Arrivals::new(&config.faults, key, config.frames),
            held: BTreeMap::new(),
        })
    }

    /// Who is seen.
    pub fn sensor(&self) -> &Arc<Sensor> {
        &self.sensor
    }

    /// Makes the frame at `offset` the next one, if it lies ahead; what lies between is
    /// simulated when the frame is asked for, or by [`approach`](Self::approach).
    pub fn seek(&mut self, offset: u64) {
        while self.arrivals.offset() < offset && !self.ended() {
            self.arrivals.pass();
        }
        self.held.retain(|frame, _| self.arrivals.awaits(*frame));
    }

    /// Whether there is no next frame.
    pub fn ended(&self) -> bool {
        self.arrivals.next().is_none()
    }

    /// Simulates at most `frames` frames on the way to the next one; whether it is reached.
    ///
    /// # Errors
    /// When the flow blows up, naming the settings.
    pub fn approach(&mut self, frames: u64) -> Result<bool> {
        let slot = self.arrivals.slot();
        for _ in 0..frames.min(slot.saturating_sub(self.at)) {
            if self.arrivals.awaits(self.at) {
                let data = self.see()?;
                self.held.insert(self.at, data);
            }
            self.at += 1;
            let begun = self.episode.filter(|length| self.at.is_multiple_of(*length));
            match begun {
                // The marker keeps the draws of an episode apart from those of the first.
                Some(length) => {
                    let [seed, index] = self.key;
                    let key = [seed, index, u64::MAX - 1, self.at / length];
                    self.state = self.field.physics().begin(&key)?;
                }
                None => self.state.advance()?,
            }
        }
        Ok(self.at >= slot)
    }

    /// The next frame; none after the last.
    ///
    /// # Errors
    /// When the flow blows up, naming the settings.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some(arrival) = self.arrivals.next() else { return Ok(None) };
        self.approach(u64::MAX)?;
        let mut data = match self.held.remove(&arrival.frame) {
            Some(data) => data,
            None => self.see()?,
        };
        let shape @ [_, height, width] = self.sensor.grid.shape();
        if !arrival.whole {
            for field in data.chunks_mut((height * width).max(1)) {
                field[height / 2 * width..].fill(f32::NAN);
            }
        }
        let (offset, sensor) = (self.arrivals.offset(), &self.sensor);
        self.arrivals.pass();
        let valid_time = sensor.cadence.after(self.start, arrival.frame as i64);
        Ok(Some(Frame::new(sensor.id.clone(), valid_time, offset, shape, data)))
    }

    /// The frame that the simulation is at, as the sensor sees it.
    fn see(&mut self) -> Result<Vec<f32>> {
        let mut data = self.state.render()?;
        let signed = self.field.physics().signed();
        self.faults.spoil(&mut data, &self.sensor.grid, signed, self.key, self.at);
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Fire, FitzHughNagumo, GrayScott, NavierStokes, Rain, ShallowWater};

    /// One of each kind, small.
    fn every() -> Vec<SyntheticSource> {
        let small = |field: Field| match field {
            Field::NavierStokes(f) => {
                Field::NavierStokes(NavierStokes { size: 16, warm_up: 0.7, ..f })
            }
            Field::Rain(f) => Field::Rain(Rain { height: 24, width: 40, ..f }),
            Field::FitzHughNagumo(f) => Field::FitzHughNagumo(FitzHughNagumo { size: 16, ..f }),
            Field::ShallowWater(f) => {
                Field::ShallowWater(ShallowWater { size: 24, interval: 0.03, ..f })
            }
            Field::GrayScott(f) => Field::GrayScott(GrayScott { size: 24, warm_up: 30.0, ..f }),
            Field::Fire(f) => Field::Fire(Fire { size: 24, ..f }),
        };
        let source = |field| SyntheticSource {
            sensors: 2,
            frames: Some(30),
            ..SyntheticSource::new(small(field))
        };
        Field::all().map(source).into()
    }

    fn record(config: &SyntheticSource, index: usize, from: u64) -> Vec<Frame> {
        let mut recording = Recording::new(config, index).unwrap();
        recording.seek(from);
        std::iter::from_fn(|| recording.next_frame().unwrap()).collect()
    }

    #[test]
    fn a_recording_is_its_seed_and_index() {
        for config in every() {
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
    fn faulty_frames_are_those_of_the_sensor_in_another_order() {
        for clean in every() {
            let noise = clean.field.grid().variables[0].name.clone();
            let pixels = Faults {
                noise: [(noise, 0.1)].into(),
                dropouts: 0.2,
                stripes: 0.2,
                ..Faults::default()
            };
            let spoilt = SyntheticSource { faults: pixels.clone(), ..clean.clone() };
            let order = Faults { late: 0.2, duplicate: 0.2, corrected: 0.2, delay: 3, ..pixels };
            let config = SyntheticSource { faults: order, ..clean };
            // By bits, for what is missing is no number and equals nothing.
            let bits = |frame: &Frame| frame.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let seen = record(&spoilt, 1, 0);
            let came = record(&config, 1, 0);
            assert!(came.len() > 30);
            for (offset, frame) in came.iter().enumerate() {
                assert_eq!(frame.offset, offset as u64);
                // The last coming of a frame is the frame.
                if came[offset + 1..].iter().all(|other| other.valid_time != frame.valid_time) {
                    let whole = seen.iter().find(|f| f.valid_time == frame.valid_time).unwrap();
                    assert!(bits(whole) == bits(frame), "{offset}");
                }
            }
            for from in [1, 5, 6, 7, 8, 9, 23, came.len() as u64, 100] {
                let rest = record(&config, 1, from);
                let expected = &came[came.len().min(from as usize)..];
                assert_eq!(rest.len(), expected.len(), "from {from}");
                for (rest, expected) in rest.iter().zip(expected) {
                    assert_eq!(
                        (rest.offset, rest.valid_time),
                        (expected.offset, expected.valid_time)
                    );
                    assert!(bits(rest) == bits(expected), "from {from}");
                }
            }
        }
    }

    #[test]
    fn an_episode_begins_anew_and_time_goes_on() {
        for endless in every() {
            let config = SyntheticSource { episode: Some(10), ..endless.clone() };
            let frames = record(&config, 0, 0);
            assert_eq!(frames[..10], record(&endless, 0, 0)[..10]);
            assert_eq!(frames.len(), 30);
            // Another draw each time.
            assert_ne!(frames[10].data, frames[0].data);
            assert_ne!(frames[20].data, frames[10].data);
            assert_eq!(frames[20].valid_time - frames[0].valid_time, 20 * 300_000_000_000);
            assert_eq!(record(&config, 0, 13), frames[13..]);
        }
    }

    #[test]
    fn recordings_go_to_threads() {
        fn sent<T: Send>(_: &T) {}
        sent(&Recording::new(&every()[0], 0).unwrap());
    }
}
