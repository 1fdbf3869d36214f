use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use physicnet_stream::{Forecast, Grid, Result, Serving};
use serde_json::{Value, json};

use super::{catalogue, forecast, grid};
use crate::zarr::commit::ForecastStore;
use crate::zarr::place::{Folder, Place, Writing};
use crate::zarr::progress::{Progress, read_root};
use crate::zarr::sink::Writer;
use crate::zarr::store::Store;
use crate::zarr::{Archive, ZarrSink, ZarrSource, progress};

const COUNT: u64 = 6;

/// Every file below `path` and its bytes.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let key = entry.strip_prefix(path).unwrap().to_path_buf();
                all.insert(key, fs::read(entry).unwrap());
            }
        }
    }
    all
}

fn small() -> Grid {
    let mut grid = grid(2, 3);
    grid.variables.truncate(1);
    grid
}

/// A folder, held, that fails after `fuse` operations.
fn fused(path: &Path, fuse: Option<usize>) -> Result<Box<dyn Writing>> {
    let mut folder = Folder::held(path, false)?;
    folder.fuse = fuse;
    Ok(Box::new(folder))
}

/// Writes `count` forecasts in commits of `batch`, until done or `fuse` operations have been.
fn run(path: &Path, count: u64, batch: usize, fuse: Option<usize>) -> Result<()> {
    let grid = small();
    let forecasts: Vec<Forecast> = (0..count).map(|at| forecast("a", &grid, at)).collect();
    let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
    let products = ["persistence".to_owned()];
    let first = &forecasts[0];
    let files = fused(path, fuse)?;
    let mut store = ForecastStore::open(path, files, &sensor, first, &products, false)?;
    forecasts.chunks(batch).try_for_each(|batch| store.commit(batch))
}

/// What a reader of the store at `path` sees is whole: no forecast without its values.
fn check(path: &Path) {
    if !path.join("zarr.json").exists() {
        return;
    }
    let mut config = ZarrSource::new(path);
    config.variables = vec!["rain".into()];
    config.cadence = Some("5min".into());
    let archive = Archive::open(&config).unwrap();
    for (at, _) in archive.times(2).iter().enumerate() {
        let expected = forecast("a", &small(), at as u64).products[0].data[12..18].to_vec();
        assert_eq!(archive.read(2, at).unwrap().data, expected);
    }
}

#[test]
fn killed_at_any_operation_it_ends_as_the_same_bytes() {
    // A hundred thousand small files: in memory where there is such a place.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let whole = |count: u64| {
        let path = folder.path().join(format!("whole-{count}"));
        run(&path, count, 1, None).unwrap();
        files(&path)
    };
    let whole: Vec<_> = (1..=COUNT).map(whole).collect();
    assert!(!whole[0].contains_key(Path::new(".writing")));

    let mut kills = 0;
    for fuse in 0.. {
        let path = folder.path().join(format!("killed-{fuse}"));
        let died = run(&path, COUNT, 3, Some(fuse)).is_err();
        check(&path);
        // It may be killed again while it mends.
        kills += usize::from(run(&path, COUNT, 2, Some(fuse % 5)).is_err());
        check(&path);
        // Opened again, it is what was committed and nothing else.
        let root = read_root(&Folder::new(&path, false)).unwrap();
        if let Some(committed) = root.as_ref().and_then(Progress::of) {
            run(&path, committed.next, 2, None).unwrap();
            let expected = &whole[committed.next as usize - 1];
            assert!(files(&path) == *expected, "mended after {fuse} operations");
        }
        run(&path, COUNT, 2, None).unwrap();
        assert!(files(&path) == whole[COUNT as usize - 1], "killed after {fuse} operations");
        kills += usize::from(died);
        if !died {
            break;
        }
    }
    assert!(kills > 100, "{kills}");
}

/// A folder that fails where a key is put twice before a flush: of objects either may stay.
struct Once(Folder, BTreeSet<String>);

impl Writing for Once {
    fn place(&self) -> &dyn Place {
        &self.0
    }

    fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        assert!(self.1.insert(key.to_owned()), "{key} is put twice at once");
        self.0.put(key, bytes)
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        self.0.restore(key, bytes)
    }

    fn exist(&self, keys: &[String]) -> Result<Vec<bool>> {
        self.0.exist(keys)
    }

    fn remove(&mut self, key: &str) -> Result<()> {
        self.0.remove(key)
    }

    fn flush(&mut self) -> Result<()> {
        self.1.clear();
        self.0.flush()
    }

    fn publish(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.0.publish(bytes)
    }
}

#[test]
fn of_revisions_that_come_together_the_last_is_put() {
    let folder = tempfile::tempdir().unwrap();
    let sensor = catalogue(&["a"], &small()).get(&"a".into()).unwrap();
    let write = |name: &str, batch: usize| {
        let path = folder.path().join(name);
        let arrivals = arrivals();
        let once = Once(Folder::held(&path, false).unwrap(), BTreeSet::new());
        let mut store =
            ForecastStore::open(&path, Box::new(once), &sensor, &arrivals[0], &[], false).unwrap();
        arrivals.chunks(batch).for_each(|batch| store.commit(batch).unwrap());
        drop(store);
        files(&path)
    };
    assert!(write("together", usize::MAX) == write("one by one", 1));
}

/// A story of six arrivals: new forecasts, one that comes late, and revisions of old ones.
fn arrivals() -> Vec<Forecast> {
    let of = |at: u64, revision: u32, offset: u64| {
        let mut forecast = Forecast { revision, offset, ..forecast("a", &small(), at) };
        forecast.missing = revision as f32;
        let data = Arc::make_mut(&mut forecast.products[0].data);
        data.iter_mut().for_each(|value| *value += 100.0 * revision as f32);
        forecast
    };
    vec![of(0, 0, 0), of(1, 0, 1), of(3, 0, 2), of(2, 0, 3), of(3, 1, 3), of(4, 0, 4), of(1, 1, 5)]
}

#[test]
fn a_revision_takes_the_place_of_the_one_before_it() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let grid = small();
    let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
    let run = |path: &Path, batch: usize, fuse: Option<usize>| {
        let first = &arrivals()[0];
        let files = fused(path, fuse)?;
        let mut store = ForecastStore::open(path, files, &sensor, first, &[], false)?;
        arrivals().chunks(batch).try_for_each(|batch| store.commit(batch))
    };
    let whole = folder.path().join("whole");
    run(&whole, 1, None).unwrap();
    let store = crate::zarr::store::Store::open(&whole).unwrap();
    let chunk = |name: &str, at: &[u64]| {
        let bytes = store.array(name).unwrap().unwrap().chunk(at).unwrap().unwrap();
        bytes.as_chunks::<4>().0.to_vec()
    };
    // Chunks of coordinates have four entries here: the revision of 1 lies in the first of them.
    let revisions: Vec<_> = chunk("revision", &[0]).into_iter().map(i32::from_ne_bytes).collect();
    assert_eq!(revisions, [0, 1, 1, 0]);
    let missing: Vec<_> = chunk("missing", &[0]).into_iter().map(f32::from_ne_bytes).collect();
    assert_eq!(missing, [0.0, 1.0, 1.0, 0.0]);
    let times = store.array("time").unwrap().unwrap().times().unwrap();
    let expected = [0, 1, 3, 2, 4].map(|at| forecast("a", &grid, at).reference_time);
    assert_eq!(times, expected, "what comes late stands where it came");
    let first: Vec<_> = chunk("rain", &[1, 0, 0, 0]).into_iter().map(f32::from_ne_bytes).collect();
    assert_eq!(first[0], 101.0);

    let (whole, mut kills) = (files(&whole), 0);
    for fuse in 0.. {
        let path = folder.path().join(format!("killed-{fuse}"));
        let died = run(&path, 3, Some(fuse)).is_err();
        kills += usize::from(run(&path, 2, Some(fuse % 7)).is_err());
        run(&path, 2, None).unwrap();
        assert!(files(&path) == whole, "killed after {fuse} operations");
        kills += usize::from(died);
        if !died {
            break;
        }
    }
    assert!(kills > 50, "{kills}");
}

#[test]
fn a_store_says_who_made_its_forecasts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let config = ZarrSink::new(path.to_str().unwrap());
    let write = |grid: &Grid, at: u64, model: &str| {
        let forecast = Forecast { model: model.into(), ..forecast("a", grid, at) };
        let mut writer = Writer::new(&config, &catalogue(&["a"], grid)).unwrap();
        writer.write(vec![forecast])
    };
    let told = || {
        let root = read_root(&Folder::new(&path, false)).unwrap().unwrap();
        let arrays = &root["consolidated_metadata"]["metadata"];
        let flags = arrays["model"]["attributes"]["flag_meanings"].as_str().unwrap().to_owned();
        let store = crate::zarr::store::Store::open(&path).unwrap();
        let chunk = store.array("model").unwrap().unwrap().chunk(&[0]).unwrap().unwrap();
        let models = chunk.as_chunks::<4>().0.iter().map(|bytes| i32::from_ne_bytes(*bytes));
        let newest = root["attributes"]["model"].as_str().unwrap().to_owned();
        (flags, models.collect::<Vec<_>>(), newest)
    };
    let grid = small();
    write(&grid, 0, "one").unwrap();
    // As a store was before there was this coordinate.
    let mut root = read_root(&Folder::new(&path, false)).unwrap().unwrap();
    let arrays = root["consolidated_metadata"]["metadata"].as_object_mut().unwrap();
    arrays.remove("model");
    arrays["rain"]["attributes"]["coordinates"] = "missing revision".into();
    fs::write(path.join("zarr.json"), root.to_string()).unwrap();
    fs::remove_dir_all(path.join("model")).unwrap();

    let mut other = grid.clone();
    other.variables[0].units = "m s-1".into();
    let error = write(&other, 1, "one").unwrap_err().to_string();
    assert!(error.contains("array rain differs"), "{error}");
    write(&grid, 1, "two").unwrap();
    assert_eq!(told(), ("one two".into(), vec![0, 1, 0, 0], "two".into()));
    write(&grid, 2, "one").unwrap();
    assert_eq!(told(), ("one two".into(), vec![0, 1, 0, 0], "one".into()));
}

#[test]
fn progress_is_where_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(2, 3);
    let catalogue = catalogue(&["a/1", "a/2"], &grid);
    let config = ZarrSink::new(folder.path().join("{sensor}.zarr").to_str().unwrap());
    let mut writer = Writer::new(&config, &catalogue).unwrap();
    let forecasts = (0..5).map(|at| forecast("a/2", &grid, at)).collect();
    writer.write(forecasts).unwrap();
    let known = progress(&config, &catalogue).unwrap();
    let (sensor, known) = known.into_iter().next().unwrap();
    assert_eq!((sensor.as_str(), known.next, known.replay_from), ("a/2", 5, 1));
    assert_eq!(known.written_until, forecast("", &grid, 4).reference_time);
    assert!(folder.path().join("a_2.zarr/rain/c/4/0/0/0").exists());
}

#[test]
fn refuses_what_is_not_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(2, 3);
    let catalogue = catalogue(&["a"], &grid);
    let path = folder.path().join("a");
    let mut config = ZarrSink::new(path.to_str().unwrap());
    let write = |config: &ZarrSink, forecast: Forecast| {
        Writer::new(config, &catalogue).and_then(|mut writer| writer.write(vec![forecast]))
    };
    write(&config, forecast("a", &grid, 0)).unwrap();
    config.products = vec!["persistence".into()];
    let error = write(&config, forecast("a", &grid, 1)).unwrap_err().to_string();
    assert!(error.contains("choose another path"), "{error}");
    config.products = vec!["sharp".into()];
    config.path = folder.path().join("b").to_str().unwrap().into();
    let error = write(&config, forecast("a", &grid, 1)).unwrap_err().to_string();
    assert!(error.contains("makes no sharp"), "{error}");
    fs::create_dir(folder.path().join("c")).unwrap();
    fs::write(folder.path().join("c/letter.txt"), "mine").unwrap();
    config = ZarrSink::new(folder.path().join("c").to_str().unwrap());
    let error = write(&config, forecast("a", &grid, 1)).unwrap_err().to_string();
    assert!(error.contains("letter.txt"), "{error}");
}

#[test]
fn a_store_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let grid = small();
    let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
    let open = || {
        let first = forecast("a", &grid, 0);
        let files = fused(folder.path(), None)?;
        ForecastStore::open(folder.path(), files, &sensor, &first, &[], false)
    };
    let first = open().unwrap();
    // What the first is writing just now.
    let half = folder.path().join(".writing");
    fs::write(&half, "half").unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("another job") && half.exists(), "{error}");
    drop(first);
    open().unwrap();
}

/// Makes a store one from before there was a coordinate for what is served.
fn age(path: &Path) {
    fs::remove_dir_all(path.join("serving")).unwrap();
    let edit = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut text: Value = serde_json::from_slice(&fs::read(path.join(name)).unwrap()).unwrap();
        change(&mut text);
        fs::write(path.join(name), text.to_string()).unwrap();
    };
    let older = |array: &mut Value| {
        array["attributes"]["coordinates"] = json!("missing model revision");
    };
    for name in ["rain", "rain_persistence"] {
        edit(&format!("{name}/zarr.json"), &older);
    }
    edit("zarr.json", &|root| {
        let arrays = root["consolidated_metadata"]["metadata"].as_object_mut().unwrap();
        arrays.remove("serving").unwrap();
        for name in ["rain", "rain_persistence"] {
            older(&mut arrays[name]);
        }
    });
}

#[test]
fn an_older_store_goes_on_and_says_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (path, grid) = (folder.path(), small());
    // Chunks of coordinates have four entries here.
    run(path, 6, 2, None).unwrap();
    age(path);
    let open = |leads: usize| {
        let mut first = forecast("a", &grid, 0);
        first.shape[0] = leads;
        let sensor = catalogue(&["a"], &grid).get(&"a".into()).unwrap();
        let files = fused(path, None)?;
        ForecastStore::open(path, files, &sensor, &first, &["persistence".into()], false)
    };
    let error = open(2).err().unwrap().to_string();
    assert!(error.contains("another grid, horizon"), "{error}");
    let mut store = open(3).unwrap();
    let served = Some(Serving::Advection);
    store.commit(&[Forecast { serving: served, ..forecast("a", &grid, 6) }]).unwrap();
    drop(store);
    check(path);
    let chunk = |at: u64| {
        let array = Store::open(path).unwrap().array("serving").unwrap().unwrap();
        array.chunk(&[at]).unwrap()
    };
    let flags = |of: [i32; 4]| of.iter().flat_map(|flag| flag.to_ne_bytes()).collect::<Vec<u8>>();
    assert_eq!(chunk(0), None, "the fill value says it");
    assert_eq!(chunk(1), Some(flags([0, 0, 2, 0])));
    open(3).unwrap();
}

#[test]
fn short_names_of_axes_become_the_long_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut grid = grid(2, 3);
    (grid.y.name, grid.x.name) = ("lat".into(), "lon".into());
    let config = ZarrSink::new(path.to_str().unwrap());
    let write = |at: u64| {
        let mut writer = Writer::new(&config, &catalogue(&["a"], &grid)).unwrap();
        writer.write(vec![forecast("a", &grid, at)]).unwrap();
    };
    // The store is known again, too.
    (0..2).for_each(write);
    let root = read_root(&Folder::new(&path, false)).unwrap().unwrap();
    let arrays = &root["consolidated_metadata"]["metadata"];
    let dims = json!(["time", "prediction_timedelta", "latitude", "longitude"]);
    assert_eq!(arrays["rain"]["dimension_names"], dims);
    assert_eq!(arrays["rain"]["shape"], json!([2, 3, 2, 3]));
    for name in ["latitude", "longitude"] {
        assert_eq!(arrays[name]["attributes"]["standard_name"], name);
    }
}

#[test]
fn every_sensor_has_a_path_of_its_own() {
    let grid = grid(1, 1);
    let paths = |path: &str, names: &[&str]| {
        ZarrSink::new(path).paths(&catalogue(names, &grid)).map_err(|e| e.to_string())
    };
    assert!(paths("out.zarr", &["a"]).is_ok());
    assert!(paths("out.zarr", &["a", "b"]).unwrap_err().contains("put {sensor} into it"));
    assert!(paths("{sensor}", &["a/b", "a_b"]).unwrap_err().contains("rename one"));
    for name in ["..", "a/../b", ""] {
        assert!(paths("{sensor}", &[name]).is_err(), "{name}");
    }
}
