//! The same promises where the store is objects, against a real server (see scripts/s3).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use physicnet_stream::{Error, Forecast, Grid, Result};
use serde_json::{Map, Value, json};

use super::{catalogue, forecast, frame, grid};
use crate::zarr::commit::ForecastStore;
use crate::zarr::place::{self, Place, Writing};
use crate::zarr::progress::{Progress, read_root};
use crate::zarr::{Archive, ArchiveWriter, ZarrSource};

/// A place in the bucket that no other test has; nothing without a server, except in continuous
/// integration.
pub(super) fn bucket(name: &str) -> Option<PathBuf> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let Ok(bucket) = std::env::var("PHYSICNET_S3") else {
        let why = "no S3 server: eval \"$(scripts/s3 start)\"";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped: {why}");
        return None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Some(format!("{bucket}/unit/{now}-{count}/{name}").into())
}

/// Every object below `path` and its bytes, without the name of the writer in the root.
pub(super) fn objects(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut all, mut folders) = (BTreeMap::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        let (here, within) = match &*folder {
            "" => (path.to_path_buf(), String::new()),
            folder => (path.join(folder), format!("{folder}/")),
        };
        let open = place::open(&here).unwrap();
        let listed = open.list().unwrap();
        for name in listed.files {
            let mut bytes = open.get(&name).unwrap().unwrap();
            if folder.is_empty() && name == "zarr.json" {
                let mut root: Value = serde_json::from_slice(&bytes).unwrap();
                if let Some(ours) = root["attributes"]["physicnet"].as_object_mut() {
                    ours.remove("writer");
                }
                bytes = root.to_string().into_bytes();
            }
            all.insert(format!("{within}{name}"), bytes);
        }
        folders.extend(listed.folders.into_iter().map(|name| format!("{within}{name}")));
    }
    all
}

/// Copies a folder, file by file.
fn upload(from: &Path, to: &Path) {
    let mut files = place::create(to).unwrap();
    let mut folders = vec![from.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let key = entry.strip_prefix(from).unwrap().to_str().unwrap();
                files.put(key, &std::fs::read(&entry).unwrap()).unwrap();
            }
        }
    }
    files.flush().unwrap();
}

/// Removes all that lies at `path`.
fn remove(path: &Path) {
    place::create(path).unwrap().remove("").unwrap();
}

pub(super) fn bits(archive: &Archive) -> Vec<Vec<u32>> {
    let frames = |sensor: usize| {
        (0..archive.times(sensor).len()).map(move |at| {
            let frame = archive.read(sensor, at).unwrap();
            frame.data.iter().map(|value| value.to_bits()).collect()
        })
    };
    (0..archive.sensors().len()).flat_map(frames).collect()
}

#[test]
fn an_archive_is_the_same_in_a_bucket() {
    let Some(url) = bucket("radar.zarr") else { return };
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("radar.zarr");
    let grid = grid(5, 7);
    for path in [&local, &url] {
        let mut writer = ArchiveWriter::create(path, &grid, Some(2), Map::new()).unwrap();
        for sample in 0..2 {
            for at in 0..200 {
                let data = frame("", &grid, at + 100 * sample).data;
                let frame = physicnet_stream::Frame { data, ..frame("", &grid, at) };
                writer.append(sample as usize, &frame).unwrap();
            }
        }
        writer.finish().unwrap();
    }
    let (here, there) = (ZarrSource::new(&local), ZarrSource::new(&url));
    let (here, there) = (Archive::open(&here).unwrap(), Archive::open(&there).unwrap());
    assert_eq!(here.sensors(), there.sensors());
    assert_eq!(here.times(0), there.times(0));
    assert_eq!(bits(&here), bits(&there));
    // At random as well, whatever was read ahead.
    for at in [3, 180, 17, 181, 40] {
        let [a, b] = [&here, &there].map(|archive| archive.read(1, at).unwrap().data);
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "frame {at}");
    }
    assert!(there.reopen().unwrap().is_none(), "it has not changed");
    let again = ArchiveWriter::create(&url, &grid, None, Map::new()).err().unwrap().to_string();
    assert!(again.contains("exists already"), "{again}");
    remove(&url);
    assert!(objects(&url).is_empty());
    let gone = Archive::open(&ZarrSource::new(&url)).err().unwrap().to_string();
    assert!(gone.starts_with(url.to_str().unwrap()) && gone.contains("is not there"), "{gone}");
}

#[test]
fn a_data_set_in_a_bucket_is_its_writers_own() {
    let Some(url) = bucket("radar.zarr") else { return };
    let grid = grid(2, 3);
    let create = || ArchiveWriter::create(&url, &grid, None, Map::new());
    let mut first = create().unwrap();
    let error = create().err().unwrap().to_string();
    assert!(error.contains("is being written by process"), "{error}");
    (0..40).for_each(|at| first.append(0, &frame("", &grid, at)).unwrap());
    first.finish().unwrap();
    assert_eq!(Archive::open(&ZarrSource::new(&url)).unwrap().times(0).len(), 40);
    let error = create().err().unwrap().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(Archive::open(&ZarrSource::new(&url)).unwrap().times(0).len(), 40);
    remove(&url);
    let mut unfinished = create().unwrap();
    (0..40).for_each(|at| unfinished.append(0, &frame("", &grid, at)).unwrap());
    drop(unfinished);
    assert!(objects(&url).is_empty() && read(&lease(&url)).is_none());
}

#[test]
fn what_xarray_writes_is_read_from_a_bucket() {
    let Some(url) = bucket("xarray") else { return };
    let folder = tempfile::tempdir().unwrap();
    let stores = folder.path().join("stores");
    let Some(write) = super::xarray::python(&["zarr_stores.py", "write", stores.to_str().unwrap()])
    else {
        return;
    };
    super::xarray::succeeds(write);
    // Versions, shards, several chunks to a frame, without consolidated metadata, with holes.
    for name in [
        "v2-default",
        "v3-default",
        "v3-sharded",
        "v3-sharded-blosc",
        "v2-plain",
        "v3-plain",
        "v3-packed-hole",
        "appended",
        "v3-samples",
    ] {
        let (local, url) = (stores.join(format!("{name}.zarr")), url.join(name));
        upload(&local, &url);
        let open = |path: &Path| {
            let sensor = Some("s".into());
            Archive::open(&ZarrSource { sensor, ..ZarrSource::new(path) }).unwrap()
        };
        let (here, there) = (open(&local), open(&url));
        assert_eq!(here.sensors(), there.sensors(), "{name}");
        assert_eq!(here.times(0), there.times(0), "{name}");
        assert_eq!(bits(&here), bits(&there), "{name}");
    }
}

pub(super) fn small() -> Grid {
    let mut grid = grid(2, 3);
    grid.variables.truncate(1);
    grid
}

/// A store whose writer dies after `fuse` operations; what was put may be on its way still.
struct Fused {
    inner: Box<dyn Writing>,
    fuse: Option<usize>,
}

impl Fused {
    fn burn(&mut self) -> Result<()> {
        match &mut self.fuse {
            Some(0) => Err(Error::new("fuse", "blown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Writing for Fused {
    fn place(&self) -> &dyn Place {
        self.inner.place()
    }

    fn token(&self) -> Option<String> {
        self.inner.token()
    }

    fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        self.burn()?;
        self.inner.put(key, bytes)
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        self.burn()?;
        self.inner.restore(key, bytes)
    }

    fn exist(&self, keys: &[String]) -> Result<Vec<bool>> {
        self.inner.exist(keys)
    }

    fn remove(&mut self, key: &str) -> Result<()> {
        self.burn()?;
        self.inner.remove(key)
    }

    fn flush(&mut self) -> Result<()> {
        self.burn()?;
        self.inner.flush()
    }

    fn publish(&mut self, bytes: &[u8]) -> Result<()> {
        self.burn()?;
        self.inner.publish(bytes)
    }
}

/// Writes `count` forecasts in commits of `batch`, so long apart.
pub(super) fn write_all(path: &Path, count: u64, batch: usize, apart: Duration) -> Result<()> {
    let grid = small();
    let forecasts: Vec<Forecast> = (0..count).map(|at| forecast("a", &grid, at)).collect();
    let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
    let files = place::hold(path, true)?;
    let mut store = ForecastStore::open(path, files, &sensor, &forecasts[0], &[], false)?;
    forecasts.chunks(batch).try_for_each(|batch| {
        std::thread::sleep(apart);
        store.commit(batch)
    })
}

/// Writes `count` forecasts in commits of `batch`, until done or `fuse` operations have been.
fn run(path: &Path, count: u64, batch: usize, fuse: Option<usize>) -> Result<()> {
    let grid = small();
    let forecasts: Vec<Forecast> = (0..count).map(|at| forecast("a", &grid, at)).collect();
    let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
    let files = Box::new(Fused { inner: place::hold(path, true)?, fuse });
    let mut store = ForecastStore::open(path, files, &sensor, &forecasts[0], &[], false)?;
    forecasts.chunks(batch).try_for_each(|batch| store.commit(batch))
}

#[test]
fn killed_at_any_operation_it_ends_as_the_same_objects() {
    const COUNT: u64 = 6;
    let Some(url) = bucket("") else { return };
    let whole = |count: u64| {
        let path = url.join(format!("whole-{count}.zarr"));
        run(&path, count, 1, None).unwrap();
        objects(&path)
    };
    let whole: Vec<_> = (1..=COUNT).map(whole).collect();
    let mut kills = 0;
    for fuse in 0.. {
        let path = url.join(format!("killed-{fuse}.zarr"));
        let died = run(&path, COUNT, 3, Some(fuse)).is_err();
        // It may be killed again while it mends.
        kills += usize::from(run(&path, COUNT, 2, Some(fuse % 5)).is_err());
        let root = read_root(&*place::open(&path).unwrap()).unwrap();
        if let Some(committed) = root.as_ref().and_then(Progress::of) {
            run(&path, committed.next, 2, None).unwrap();
            let expected = &whole[committed.next as usize - 1];
            assert!(objects(&path) == *expected, "mended after {fuse} operations");
        }
        run(&path, COUNT, 2, None).unwrap();
        assert!(objects(&path) == whole[COUNT as usize - 1], "killed after {fuse} operations");
        kills += usize::from(died);
        if !died {
            break;
        }
    }
    assert!(kills > 50, "{kills}");
}

/// A store at `path` and its first commit.
fn begin(path: &Path) -> Result<ForecastStore> {
    let grid = small();
    let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
    let first = forecast("a", &grid, 0);
    let mut store =
        ForecastStore::open(path, place::hold(path, true)?, &sensor, &first, &[], false)?;
    store.commit(&[first])?;
    Ok(store)
}

/// The lease of the store at `path`.
fn lease(path: &Path) -> PathBuf {
    format!("{}.lease", path.display()).into()
}

fn read(path: &Path) -> Option<Value> {
    let bytes = place::open(path).unwrap().get("").unwrap();
    bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

fn write(path: &Path, value: &Value) {
    let mut files = place::create(path).unwrap();
    files.put("", value.to_string().as_bytes()).unwrap();
    files.flush().unwrap();
}

#[test]
fn a_bucket_has_one_writer() {
    let Some(url) = bucket("a.zarr") else { return };
    let first = begin(&url).unwrap();
    let error = begin(&url).err().unwrap().to_string();
    let holder = format!("is being written by process {} on ", std::process::id());
    assert!(error.starts_with(url.to_str().unwrap()) && error.contains(&holder), "{error}");
    // Long after, its holder still lives.
    let beat = |value: &Value| value["beat"].as_u64().unwrap();
    let before = beat(&read(&lease(&url)).unwrap());
    std::thread::sleep(Duration::from_millis(600));
    assert!(beat(&read(&lease(&url)).unwrap()) > before);
    drop(first);
    assert!(read(&lease(&url)).is_none(), "given back");
    drop(begin(&url).unwrap());
}

#[test]
fn a_lease_is_free_when_its_holder_is_gone() {
    let Some(url) = bucket("a.zarr") else { return };
    let own = {
        let _held = begin(&url).unwrap();
        read(&lease(&url)).unwrap()
    };
    // A process of this machine that has ended: the system says so at once.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let id = child.id();
    child.wait().unwrap();
    let mut other = own.clone();
    (other["token"], other["process"]["id"]) = (json!("other"), json!(id));
    write(&lease(&url), &other);
    let begun = Instant::now();
    drop(begin(&url).unwrap());
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    // One of another machine: it is watched, and is silent.
    other["process"]["machine"] = json!("another");
    write(&lease(&url), &other);
    let begun = Instant::now();
    drop(begin(&url).unwrap());
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    // One of another machine that lives is not silent.
    other["holder"] = json!("process 7 on elsewhere");
    write(&lease(&url), &other);
    let alive = Arc::new(AtomicUsize::new(1));
    let beating = std::thread::spawn({
        let (alive, url) = (Arc::clone(&alive), url.clone());
        move || {
            while alive.fetch_add(1, Ordering::Relaxed) < 20 {
                other["beat"] = json!(alive.load(Ordering::Relaxed));
                write(&lease(&url), &other);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let error = begin(&url).err().unwrap().to_string();
    assert!(error.contains("is being written by process 7 on elsewhere"), "{error}");
    beating.join().unwrap();
}

#[test]
fn who_has_lost_the_lease_commits_nothing() {
    let Some(url) = bucket("a.zarr") else { return };
    let mut first = begin(&url).unwrap();
    // Taken away, as from a process that slept for too long.
    remove(&lease(&url));
    let mut second = begin(&url).unwrap();
    let before = objects(&url);
    std::thread::sleep(Duration::from_millis(600));
    let error = first.commit(&[forecast("a", &small(), 1)]).unwrap_err().to_string();
    assert!(error.contains(".lease") && error.contains("was lost to process"), "{error}");
    assert!(objects(&url) == before);
    second.commit(&[forecast("a", &small(), 1)]).unwrap();
}

#[test]
fn a_writer_changes_the_root_that_the_one_before_goes_on_from() {
    let Some(url) = bucket("a.zarr") else { return };
    let root = || place::open(&url).unwrap().get("zarr.json").unwrap().unwrap();
    drop(begin(&url).unwrap());
    let roots = [(); 3].map(|()| {
        // What it commits is there already.
        drop(begin(&url).unwrap());
        root()
    });
    assert!(roots[0] != roots[1] && roots[1] != roots[2] && roots[0] != roots[2]);
    let archive =
        Archive::open(&ZarrSource { cadence: Some("5min".into()), ..ZarrSource::new(&url) });
    assert_eq!(archive.unwrap().times(0).len(), 1);
}

#[test]
fn a_root_that_another_has_changed_stays() {
    let Some(url) = bucket("a.zarr") else { return };
    let mut first = begin(&url).unwrap();
    let mut root = place::open(&url).unwrap().get("zarr.json").unwrap().unwrap();
    root.push(b'\n');
    let mut other = place::create(&url).unwrap();
    other.put("zarr.json", &root).unwrap();
    other.flush().unwrap();
    let error = first.commit(&[forecast("a", &small(), 1)]).unwrap_err().to_string();
    assert!(error.contains("zarr.json: another writer has changed it"), "{error}");
    assert_eq!(place::open(&url).unwrap().get("zarr.json").unwrap().unwrap(), root);
    // Opened anew it goes on from there.
    drop(first);
    drop(begin(&url).unwrap());
}
