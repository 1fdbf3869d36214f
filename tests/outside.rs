//! The program as strangers meet it: its demo, and its stores in another's hands.

use std::path::Path;
use std::process::Command;

use physicnet_operators::model::Checkpoint;
use physicnet_stream::{Frame, Time};
use serde_json::Value;

use crate::house::{MINUTE, checkpoint, frame, python, run, store};

#[test]
fn the_demo_wins_and_leaves_its_stores_and_its_picture() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let output = run(&["demo", "--out", out, "--forecasts", "2"]);
    let said = String::from_utf8(output.stdout).unwrap();
    // The last table is that of the whole run: physicnet, advection, persistence.
    let last = said.lines().rfind(|line| line.trim_start().starts_with("mean")).unwrap();
    let rmse: Vec<f64> = last.split_whitespace().skip(1).take(3).flat_map(str::parse).collect();
    let [ours, advection, persistence] = rmse[..] else { panic!("{said}") };
    assert!(ours > 0.0 && ours < advection && ours < persistence, "{said}");
    assert!(said.contains("physicnet wins"), "{said}");
    let png = std::fs::read(folder.path().join("forecast.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{} bytes", png.len());
    for sensor in 0..4 {
        let root = folder.path().join(format!("forecasts/flow_{sensor}.zarr/zarr.json"));
        let root: Value = serde_json::from_slice(&std::fs::read(root).unwrap()).unwrap();
        let arrays = &root["consolidated_metadata"]["metadata"];
        assert!(arrays["time"]["shape"][0].as_u64().unwrap() >= 2, "{root}");
    }
}

#[test]
fn independent_scorers_read_our_stores_and_say_what_we_say() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with pysteps and scikit-image; see scripts/test");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let holed = |k: u64| {
        let mut frame = frame(k, k as Time * MINUTE, 0.0);
        // A corner that is never measured, and pixels that are so now and then.
        frame.data[..5].fill(f32::NAN);
        frame.data[(40 + k as usize)..(44 + k as usize)].fill(f32::NAN);
        frame
    };
    let frames: Vec<Frame> = (0..30).map(holed).collect();
    store(&folder.path().join("s.zarr"), &frames);
    let model = folder.path().join("model.safetensors");
    checkpoint(&model);
    // What is held at a threshold is counted alike by those who count what lies on it, and those
    // who do not: `scores` and `xskillscore` do.
    let mut kept = Checkpoint::load(&model).unwrap();
    kept.config.variables[0].keep = vec![0.1, 0.5];
    kept.save(&model).unwrap();
    let (observed, forecasts, ours) = (path("s.zarr"), path("out.zarr"), path("ours.json"));
    run(&[
        "evaluate",
        "--zarr",
        &observed,
        "--checkpoint",
        &path("model.safetensors"),
        "--forecasts",
        &forecasts,
        "--json",
        &ours,
        "--thresholds",
        "0.1,0.5",
    ]);
    let read =
        |path: &str| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let ours = read(&ours);
    let ours = &ours["variables"][0]["products"]["physicnet"]["leads"];
    let same = |theirs: &Value, scores: &[(&str, &str)]| {
        for lead in 0..2 {
            for (score, named) in scores {
                let of = |all: &Value, name: &str| all[lead][name].as_f64();
                let (a, b) = (of(ours, score).unwrap(), of(theirs, named).unwrap());
                assert!((a - b).abs() < 1e-6, "lead {}: {score}: {a} and {b}", lead + 1);
            }
        }
    };
    let all = [
        "pairs",
        "coverage",
        "mse",
        "rmse",
        "mae",
        "bias",
        "corr",
        "rel_l2",
        "ssim",
        "csi_0.1",
        "pod_0.1",
        "far_0.5",
        "fbias_0.5",
    ];
    let all = all.map(|score| (score, score));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/python/verify_arrays.py");
    let arguments = [&observed, &forecasts, "u", "0.1", "0.5"];
    let output = Command::new(&python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    same(&serde_json::from_slice(&output.stdout).unwrap(), &all);

    // Those that work on xarray, along the store's own dims.
    let script = root.join("tests/python/verify_stores.py");
    let arguments = [&observed, &forecasts, "u", "0.1"];
    let output = Command::new(&python).arg(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = ["mse", "rmse", "mae", "bias"].map(|score| (score, score));
    let events = [("corr", "corr"), ("csi_0.1", "csi"), ("pod_0.1", "pod"), ("far_0.1", "far")];
    for tool in ["scores", "xskillscore"] {
        same(&theirs[tool], &[errors, events].concat());
    }
    // It is in no package registry: a checkout of it, on the path, is taken.
    match &theirs["weatherbenchX"] {
        Value::Null => eprintln!("no weatherbenchX; not tested"),
        theirs => same(theirs, &errors),
    }

    // A scorer that was written elsewhere, where it is at hand.
    let scorer = root.join("../shared/tools/score_forecast.py");
    if scorer.exists() {
        let theirs = path("theirs.json");
        let output = Command::new(python)
            .arg(scorer)
            .args(["--obs", &observed, "--obs-var", "u", "--fc", &forecasts, "--fc-var", "u"])
            .args(["--init-dim", "time", "--lead-dim", "prediction_timedelta"])
            .args(["--thresholds", "0.1,0.5", "--out", &theirs])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        same(&read(&theirs)["scores"]["forecast"], &all);
    }
}
