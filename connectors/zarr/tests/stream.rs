use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use physicnet_stream::{Failure, Frame, Pace, Resume, SensorId, Stop};
use serde_json::Map;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::vec::Map as _;
use timely::dataflow::operators::{Exchange as _, Inspect, Probe};

use super::{catalogue, forecast, frame, grid};
use crate::zarr::{Archive, ArchiveWriter, ZarrSink, ZarrSource, progress, sink, source};

fn archive(path: &Path, frames: u64) {
    let grid = grid(2, 3);
    let mut writer = ArchiveWriter::create(path, &grid, Some(3), Map::new()).unwrap();
    for sample in 0..3 {
        for at in 0..frames {
            writer.append(sample, &frame("", &grid, at)).unwrap();
        }
    }
    writer.finish().unwrap();
}

fn pace(durable: &ProbeHandle<u64>, stop: &Stop, failure: &Failure) -> Pace {
    Pace { durable: durable.clone(), in_flight: 2, stop: stop.clone(), failure: failure.clone() }
}

/// In place of the offset of a frame that could not be decoded.
const EMPTY: u64 = u64::MAX;

/// What each sensor's frames were, by offset, in the order in which they came.
fn stream(
    config: ZarrSource,
    workers: usize,
    resume: Resume,
    stop_after: Option<usize>,
) -> BTreeMap<SensorId, Vec<u64>> {
    let seen = Arc::new(Mutex::new(BTreeMap::<SensorId, Vec<u64>>::new()));
    let log = Arc::clone(&seen);
    let (stop, failure) = (Stop::default(), Failure::default());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let archive = Arc::new(Archive::open(&config).unwrap());
        let durable = ProbeHandle::new();
        let (log, halt) = (Arc::clone(&log), stop.clone());
        worker.dataflow(|scope| {
            source(scope, &[archive], &resume, pace(&durable, &stop, &failure))
                .exchange(|frame: &Frame| frame.offset)
                .inspect(move |frame| {
                    let mut log = log.lock().unwrap();
                    let seen = if frame.shape == [0; 3] { EMPTY } else { frame.offset };
                    log.entry(frame.sensor.clone()).or_default().push(seen);
                    if stop_after.is_some_and(|n| log.values().flatten().count() >= n) {
                        halt.stop();
                    }
                })
                .map(|_| ())
                .probe_with(&durable);
        });
        worker.step_while(|| !durable.done());
    });
    drop(guards.unwrap());
    std::mem::take(&mut *seen.lock().unwrap())
}

#[test]
fn every_frame_once_for_any_workers_from_any_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 40);
    for workers in [1, 2, 3] {
        let next = BTreeMap::from([("s/0001".into(), 35)]);
        let resume = Resume { next, ..Resume::default() };
        let mut seen = stream(ZarrSource::new(&path), workers, resume, None);
        seen.values_mut().for_each(|offsets| offsets.sort_unstable());
        let expected = [("s/0000", 0), ("s/0001", 35), ("s/0002", 0)]
            .map(|(sensor, from)| (sensor.into(), (from..40).collect()));
        assert_eq!(seen, BTreeMap::from(expected), "{workers} workers");
    }
}

#[test]
fn a_store_that_grows_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 3);
    let mut config = ZarrSource::new(&path);
    config.follow = true;
    config.poll = "5ms".into();
    let (began, begun) = mpsc::channel();
    let grow = std::thread::spawn({
        let path = path.clone();
        move || {
            begun.recv().unwrap();
            let grown = path.with_file_name("grown.zarr");
            archive(&grown, 21);
            // The data first, what makes them visible last.
            let copy = |from: &Path, to: &Path| std::fs::rename(from, to).unwrap();
            for name in ["rain", "t2m", "time"] {
                std::fs::remove_dir_all(path.join(name)).unwrap();
                copy(&grown.join(name), &path.join(name));
            }
            copy(&grown.join("zarr.json"), &path.join("zarr.json"));
        }
    });
    let open = Archive::open(&config).unwrap();
    assert_eq!(open.times(0).len(), 3);
    // In the beginning nothing but what is there: then the store grows.
    let first = stream(ZarrSource::new(&path), 1, Resume::default(), None);
    assert_eq!(first.values().flatten().count(), 9);
    began.send(()).unwrap();
    let seen = stream(config, 2, Resume::default(), Some(63));
    grow.join().unwrap();
    assert!(seen.values().all(|offsets| offsets.len() == 21), "{seen:?}");
}

#[test]
fn forecasts_are_durable_when_the_frontier_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 12);
    let sensors = ["s/0000", "s/0001", "s/0002"];
    let mut config = ZarrSink::new(folder.path().join("out/{sensor}.zarr").to_str().unwrap());
    config.fsync = false;
    let known = catalogue(&sensors, &grid(2, 3));
    let (to, names) = (config.clone(), known.clone());
    let failure = Failure::default();
    let report = failure.clone();
    let run = timely::execute(timely::Config::process(2), move |worker| {
        let archive = Arc::new(Archive::open(&ZarrSource::new(&path)).unwrap());
        let durable = ProbeHandle::new();
        let pace = pace(&durable, &Stop::default(), &report);
        worker.dataflow(|scope| {
            let forecasts = source(scope, &[archive], &Resume::default(), pace)
                .map(|frame| forecast(frame.sensor.as_str(), &grid(2, 3), frame.offset));
            sink(forecasts, &to, &names, report.clone()).unwrap().probe_with(&durable);
        });
        worker.step_while(|| !durable.done());
        let done = progress(&to, &names).unwrap();
        assert!(done.values().all(|progress| progress.next == 12), "{done:?}");
    });
    run.unwrap().join().into_iter().for_each(|worker| worker.unwrap());
    assert!(!failure.failed());
}

/// A chunk that the system does not hand out: a link to itself stands where the file was, whose place
/// the file takes in one move.
fn withhold(path: &Path) {
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
}

#[test]
fn a_frame_that_cannot_be_read_is_no_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 40);
    withhold(&path.join("rain/c/1/1/0/0"));
    let frames = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&frames);
    let failure = timely::execute_directly(move |worker| {
        let archive = Arc::new(Archive::open(&ZarrSource::new(&path)).unwrap());
        let (durable, failure) = (ProbeHandle::new(), Failure::default());
        worker.dataflow(|scope| {
            let pace = pace(&durable, &Stop::default(), &failure);
            source(scope, &[archive], &Resume::default(), pace)
                .inspect(move |frame| log.lock().unwrap().push((frame.offset, frame.shape)))
                .map(|_| ())
                .probe_with(&durable);
        });
        worker.step_while(|| !durable.done() && !failure.failed());
        assert!(!durable.done());
        worker.installed_dataflows().into_iter().for_each(|index| worker.drop_dataflow(index));
        failure.take().unwrap().to_string()
    });
    assert!(failure.contains("s.zarr/rain") && failure.contains("chunk"), "{failure}");
    let frames = frames.lock().unwrap();
    // The others are no further than an epoch.
    assert!(
        frames.iter().all(|(offset, shape)| *offset <= 16 && *shape == [2, 2, 3]),
        "{frames:?}"
    );
}

#[test]
fn a_followed_store_is_asked_again_for_what_it_did_not_hand_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 40);
    let chunk = path.join("rain/c/1/1/0/0");
    let bytes = std::fs::read(&chunk).unwrap();
    withhold(&chunk);
    let config = ZarrSource { follow: true, poll: "5ms".into(), ..ZarrSource::new(&path) };
    let mend = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let beside = chunk.with_extension("part");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, chunk).unwrap();
    });
    let seen = stream(config, 1, Resume::default(), Some(120));
    mend.join().unwrap();
    let whole: Vec<u64> = (0..40).collect();
    assert!(seen.values().all(|offsets| *offsets == whole), "{seen:?}");
}

/// xarray without consolidated metadata lets `time` grow first and fills it later.
#[test]
fn a_time_that_nobody_has_written_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 20);
    let rewrite = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = path.join(name);
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    };
    rewrite("zarr.json", &|root| _ = root.as_object_mut().unwrap().remove("consolidated_metadata"));
    // Chunks of one time each, of which the last two are not there; zero is what such a one reads.
    rewrite("time/zarr.json", &|time| {
        time["chunk_grid"]["configuration"]["chunk_shape"] = serde_json::json!([1]);
        time["fill_value"] = serde_json::json!(0);
        time["codecs"] =
            serde_json::json!([{"name": "bytes", "configuration": {"endian": "little"}}]);
    });
    let write = |at: i64| {
        let seconds = (1_000_000 + 300 * at).to_le_bytes();
        std::fs::write(path.join(format!("time/c/{at}")), seconds).unwrap();
    };
    (0..18).for_each(write);
    let still = Archive::open(&ZarrSource::new(&path)).unwrap();
    assert_eq!(still.times(0)[17..], [(1_000_000 + 300 * 17) * 1_000_000_000, 0, 0]);
    let config = ZarrSource { follow: true, poll: "5ms".into(), ..ZarrSource::new(&path) };
    let open = Archive::open(&config).unwrap();
    assert_eq!(open.times(0).len(), 18);
    write(18);
    assert_eq!(open.reopen().unwrap().unwrap().times(0).len(), 19);
}

#[test]
fn a_frame_that_cannot_be_decoded_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    archive(&path, 40);
    std::fs::write(path.join("rain/c/1/1/0/0"), b"not blosc").unwrap();
    let open = Archive::open(&ZarrSource::new(&path)).unwrap();
    let error = open.read(1, 20).err().unwrap().to_string();
    assert!(error.contains("rain") && error.contains("chunk"), "{error}");
    let missed = open.read_or_miss(1, 20).unwrap();
    assert!(missed.data.iter().all(|value| value.is_nan()));
    assert_eq!((missed.valid_time, missed.offset), (open.times(1)[20], 20));
    let bits = |frame: Frame| -> Vec<u32> { frame.data.iter().map(|v| v.to_bits()).collect() };
    assert_eq!(bits(open.read_or_miss(0, 20).unwrap()), bits(open.read(0, 20).unwrap()));
    let seen = stream(ZarrSource::new(&path), 1, Resume::default(), None);
    assert!(seen.values().all(|offsets| offsets.len() == 40));
    let empty = |sensor: &str| seen[&sensor.into()].iter().filter(|seen| **seen == EMPTY).count();
    assert_eq!(["s/0000", "s/0001", "s/0002"].map(empty), [0, 16, 0]);
}
