//! The simulators and their faults, as a job and its user meet them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use physicnet::config::parse;
use physicnet_connectors::synthetic::{Field, Recording, SyntheticSource};
use physicnet_connectors::zarr::{Archive, ZarrSource};
use physicnet_stream::Time;
use serde_json::Value;

use crate::house::{differences, files, physicnet, python, run, start};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Writes `text` to a file of the folder; its path.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a job and gives what it said on the way.
fn told(job: &str) -> String {
    let output = physicnet().env("RUST_LOG", "info").args(["run", job]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

#[test]
fn every_kind_is_simulated_looked_at_scored_and_forecast_live() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    for (kind, size) in [
        ("navier_stokes", "size: 16"),
        ("rain", "height: 16, width: 16"),
        ("fitzhugh_nagumo", "size: 16"),
        ("shallow_water", "size: 16"),
        ("gray_scott", "size: 16"),
        ("fire", "size: 16"),
    ] {
        let field = format!("{{kind: {kind}, {size}}}");
        let config = format!("field: {field}\nsensors: 2\nframes: 12\ncadence: 250ms\n");
        let config = file(folder.path(), &format!("{kind}.yaml"), &config);
        let store = format!("{at}/{kind}.zarr");
        let picture = format!("{at}/{kind}.png");
        run(&["simulate", &config, &store]);
        run(&["validate", &config]);

        let said = run(&["inspect", &store, "--picture", &picture]);
        let said = String::from_utf8(said.stdout).unwrap();
        let source: SyntheticSource = parse(&format!("field: {field}"), false).unwrap();
        for variable in source.field.grid().variables {
            assert!(said.contains(&format!("  {} ({}): min", variable.name, variable.units)));
        }
        assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));

        let scores = format!("{at}/{kind}.json");
        run(&["evaluate", "--zarr", &store, "--horizon", "2", "--json", &scores]);
        let scores = std::fs::read_to_string(&scores).unwrap();
        for variable in source.field.grid().variables {
            assert!(scores.contains(&format!("\"{}\"", variable.name)), "{kind}: {scores}");
        }

        let job = format!(
            "sources: [{{type: synthetic, field: {field}, sensors: 2, frames: 12, cadence: 250ms, \
             rate: 500}}]\n\
             model: {{untrained: {{history: 4, horizon: 2, quantization: none}}}}\n\
             sinks: [{{type: zarr, path: '{at}/{kind}-{{sensor}}.zarr', fsync: false}}]\n"
        );
        let said = told(&file(folder.path(), "job.yaml", &job));
        assert!(said.contains("forecasts=18"), "{kind}: {said}");
    }
}

#[test]
fn two_channels_are_trained_on_and_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    for (kind, names) in [("fire", ["fuel", "temperature"]), ("fitzhugh_nagumo", ["u", "v"])] {
        let field = format!("{{kind: {kind}, size: 16}}");
        let config = format!("field: {field}\nsensors: 6\nframes: 12\n");
        let store = format!("{at}/{kind}.zarr");
        run(&["simulate", &file(folder.path(), "simulate.yaml", &config), &store]);
        let train = format!(
            "data: [{{path: '{store}'}}]\nout: '{at}/{kind}'\n\
             model: {{history: 3, horizon: 2, hidden: 8, decoder: 8, skip: 4, latent: 4, codes: 8}}\n\
             split: {{by: sensor, train: 0.5, validation: 0.25}}\n\
             steps: 4\nbatch: 2\nvalidate_every: 4\nvalidate_windows: 2\nthreads: 1\n"
        );
        run(&["train", &file(folder.path(), "train.yaml", &train)]);
        let checkpoint = format!("{at}/{kind}/last.safetensors");
        let said = String::from_utf8(run(&["inspect", &checkpoint]).stdout).unwrap();
        assert!(names.iter().all(|name| said.contains(&format!("name: {name}\n"))), "{said}");
        run(&["evaluate", "--zarr", &store, "--checkpoint", &checkpoint]);

        let job = format!(
            "sources: [{{type: synthetic, field: {field}, frames: 8}}]\n\
             model: {{checkpoint: '{checkpoint}'}}\n\
             sinks: [{{type: zarr, path: '{at}/{kind}-forecasts.zarr', fsync: false}}]\n"
        );
        let said = told(&file(folder.path(), "job.yaml", &job));
        assert!(said.contains("forecasts=6"), "{kind}: {said}");
        let forecasts = Archive::open(&ZarrSource {
            variables: names.map(String::from).into(),
            cadence: Some("300s".to_owned()),
            ..ZarrSource::new(format!("{at}/{kind}-forecasts.zarr"))
        });
        let frame = forecasts.unwrap().read(0, 0).unwrap();
        assert_eq!(frame.shape, [2, 16, 16]);
        assert!(frame.data.iter().all(|value| value.is_finite()));
    }
}

/// What scipy makes of the same equations: the first comparison is frame by frame, the second one
/// of statistics over twelve starts from another generator's noise.
#[test]
fn fitzhugh_nagumo_is_what_scipy_says_of_pdebench() {
    let python = python().filter(|python| {
        let told = Command::new(python).args(["-c", "import scipy, xarray, zarr"]).output();
        told.is_ok_and(|told| told.status.success())
    });
    let Some(python) = python else {
        eprintln!("skipped: no Python with scipy and xarray; see tests/python/requirements.txt");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = "field: {kind: fitzhugh_nagumo, size: 64}\nsensors: 12\nframes: 101\n";
    let store = folder.path().join("store.zarr");
    run(&["simulate", &file(folder.path(), "simulate.yaml", config), store.to_str().unwrap()]);
    let script = root().join("tests/python/pdebench.py");
    let output = Command::new(python).arg(script).arg(&store).output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{out}{err}");
    let told: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [same, noise] = &told[..] else { panic!("{out}") };
    let of = |told: &Value, key: &str| told[key].as_f64().unwrap();
    // scipy's own tolerance is a thousandth of each value and step.
    assert!(of(same, "largest") < 2e-3 && of(same, "last") < 2e-4, "{out}");
    assert!(of(noise, "mean") < 0.02 && of(noise, "spread") < 0.06, "{out}");
    assert!(of(noise, "spectrum") < 0.5, "{out}");
}

const FAULTY: &str = "faults: {late: 0.12, duplicate: 0.1, corrected: 0.1, delay: 2}";

fn source(faults: &str) -> String {
    format!(
        "field: {{kind: fitzhugh_nagumo, size: 16}}, sensors: 3, seed: 5, frames: 100, \
         cadence: 60s, {faults}"
    )
}

/// How often each thing befalls the frames of a source, as a reader of them counts it.
fn expected(faults: &str) -> BTreeMap<String, usize> {
    let config: SyntheticSource = parse(&format!("{{{}}}", source(faults)), false).unwrap();
    let mut counts = BTreeMap::new();
    for sensor in 0..config.sensors {
        let mut recording = Recording::new(&config, sensor).unwrap();
        let (mut newest, mut seen) = (Time::MIN, BTreeMap::<Time, Vec<u32>>::new());
        while let Some(frame) = recording.next_frame().unwrap() {
            let (time, bits) =
                (frame.valid_time, frame.data.iter().map(|value| value.to_bits()).collect());
            let told = match seen.get(&time) {
                Some(before) if *before == bits => "duplicate",
                Some(_) => "corrected",
                None if time < newest => "late",
                None => "in order",
            };
            *counts.entry(told.to_owned()).or_default() += 1;
            seen.insert(time, bits);
            newest = newest.max(time);
        }
    }
    counts
}

/// The rejects that the last line of a run counts: `rejects={"duplicate": 9, ...}`.
fn rejects(said: &str) -> BTreeMap<String, usize> {
    let line = said.lines().find(|line| line.contains("everything durable")).unwrap();
    let (_, counts) = line.split_once("rejects=").unwrap();
    let end = counts.find('}').unwrap();
    serde_json::from_str(&counts[..=end]).unwrap()
}

fn job(folder: &Path, name: &str, faults: &str, more: &str) -> String {
    let at = folder.display();
    let text = format!(
        "sources: [{{type: synthetic, {}}}]\n\
         model: {{untrained: {{history: 4, horizon: 2, quantization: none}}}}\n\
         sinks: [{{type: zarr, path: '{at}/{name}/{{sensor}}.zarr', fsync: false}}]\n\
         rejects: {{path: '{at}/{name}/rejects', fsync: false}}\nworkers: 2\n{more}\n",
        source(faults)
    );
    file(folder, &format!("{name}.yaml"), &text)
}

#[test]
fn late_duplicate_and_corrected_frames_are_in_the_rejects_as_the_seed_says() {
    let mut expected = expected(FAULTY);
    // All hundred frames of three sensors, once each, but for those that were late.
    let in_order = expected.remove("in order").unwrap();
    assert_eq!(in_order + expected["late"], 300);
    // What this seed says, whoever counts it.
    assert_eq!(
        ["late", "duplicate", "corrected"].map(|reason| expected[reason]),
        [23, 34, 32],
        "{expected:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let said = told(&job(folder.path(), "plain", FAULTY, ""));
    assert_eq!(rejects(&said), expected, "{said}");
    // Those that are not there already lie in the folder, each with its reason.
    let mut kept = BTreeMap::<String, usize>::new();
    for path in files(&folder.path().join("plain/rejects")) {
        if path.extension().is_some_and(|extension| extension == "json") {
            let about: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            *kept.entry(about["reason"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    expected.remove("duplicate");
    assert_eq!(kept, expected);
}

/// Whether a restart tells the frames that it reads again from those that are new, and no frame that
/// was refused is forgotten, whenever the job is killed.
#[test]
fn killed_among_faulty_frames_it_ends_with_the_same_forecasts_and_rejects() {
    for more in ["", "admission: {revise_within: 3}"] {
        let folder = tempfile::tempdir().unwrap();
        told(&job(folder.path(), "whole", FAULTY, more));
        let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
        let all = files(&whole).len();
        let slow = format!("{FAULTY}, rate: 40");
        let slow = job(folder.path(), "killed", &slow, &format!("{more}\nin_flight: 2"));
        for part in 1..6 {
            let mut child = start(&["run", &slow]);
            let begun = Instant::now();
            while files(&killed).len() < all * part / 6 {
                assert!(begun.elapsed() < Duration::from_secs(60), "it writes nothing");
                assert!(child.try_wait().unwrap().is_none(), "it has ended by itself");
                std::thread::sleep(Duration::from_millis(3));
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // To its end, and once more with nothing left to do.
        for _ in 0..2 {
            told(&job(folder.path(), "killed", FAULTY, more));
            assert_eq!(differences(&whole, &killed), Vec::<PathBuf>::new(), "{more}");
        }
    }
}

#[test]
fn with_revisions_faulty_sensors_end_with_the_forecasts_of_faultless_ones() {
    let folder = tempfile::tempdir().unwrap();
    let revise = "admission: {revise_within: 3}";
    let said = told(&job(folder.path(), "faulty", FAULTY, revise));
    // Late and corrected frames are used: duplicates alone are left over.
    let duplicates = expected(FAULTY)["duplicate"];
    assert_eq!(rejects(&said), [("duplicate".to_owned(), duplicates)].into());
    told(&job(folder.path(), "faultless", "faults: {}", revise));
    let forecasts = |name: &str| {
        let mut all = BTreeMap::new();
        for sensor in 0..3 {
            let store = format!("{name}/fitzhugh_nagumo_{sensor}.zarr");
            let archive = Archive::open(&ZarrSource {
                variables: vec!["u".to_owned(), "v".to_owned()],
                cadence: Some("60s".to_owned()),
                ..ZarrSource::new(folder.path().join(store))
            });
            let archive = archive.unwrap();
            for lead in 0..archive.sensors().len() {
                for at in 0..archive.times(lead).len() {
                    let frame = archive.read(lead, at).unwrap();
                    let bits: Vec<u32> = frame.data.iter().map(|value| value.to_bits()).collect();
                    all.insert((sensor, lead, frame.valid_time), bits);
                }
            }
        }
        all
    };
    let (faulty, faultless) = (forecasts("faulty"), forecasts("faultless"));
    assert!(faultless.len() > 500 && faulty == faultless, "{} {}", faulty.len(), faultless.len());
}

#[test]
fn the_documentation_has_every_kind_and_every_key() {
    let text = std::fs::read_to_string(root().join("docs/simulators.md")).unwrap();
    for field in Field::all() {
        let (_, rest) = text.split_once(&format!("## `{}`", field.kind())).unwrap();
        let section = rest.split("\n## ").next().unwrap();
        let settings = serde_json::to_value(&field).unwrap();
        for key in settings.as_object().unwrap().keys().filter(|key| *key != "kind") {
            assert!(section.contains(&format!("`{key}`")), "{}: {key}", field.kind());
        }
        for variable in field.grid().variables {
            assert!(section.contains(&format!("`{}`", variable.name)), "{}", variable.name);
        }
    }
    let settings = serde_json::to_value(SyntheticSource::new(Field::all()[0].clone())).unwrap();
    let faults = settings["faults"].as_object().unwrap().keys();
    for key in settings.as_object().unwrap().keys().chain(faults) {
        assert!(text.contains(&format!("| `{key}` |")), "{key}");
    }
}
