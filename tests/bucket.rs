//! Everything in a bucket: simulated into it, trained, run and evaluated from it, killed and started again.

#![cfg(all(unix, feature = "cloud"))]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use physicnet_operators::model::Checkpoint;
use serde_json::Value;

use crate::house::{bytes, files, run, start};

/// A URL below which nothing is, and the folder in which the server keeps the same objects.
fn bucket() -> Option<(String, PathBuf)> {
    let told = ["PHYSICNET_S3", "PHYSICNET_S3_FOLDER"].map(std::env::var);
    let [Ok(url), Ok(folder)] = told else {
        let why = "no S3 server: eval \"$(scripts/s3 start)\"";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped: {why}");
        return None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("jobs/{now}");
    Some((format!("{url}/{name}"), Path::new(&folder).join(name)))
}

/// A store file by file, the root without the name of its writer.
fn store(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let plain = |(name, bytes): (PathBuf, Vec<u8>)| {
        if name != Path::new("zarr.json") {
            return (name, bytes);
        }
        let mut root: Value = serde_json::from_slice(&bytes).unwrap();
        if let Some(ours) = root["attributes"]["physicnet"].as_object_mut() {
            ours.remove("writer");
        }
        (name, root.to_string().into_bytes())
    };
    bytes(path).into_iter().map(plain).collect()
}

#[test]
fn a_bucket_serves_the_whole_way_as_a_folder_does() {
    let Some((url, objects)) = bucket() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let write = |name: &str, words: &str| {
        std::fs::write(at(name), words).unwrap();
        text(&at(name))
    };
    let here = text(folder.path());
    let simulate = write(
        "simulate.yaml",
        "{field: {kind: navier_stokes, size: 16}, sensors: 2, frames: 160, seed: 4}",
    );
    for place in [&here, &url] {
        run(&["simulate", &simulate, &format!("{place}/flow.zarr")]);
    }
    assert_eq!(store(&objects.join("flow.zarr")), store(&at("flow.zarr")));

    let train = |name: &str, place: &str| {
        let words = format!(
            "{{data: [{{path: '{place}/flow.zarr'}}], out: '{here}/{name}', steps: 4, batch: 2, \
             validate_every: 2, validate_windows: 2, split: {{train: 0.6, validation: 0.4}}, model: \
             {{boundary: periodic, history: 3, horizon: 2, hidden: 16, latent: 4, skip: 8, \
             decoder: 8, codes: 16}}}}"
        );
        run(&["train", &write(&format!("{name}.yaml"), &words)]);
        let weights = Checkpoint::load(&at(name).join("last.safetensors")).unwrap().weights;
        let plain = |(name, tensor): (String, candle_core::Tensor)| {
            (name, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        weights.into_iter().map(plain).collect::<Vec<_>>()
    };
    assert!(train("near", &here) == train("far", &url), "other weights");

    let job = |name: &str, place: &str| {
        write(
            name,
            &format!(
                "sources: [{{type: zarr, path: '{place}/flow.zarr'}}]\n\
                 model: {{checkpoint: '{here}/near/last.safetensors'}}\n\
                 sinks: [{{type: zarr, path: '{place}/out/{{sensor}}.zarr', products: [advection]}}]\n\
                 rejects: {{path: '{here}/rejects-{name}'}}\n"
            ),
        )
    };
    run(&["run", &job("near.yaml", &here)]);
    let far = job("far.yaml", &url);
    // Killed twice on its way, the lease and half a commit left behind.
    let stored = || files(&objects.join("out")).len();
    let mut before = 0;
    for _ in 0..2 {
        let mut child = start(&["run", &far]);
        let begun = Instant::now();
        while stored() < before + 100 && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stores nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        before = stored();
    }
    run(&["run", &far]);
    let whole = store(&at("out/flow_0000.zarr"));
    assert!(whole.len() > 2 * 150, "{} files", whole.len());
    for sensor in ["flow_0000.zarr", "flow_0001.zarr"] {
        let (there, here) =
            (store(&objects.join("out").join(sensor)), store(&at("out").join(sensor)));
        let names =
            |all: &[(PathBuf, Vec<u8>)]| all.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&there), names(&here), "{sensor}");
        let differ: Vec<_> =
            there.iter().zip(&here).filter(|(a, b)| a != b).map(|(a, _)| &a.0).collect();
        assert!(differ.is_empty(), "{sensor}: {differ:?}");
    }
    let leases =
        files(&objects).into_iter().filter(|path| path.extension().is_some_and(|e| e == "lease"));
    assert_eq!(leases.count(), 0, "given back");

    let evaluate = |place: &str| {
        let json = text(&at("scores.json"));
        let checkpoint = format!("{here}/near/last.safetensors");
        let store = format!("{place}/flow.zarr");
        run(&["evaluate", "--zarr", &store, "--checkpoint", &checkpoint, "--json", &json]);
        std::fs::read_to_string(json).unwrap()
    };
    assert_eq!(evaluate(&url), evaluate(&here));
}
