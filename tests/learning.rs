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
    Coordinates, MINUTE, bytes, checkpoint, coordinates, differences, frame, physicnet, run, start,
    store, untrained,
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
    // What the log counts at the end is what the stores hold.
    let counts = counted(&said);
    assert!(!counts.contains_key("persistence") && counts["physicnet"] >= SENSORS, "{counts:?}");
    assert!(counts.values().sum::<usize>() > 5 * counts["physicnet"], "{counts:?}");
    if let Some(stores) = coordinates(&stores(&at.join("learns"))) {
        let mut held = BTreeMap::new();
        for serving in stores.into_iter().flat_map(|store| store.serving) {
            *held.entry(serving).or_default() += 1;
        }
        assert_eq!(counts, held);
    }
}

/// The forecasts by what was served, as the log says at the end.
fn counted(said: &str) -> BTreeMap<String, usize> {
    let end = said.lines().find(|line| line.contains("everything durable")).unwrap();
    let (_, told) = end.split_once("served={").unwrap();
    let (told, _) = told.split_once('}').unwrap();
    let pair = |pair: &str| {
        let (label, count) = pair.split_once(": ").unwrap();
        (label.trim_matches('"').to_owned(), count.parse().unwrap())
    };
    told.split(", ").map(pair).collect()
}

fn stores(out: &Path) -> Vec<PathBuf> {
    (0..SENSORS).map(|k| out.join(format!("s{k}.zarr"))).collect()
}

#[test]
fn a_network_that_turns_bad_gives_way_until_it_recovers() {
    let (_folder, at, model) = begin();
    untrained(&model, Expert::Advection);
    // What moves is carried along well; two fields in turn seem to move, and do not.
    let (bad, good) = (40, 80);
    let story = |step: u64, sensor: usize| {
        let turn = (bad..good).contains(&step);
        frame(if turn { bad + step % 2 } else { step }, step as Time * MINUTE, sensor as f32)
    };
    for sensor in 0..SENSORS {
        let series: Vec<_> = (0..130).map(|step| story(step, sensor)).collect();
        store(&at.join(format!("s{sensor}.zarr")), &series);
    }
    let file = job(&at, &model, "out", "hold", LEARN);
    with_products(&file);
    run(&["run", &file]);

    for sensor in 0..SENSORS {
        let by_time = errors_by_time(&at.join("out"), sensor, |step| story(step, sensor).data);
        let mean = |from: u64, to: u64, product: usize| {
            let of = by_time.range(from..to).map(|(_, errors)| errors[product]);
            of.sum::<f64>() / (to - from) as f64
        };
        // Over every dozen forecasts what is served is not far below the better baseline, but for
        // those by which the gate learns that the network has turned.
        for from in 12..116 {
            let [served, network, advection, persistence] =
                [0, 1, 2, 3].map(|product| mean(from, from + 12, product));
            let better = advection.min(persistence);
            let told =
                format!("s{sensor}, {from}: {served} of {network}, {advection}, {persistence}");
            let learning = [bad, good].iter().any(|turn| (turn - 12..turn + 12).contains(&from));
            assert!(learning || served <= 1.1 * better, "{told}");
            assert!(served <= 1.01 * network.max(persistence), "{told}");
        }
        assert!(mean(60, 76, 1) > 1.5 * mean(60, 76, 3), "the network did not turn bad");
        assert!(mean(100, 120, 1) < 0.5 * mean(100, 120, 3), "nor did it recover");
    }
    let Some(told) = coordinates(&stores(&at.join("out"))) else { return };
    for (sensor, Coordinates { time, serving, .. }) in told.into_iter().enumerate() {
        let of: BTreeMap<i64, String> = time.into_iter().zip(serving).collect();
        let all = |range: std::ops::Range<i64>, wanted: &str| {
            let others: Vec<_> =
                of.range(range).filter(|(_, serving)| *serving != wanted).collect();
            assert!(others.is_empty(), "s{sensor}: {others:?} do not serve {wanted}");
        };
        all(2..bad as i64, "physicnet");
        all(60..good as i64, "persistence");
        all(110..130, "physicnet");
    }
}

/// The squared errors of [`PRODUCTS`] by the step of the reference time, over all leads whose truth
/// is known.
fn errors_by_time(
    out: &Path,
    sensor: usize,
    truth: impl Fn(u64) -> Vec<f32>,
) -> BTreeMap<u64, [f64; 4]> {
    let mut config = ZarrSource::new(out.join(format!("s{sensor}.zarr")));
    config.variables = PRODUCTS.map(String::from).into();
    config.cadence = Some("60s".into());
    let archive = Archive::open(&config).unwrap();
    let mut all = BTreeMap::<u64, [f64; 4]>::new();
    for lead in 0..archive.sensors().len() {
        for at in 0..archive.times(lead).len() {
            let made = archive.read(lead, at).unwrap();
            let step = (made.valid_time / MINUTE) as u64;
            let truth = truth(step + lead as u64 + 1);
            let sums = all.entry(step).or_default();
            for (sum, field) in sums.iter_mut().zip(made.data.chunks(truth.len())) {
                let off = field.iter().zip(&truth).map(|(p, o)| f64::from(p - o).powi(2));
                *sum += off.sum::<f64>();
            }
        }
    }
    all
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
    std::fs::write(&file, text.replace("cadence: 60s}", "cadence: 60s, rate: 25}")).unwrap();
    for after in [60, 700, 1_300, 1_700, 150, 900] {
        let mut child = start(&["run", &file]);
        std::thread::sleep(Duration::from_millis(after));
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Killed in the middle: some is there, and not all.
    let rest = outcome(&at.join("killed"));
    run(&["run", &file]);
    let (expected, told) = (outcome(&at.join("whole")), outcome(&at.join("killed")));
    assert!(rest.0.len() < told.0.len(), "all was done before the last run");
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
