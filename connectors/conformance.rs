//! What every source must do, whatever is behind it: one suite, run over each kind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use physicnet_stream::{Failure, Frame, Pace, Result, Resume, Sensor, SensorId, Stop};
use serde_json::Map;
use timely::dataflow::ProbeHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::Operator;

use crate::synthetic::{Faults, Field, NavierStokes, Rain, Recording, SyntheticSource};
use crate::zarr::{ArchiveWriter, ZarrSource};
use crate::{Feed, Next, Reader, Source, SourceConfig};

/// Frames by sensor, in the order in which they came.
type Seen = BTreeMap<SensorId, Vec<Frame>>;

/// How a source is run.
#[derive(Clone)]
struct Run {
    workers: usize,
    in_flight: u64,
    resume: BTreeMap<Arc<str>, u64>,
    /// When so many frames have come, the source is asked to stop.
    stop_after: Option<u64>,
    /// So long nothing that came is let go, as if a sink were stuck.
    stuck: Duration,
}

const PLAIN: Run = Run {
    workers: 1,
    in_flight: 3,
    resume: BTreeMap::new(),
    stop_after: None,
    stuck: Duration::ZERO,
};

fn run(source: &Source, how: &Run) -> Seen {
    let log = Arc::new((Mutex::new(Seen::new()), AtomicU64::new(0), AtomicBool::new(false)));
    let (stop, failure) = (Stop::default(), Failure::default());
    let guards = timely::execute(timely::Config::process(how.workers), {
        let (source, how, log) = (source.clone(), how.clone(), Arc::clone(&log));
        let failure = failure.clone();
        move |worker| {
            let durable = ProbeHandle::new();
            let pace = Pace {
                durable: durable.clone(),
                in_flight: how.in_flight,
                stop: stop.clone(),
                failure: failure.clone(),
            };
            let (how, log, stop) = (how.clone(), Arc::clone(&log), stop.clone());
            let began = Instant::now();
            worker.dataflow(|scope| {
                let resume = Resume { next: how.resume.clone(), ..Resume::default() };
                let frames = source.open(scope, &resume, pace);
                let held = frames
                    .unary::<timely::container::CapacityContainerBuilder<Vec<()>>, _, _, _>(
                        Pipeline,
                        "Hold",
                        move |_default, info| {
                            let activator = scope.activator_for(info.address);
                            let mut held = Vec::new();
                            move |input, output| {
                                let (seen, count, freed) = &*log;
                                input.for_each_stamp(|cap, batches| {
                                    let Some(cap) = cap.retain_least(output.output_index()) else {
                                        return;
                                    };
                                    let free = freed.load(Ordering::SeqCst);
                                    assert!(free || *cap.time() < how.in_flight, "too far ahead");
                                    for frame in batches.flat_map(|batch| batch.drain(..)) {
                                        let mut seen = seen.lock().unwrap();
                                        seen.entry(frame.sensor.clone()).or_default().push(frame);
                                        let count = count.fetch_add(1, Ordering::SeqCst) + 1;
                                        if how.stop_after.is_some_and(|limit| count >= limit) {
                                            stop.stop();
                                        }
                                    }
                                    held.push(cap);
                                });
                                if began.elapsed() >= how.stuck {
                                    freed.store(true, Ordering::SeqCst);
                                    held.clear();
                                } else {
                                    activator.activate_after(Duration::from_millis(1));
                                }
                            }
                        },
                    );
                held.probe_with(&durable);
            });
            while !durable.done() {
                worker.step_or_park(Some(Duration::from_millis(1)));
                assert!(began.elapsed() < Duration::from_secs(60), "the source does not end");
            }
        }
    });
    guards.unwrap().join().into_iter().for_each(|worker| worker.unwrap());
    assert!(!failure.failed(), "{:?}", failure.take());
    std::mem::take(&mut *log.0.lock().unwrap())
}

/// The suite. The source must end by itself, after at least 8 frames of each sensor.
fn conforms(config: &SourceConfig) {
    source_conforms(&config.open("suite").unwrap());
}

fn source_conforms(source: &Source) {
    let sensors = source.sensors().unwrap();
    let all = run(source, &PLAIN);
    assert_eq!(all.len(), sensors.len(), "every sensor speaks");
    for sensor in &sensors {
        let frames = &all[&sensor.id];
        assert!(frames.len() >= 8);
        for (at, frame) in frames.iter().enumerate() {
            assert_eq!((frame.offset, frame.shape), (at as u64, sensor.grid.shape()));
            assert_eq!(frame.data.len(), frame.shape.iter().product::<usize>());
            let expected = sensor.cadence.after(frames[0].valid_time, at as i64);
            assert_eq!(frame.valid_time, expected, "each frame once, in order");
        }
    }

    for workers in [2, 4] {
        assert_eq!(run(source, &Run { workers, ..PLAIN }), all, "{workers} workers");
    }

    // A restart goes on at any offset, another one for each sensor, and past the end.
    for first in [1, 5, 100] {
        let from = |at: usize| if first == 100 { 100 } else { first + at as u64 % 3 };
        let resume: BTreeMap<_, _> =
            sensors.iter().enumerate().map(|(at, s)| (s.id.as_str().into(), from(at))).collect();
        let mut rest = all.clone();
        rest.iter_mut().for_each(|(id, frames)| frames.retain(|f| f.offset >= resume[id.as_str()]));
        rest.retain(|_, frames| !frames.is_empty());
        assert_eq!(run(source, &Run { workers: 2, resume, ..PLAIN }), rest, "from {first}");
    }

    // A stuck sink holds the source within `in_flight` epochs; freed, everything comes.
    let stuck = Duration::from_millis(100);
    for in_flight in [1, 2] {
        assert_eq!(run(source, &Run { stuck, in_flight, ..PLAIN }), all, "{in_flight} in flight");
    }

    // Asked to stop, it ends early, and what it has said is what it would have said.
    let stopped = run(source, &Run { stop_after: Some(2), in_flight: 1, ..PLAIN });
    let total = |seen: &Seen| seen.values().map(Vec::len).sum::<usize>();
    assert!(total(&stopped) >= 2 && total(&stopped) < total(&all), "{}", total(&stopped));
    assert!(stopped.iter().all(|(id, frames)| all[id].starts_with(frames)));
}

fn rain(frames: Option<u64>) -> SyntheticSource {
    let field = Field::Rain(Rain { height: 8, width: 12, ..Rain::default() });
    SyntheticSource { sensors: 5, frames, ..SyntheticSource::new(field) }
}

#[test]
fn simulated_sensors_conform() {
    conforms(&SourceConfig::Synthetic(rain(Some(12))));
    // So they do by the clock.
    let rate = Some(400.0);
    conforms(&SourceConfig::Synthetic(SyntheticSource { rate, ..rain(Some(9)) }));
    let field = Field::NavierStokes(NavierStokes { size: 8, ..NavierStokes::default() });
    let flow = SyntheticSource { sensors: 2, frames: Some(10), ..SyntheticSource::new(field) };
    conforms(&SourceConfig::Synthetic(flow));
}

#[test]
fn what_comes_in_no_order_comes_the_same_on_any_number_of_workers() {
    let faults = Faults { late: 0.2, duplicate: 0.2, corrected: 0.2, ..Faults::default() };
    let config = SyntheticSource { faults, ..rain(Some(30)) };
    let source = SourceConfig::Synthetic(config.clone()).open("suite").unwrap();
    // Missing pixels are no numbers and equal nothing: by bits.
    let told = |seen: Seen| -> Vec<_> {
        let bits = |frame: Frame| {
            let data = frame.data.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            (frame.sensor, frame.valid_time, frame.offset, data)
        };
        seen.into_values().flatten().map(bits).collect()
    };
    let all = told(run(&source, &PLAIN));
    // Sensors end apart, for what comes again differs from one to another.
    let last = |sensor| all.iter().filter(|(id, ..)| *id == sensor).count();
    let counts: Vec<usize> =
        config.sensors().unwrap().iter().map(|sensor| last(sensor.id.clone())).collect();
    assert!(counts.iter().all(|count| *count >= 30) && counts.iter().any(|c| *c != counts[0]));
    for workers in [2, 4] {
        assert!(told(run(&source, &Run { workers, ..PLAIN })) == all, "{workers} workers");
    }
}

#[test]
fn stores_conform() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rain.zarr");
    let config = rain(Some(40));
    let grid = config.field.grid();
    let mut writer = ArchiveWriter::create(&path, &grid, Some(5), Map::new()).unwrap();
    for sample in 0..5 {
        let mut recording = Recording::new(&config, sample).unwrap();
        while let Some(frame) = recording.next_frame().unwrap() {
            writer.append(sample, &frame).unwrap();
        }
    }
    writer.finish().unwrap();
    conforms(&SourceConfig::Zarr(ZarrSource::new(&path)));
}

/// Five simulated sensors as a program's own, which now and then have nothing to say.
struct Own(SyntheticSource);

impl Feed for Own {
    fn sensors(&self) -> Vec<Arc<Sensor>> {
        self.0.sensors().unwrap()
    }

    fn open(&self, sensor: &Sensor, from: u64) -> Result<Reader> {
        let number = self.sensors().iter().position(|known| known.id == sensor.id).unwrap();
        let mut recording = Recording::new(&self.0, number)?;
        recording.seek(from);
        let mut calls = number;
        Ok(Box::new(move || {
            calls += 1;
            if calls % 3 == 0 {
                return Ok(Next::Later);
            }
            Ok(recording.next_frame()?.map_or(Next::End, Next::Frame))
        }))
    }
}

#[test]
fn a_program_of_ones_own_conforms() {
    source_conforms(&Source::Own(Arc::new(Own(rain(Some(12))))));
}

#[test]
fn endless_sensors_stop_when_asked() {
    let source = SourceConfig::Synthetic(rain(None)).open("suite").unwrap();
    for workers in [1, 3] {
        let seen = run(&source, &Run { workers, stop_after: Some(60), ..PLAIN });
        let mut recording = Recording::new(&rain(None), 4).unwrap();
        for frame in &seen[&recording.sensor().id] {
            assert_eq!(Some(frame.clone()), recording.next_frame().unwrap());
        }
    }
}

#[test]
fn a_rate_is_kept() {
    let slow = SyntheticSource { rate: Some(50.0), ..rain(Some(11)) };
    let source = SourceConfig::Synthetic(slow).open("suite").unwrap();
    let began = Instant::now();
    run(&source, &PLAIN);
    // Ten gaps of a fiftieth of a second; a busy machine may take longer, never less.
    assert!(began.elapsed() >= Duration::from_millis(195), "{:?}", began.elapsed());
}
