//! Forecasts that learn from their verification: never far below the better baseline, and the same
//! to the byte however they are made.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use physicnet_connectors::zarr::{Archive, ZarrSource};
use physicnet_operators::model::Expert;
use physicnet_stream::Time;

use crate::house::{
    MINUTE, bytes, checkpoint, differences, frame, physicnet, run, start, store, untrained,
};
use crate::revisions::{SENSORS, job, outcome, site, version};

const LEARN: &str = "learn: {memory: 12}";
/// What is served, what the network says, and the baselines.
const PRODUCTS: [&str; 4] = ["u", "u_network", "u_advection", "u_persistence"];

/// A folder with a checkpoint whose weights are shaken: its network is useless.
fn begin() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (at, model) = (folder.path().to_owned(), folder.path().join("model.safetensors"));
    checkpoint(&model);
    (folder, at, model)
}

/// The same, with a network that says what persistence says: the best blend of it and the advected
/// field lies between them, and moves from frame to frame as so little is remembered.
fn undecided() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (folder, at, model) = begin();
    untrained(&model, Expert::Persistence);
    (folder, at, model)
}
const UNDECIDED: &str = "learn: {memory: 2, gate: false}";

/// A job whose stores also hold what it is held against.
fn with_products(file: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let more = "fsync: false, products: [network, advection, persistence]";
    std::fs::write(file, text.replace("fsync: false", more)).unwrap();
}

/// The mean squared error of each of `products` over the reference times from step `from` on.
fn errors(out: &Path, products: &[&str], from: u64) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::<String, (f64, f64)>::new();
    for sensor in 0..SENSORS {
        let mut config = ZarrSource::new(out.join(format!("s{sensor}.zarr")));
        config.variables = products.iter().map(|product| (*product).into()).collect();
        config.cadence = Some("60s".into());
        let archive = Archive::open(&config).unwrap();
        for lead in 0..archive.sensors().len() {
            for at in 0..archive.times(lead).len() {
                let made = archive.read(lead, at).unwrap();
                let step = (made.valid_time / MINUTE) as u64;
                if step < from {
                    continue;
                }
                let truth = version(step + lead as u64 + 1, sensor, 0).data;
                for (product, field) in products.iter().zip(made.data.chunks(truth.len())) {
                    let (sum, count) = sums.entry((*product).to_owned()).or_default();
                    for (value, truth) in field.iter().zip(&truth) {
                        *sum += f64::from(value - truth).powi(2);
                        *count += 1.0;
                    }
                }
            }
        }
    }
    sums.into_iter().map(|(product, (sum, count))| (product, sum / count)).collect()
}

#[test]
fn a_bad_network_is_never_far_below_the_better_baseline() {
    let (_folder, at, model) = begin();
    site(&at, 100, None);
    let file = job(&at, &model, "learns", "hold", LEARN);
    with_products(&file);
    let output = physicnet().env("RUST_LOG", "info").args(["run", &file]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    run(&["run", &job(&at, &model, "plain", "hold", "")]);

    let errors_of = errors(&at.join("learns"), &PRODUCTS, 12);
    let plain = errors(&at.join("plain"), &PRODUCTS[..1], 12)["u"];
    let better = errors_of["u_advection"].min(errors_of["u_persistence"]);
    let told = format!("{errors_of:?}, {plain} without learning");
    assert!((errors_of["u_network"] - plain).abs() < 1e-12, "the network is as it was: {told}");
    assert!(plain > 2.0 * better, "the network is bad: {told}");
    assert!(errors_of["u"] <= 1.1 * better, "{told}");
    assert!(said.contains("served={"), "{said}");
}

#[test]
fn a_closed_gate_is_told() {
    let (_folder, at, model) = begin();
    let file = job(&at, &model, "out", "hold", LEARN);
    // Two fields in turn: advection sees motion where there is none, and persistence is best.
    let warnings = |frames: u64| {
        for sensor in 0..SENSORS {
            let turn = |step: u64| frame(step % 2, step as Time * MINUTE, sensor as f32);
            let series: Vec<_> = (0..frames).map(turn).collect();
            let path = at.join(format!("s{sensor}.zarr"));
            let _ = std::fs::remove_dir_all(&path);
            store(&path, &series);
        }
        let output = physicnet().env("RUST_LOG", "info").args(["run", &file]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("served={\"") && said.contains("\"persistence\": "), "{said}");
        let warned = |line: &&str| line.contains("WARN") && line.contains("in the network's place");
        said.lines().filter(warned).count()
    };
    assert_eq!(warnings(60), SENSORS);
    // Started again with more frames, it is closed as before, and that is no news.
    assert_eq!(warnings(80), 0);
}

#[test]
fn workers_and_batches_cannot_be_seen_in_what_is_learnt() {
    let (_folder, at, model) = undecided();
    site(&at, 60, Some(4));
    let run_as = |name: &str, more: &str| {
        let file = job(&at, &model, name, "hold", &format!("{UNDECIDED}\n{more}"));
        with_products(&file);
        run(&["run", &file]);
        (outcome(&at.join(name)), learnt(&at.join(name)))
    };
    let one = run_as("one", "workers: 1\nbatch: 1\nin_flight: 1");
    for (name, more) in [
        ("two", "workers: 2\nbatch: 8\nin_flight: 8"),
        ("four", "workers: 4\nbatch: 3\nin_flight: 64"),
    ] {
        let told = run_as(name, more);
        let mut others = differences(&at.join("one"), &at.join(name));
        // A job that may have more in flight remembers more of what it served.
        others.retain(|file| file != Path::new("scores.jsonl"));
        assert_eq!(others, Vec::<PathBuf>::new(), "{name}");
        assert_eq!(told.0.1, one.0.1, "{name}: other scores");
        assert_eq!(told.1, one.1, "{name}");
    }
    // Nor whether anything is scored; and two processes are as good as one.
    let file = job(&at, &model, "unscored", "hold", UNDECIDED);
    with_products(&file);
    let text = std::fs::read_to_string(&file).unwrap();
    let unscored: Vec<_> = text.lines().filter(|line| !line.starts_with("scoring:")).collect();
    std::fs::write(&file, unscored.join("\n")).unwrap();
    run(&["run", &file]);
    let file = job(&at, &model, "both", "hold", &format!("{UNDECIDED}\nworkers: 2"));
    with_products(&file);
    // Free just now: between this and their use another program may take them.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let hosts = ports.each_ref().map(|port| port.local_addr().unwrap().to_string()).join(",");
    drop(ports);
    let children =
        ["0", "1"].map(|process| start(&["run", &file, "--hosts", &hosts, "--process", process]));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for name in ["unscored", "both"] {
        let mut others = differences(&at.join("one"), &at.join(name));
        others.retain(|file| {
            !file.starts_with("scores.jsonl") && file.extension() != Some("lock".as_ref())
        });
        // Without a file of scores a restart reads less again, and the stores say so.
        others.retain(|file| name == "both" || !file.ends_with("zarr.json"));
        assert_eq!(others, Vec::<PathBuf>::new(), "{name}");
    }
    assert_eq!(learnt(&at.join("both")), one.1);
}

#[test]
fn a_forecast_made_again_is_the_one_that_was_made() {
    let (_folder, at, model) = undecided();
    let (shorter, longer) = (at.join("shorter"), at.join("longer"));
    site(&shorter, 90, None);
    site(&longer, 98, None);
    run(&["run", &job(&shorter, &model, "out", "hold", UNDECIDED)]);
    run(&["run", &job(&longer, &model, "whole", "hold", UNDECIDED)]);
    // As if killed when the scores were written and the forecasts of the last frames were not.
    for (name, bytes) in bytes(&shorter.join("out")) {
        let to = longer.join("killed").join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
    std::fs::copy(longer.join("whole/scores.jsonl"), longer.join("killed/scores.jsonl")).unwrap();
    run(&["run", &job(&longer, &model, "killed", "hold", UNDECIDED)]);
    learnt(&longer.join("killed"));
    let others = differences(&longer.join("whole"), &longer.join("killed"));
    assert_eq!(others, Vec::<PathBuf>::new());
}

#[test]
fn killed_at_any_moment_the_same_is_learnt() {
    let (_folder, at, model) = undecided();
    site(&at, 120, Some(6));
    let whole = job(&at, &model, "whole", "hold", UNDECIDED);
    run(&["run", &whole]);
    let more = format!("{UNDECIDED}\nworkers: 2\nin_flight: 4");
    let file = job(&at, &model, "killed", "hold", &more);
    // So slow that some are killed between two writes of the scores.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("cadence: 60s}", "cadence: 60s, rate: 40}")).unwrap();
    for after in [60, 700, 1_300, 1_700, 150, 900] {
        let mut child = start(&["run", &file]);
        std::thread::sleep(Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run(&["run", &file]);
    let (expected, told) = (outcome(&at.join("whole")), outcome(&at.join("killed")));
    assert!(told.0 == expected.0, "other forecasts");
    assert_eq!(told.1, expected.1);
    assert_eq!(learnt(&at.join("killed")), learnt(&at.join("whole")));
}

/// What the file of scores says of each sensor's learning, but for how its last frames were
/// served: an `in_flight` of its own keeps more of them.
fn learnt(out: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(out.join("scores.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut states: Vec<_> = lines.filter(|line| line.get("learnt").is_some()).collect();
    assert_eq!(states.len(), SENSORS);
    let between = |state: &serde_json::Value| {
        let mut blends = state["learnt"]["blends"].as_array().unwrap().iter();
        let share = |blend: &serde_json::Value| {
            blend["xy"].as_f64().unwrap() / blend["xx"].as_f64().unwrap()
        };
        blends.any(|blend| (0.01..0.99).contains(&share(blend)))
    };
    assert!(states.iter().any(between), "nothing is blended");
    for state in &mut states {
        state["learnt"].as_object_mut().unwrap().remove("served").unwrap();
    }
    states
}
