//! Forecasts beyond the horizon of the network, as a user asks for them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::house::{differences, physicnet, run};

/// The network that ships for the demo, on flows that it was not trained on: ten leads by training, three of its own.
#[test]
fn a_forecast_goes_on_from_its_own_leads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let network = root.join("configs/demo/checkpoint.safetensors");
    let network = network.to_str().unwrap();
    let flows = "{field: {kind: navier_stokes, size: 64}, sensors: 1, frames: 24, seed: 5}";
    std::fs::write(path("flows.yaml"), flows).unwrap();
    let store = path("flows.zarr");
    run(&["simulate", &path("flows.yaml"), &store]);

    let scores = |name: &str, more: &[&str]| -> Value {
        let json = path(name);
        let asked = ["evaluate", "--zarr", &store, "--checkpoint", network, "--json", &json];
        run(&[&asked, more].concat());
        serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
    };
    let leads = |scores: &Value, product: &str| -> Vec<Value> {
        scores["variables"][0]["products"][product]["leads"].as_array().unwrap().clone()
    };
    let own = scores("own.json", &[]);
    let further = scores("further.json", &["--horizon", "13", "--forecasts", &path("out.zarr")]);
    let fewer = scores("fewer.json", &["--horizon", "4"]);
    for product in ["physicnet", "persistence", "advection"] {
        let all = leads(&further, product);
        assert_eq!(all.len(), 13, "{product}");
        assert_eq!(all[..10], leads(&own, product), "{product}");
        assert_eq!(all[..4], leads(&fewer, product), "{product}");
    }
    let error = |product: &str| leads(&further, product)[12]["rel_l2"].as_f64().unwrap();
    assert!(error("physicnet") < 0.7 * error("persistence"), "{}", error("physicnet"));
    assert!(error("physicnet") < 0.7 * error("advection"), "{}", error("physicnet"));

    // A job writes what was scored.
    let job = format!(
        "sources: [{{type: zarr, path: {store}}}]\nmodel: {{checkpoint: {network}, leads: 13}}\n\
         sinks: [{{type: zarr, path: {}}}]\n",
        path("job.zarr")
    );
    std::fs::write(path("job.yaml"), job).unwrap();
    let said = run(&["inspect", &path("job.yaml")]).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("13 leads from 10 frames, those after the 10th from its own"), "{said}");
    run(&["run", &path("job.yaml")]);
    let [job, evaluated] = ["job.zarr", "out.zarr"].map(|name| folder.path().join(name));
    assert_eq!(differences(&job, &evaluated), Vec::<PathBuf>::new());
    let leads = std::fs::read_to_string(job.join("prediction_timedelta/zarr.json")).unwrap();
    let leads: Value = serde_json::from_str(&leads).unwrap();
    assert_eq!(leads["shape"], serde_json::json!([13]));

    for (leads, why) in [
        ("0", "model.leads: 0; at least 1 is needed"),
        ("100000", "model.leads: 100000 leads of flows are more than memory holds"),
    ] {
        let asked = ["evaluate", "--zarr", &store, "--checkpoint", network, "--horizon", leads];
        let refused = physicnet().args(asked).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{said}");
    }
}
