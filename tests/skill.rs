//! How good forecasts are: of the network that ships for rain, and beside peers, where every part of
//! the comparison runs on the smallest of its protocols.

use std::path::{Path, PathBuf};
use std::process::Command;

use physicnet::config::parse;
use physicnet::training::TrainConfig;
use physicnet_connectors::synthetic::SyntheticSource;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with what benches/peers/requirements-skill.txt names: gigabytes, so nobody must have it.
fn python() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("PHYSICNET_PYTHON")?);
    let told = Command::new(&python).args(["-c", "import cv2, pysteps, torch, yaml"]).output();
    told.is_ok_and(|told| told.status.success()).then_some(python)
}

/// A file of ours with the keys that a protocol sets in it, as compare.py reads it.
fn with(file: &Value, set: &Value) -> String {
    let text = std::fs::read_to_string(root().join(file.as_str().unwrap())).unwrap();
    let mut config: Value = serde_yaml_ng::from_str(&text).unwrap();
    for (key, value) in set.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config.to_string().replace('$', "")
}

#[test]
fn what_the_protocols_name_is_read_and_told_of() {
    let text = std::fs::read_to_string(root().join("benches/skill/protocols.yaml")).unwrap();
    let told: Value = serde_yaml_ng::from_str(&text).unwrap();
    let usage = Command::new(root().join("benches/skill/run")).arg("--help").output().unwrap();
    let usage = String::from_utf8(usage.stdout).unwrap();
    let words: Vec<_> = usage.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    for (name, protocol) in told["protocols"].as_object().unwrap() {
        assert!(words.contains(&name.as_str()), "{name}: {usage}");
        let training = with(&protocol["train"], &protocol["set"]);
        parse::<TrainConfig>(&training, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        for archive in [&protocol["data"], &protocol["test"]] {
            if archive["simulate"].is_string() {
                let simulated = with(&archive["simulate"], &archive["set"]);
                parse::<SyntheticSource>(&simulated, false)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        // What is scored has another seed than what was trained on.
        if protocol["test"].is_object() {
            let seed = |archive: &Value| {
                let made = ["set", "moving_mnist"].map(|how| archive[how]["seed"].clone());
                made.into_iter().find(|seed| !seed.is_null())
            };
            assert_ne!(seed(&protocol["data"]), seed(&protocol["test"]), "{name}");
        }
    }
}

/// Without the digits, which a registry has: squares move instead.
#[test]
fn digits_move_on_and_bounce() {
    let Some(python) = crate::house::python() else {
        eprintln!("no Python; not tested");
        return;
    };
    let check = r#"
import numpy, sys
sys.path.insert(0, "benches/skill")
import moving_mnist
squares = numpy.ones((3, 28, 28), "f4")
field = moving_mnist.moving(squares, 20, 20, 1)
assert field.shape == (20, 20, 64, 64) and set(numpy.unique(field)) == {0, 1}
covered = field.sum((2, 3))
assert covered.min() >= 28**2 and covered.max() <= 2 * 28**2, (covered.min(), covered.max())
turned = 0
for seed in range(50):
    corners = moving_mnist.path(numpy.random.default_rng(seed), 20)
    assert corners.min() >= 0 and corners.max() <= 36
    steps = numpy.diff(corners, axis=0)
    assert abs(steps).max() <= 5, abs(steps).max()
    turned += int((numpy.sign(steps[:-1]) * numpy.sign(steps[1:]) < 0).any())
assert 25 < turned, turned
assert (field == moving_mnist.moving(squares, 20, 20, 1)).all()
"#;
    let told = Command::new(python).args(["-c", check]).current_dir(root()).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn peers_are_trained_and_scored_beside_ours_on_the_same_frames() {
    let Some(python) = python() else {
        eprintln!("no Python with PyTorch and pysteps; not tested");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let run = root().join("benches/skill/run");
    let told = Command::new(run)
        .args(["tiny", "--seeds", "0", "--threads", "1", "--minutes", "0.01", "--out"])
        .arg(folder.path())
        .env("PHYSICNET_PYTHON", python)
        .env("PHYSICNET", env!("CARGO_BIN_EXE_physicnet"))
        .output()
        .unwrap();
    let [out, err] = [&told.stdout, &told.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(told.status.success(), "{out}{err}");

    let json = std::fs::read(folder.path().join("tiny.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let run = &json["runs"][0];
    let products = &run["scores"]["precip_rate"];
    for name in ["physicnet", "unet", "simvp", "convlstm", "fno", "lucas_kanade", "persistence"] {
        let leads = products[name].as_array().unwrap();
        assert_eq!(leads.len(), 3, "{name}");
        for lead in leads {
            let at = lead["lead"].as_u64().unwrap() as usize - 1;
            assert!(lead["mse"].as_f64().unwrap().is_finite(), "{name}");
            // The same forecasts of the same pixels: nobody leaves out what is hard.
            for same in ["pairs", "coverage"] {
                assert_eq!(lead[same], products["physicnet"][at][same], "{name}: {same}");
            }
        }
    }
    // Beyond the horizon everyone goes on from what they said themselves.
    let rolled = &run["rollout"]["scores"]["precip_rate"];
    for name in ["physicnet", "unet", "simvp", "convlstm", "fno", "lucas_kanade", "advection"] {
        let leads = rolled[name].as_array().unwrap();
        assert_eq!(leads.len(), 7, "{name}");
        assert!(leads.iter().all(|lead| lead["rel_l2"].as_f64().unwrap().is_finite()), "{name}");
    }
    // As far as another scorer could tell.
    for differs in [&run["differs"], &run["rollout"]["differs"]] {
        assert!(differs.as_f64().unwrap() < 5e-7, "{differs}");
    }
    let table = std::fs::read_to_string(folder.path().join("tiny.md")).unwrap();
    assert!(table.contains("rel_l2, rolled out"), "{table}");
    assert!(table.contains("| lead | PhysicNet | pysteps LK |"), "{table}");
}

#[test]
fn the_shipped_radar_networks_are_better_than_what_they_carry() {
    let folder = tempfile::tempdir().unwrap();
    // Other skies than those of configs/radar/simulate.yaml: another seed, and smaller ones.
    let skies = "{field: {kind: rain, height: 96, width: 96, speed: [0.0, 8.0], \
                 lifetime: [6.0, 30.0]}, sensors: 4, frames: 32, seed: 77}";
    std::fs::write(folder.path().join("skies.yaml"), skies).unwrap();
    let run = |arguments: &[&str]| {
        let told = Command::new(env!("CARGO_BIN_EXE_physicnet"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    };
    run(&["simulate", "skies.yaml", "skies.zarr"]);
    for network in ["rain", "radar"] {
        let file = root().join(format!("configs/radar/{network}.safetensors"));
        let file = file.to_str().unwrap();
        let scored = ["--zarr", "skies.zarr", "--checkpoint", file, "--json", "scores.json"];
        run(&[&["evaluate"], &scored[..]].concat());
        let scores = std::fs::read(folder.path().join("scores.json")).unwrap();
        let scores: Value = serde_json::from_slice(&scores).unwrap();
        let products = &scores["variables"][0]["products"];
        let mean = |product: &str, score: &str| {
            let leads = products[product]["leads"].as_array().unwrap();
            assert_eq!(leads.len(), 12);
            leads.iter().map(|lead| lead[score].as_f64().unwrap()).sum::<f64>() / 12.0
        };
        let [ours, carried] = ["physicnet", "advection"].map(|product| mean(product, "mse"));
        assert!(ours < 0.97 * carried, "{network}: {ours} beside {carried}");
        let [ours, carried] = ["physicnet", "advection"].map(|product| mean(product, "csi_1"));
        assert!(ours > carried - 1e-3, "{network}: {ours} beside {carried}");
    }
}
