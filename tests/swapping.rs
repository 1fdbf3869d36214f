//! Another model for a running job: asked for as a user does, seen in its stores.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use physicnet_operators::model::{Checkpoint, Expert, ModelConfig};
use serde_json::Value;

use crate::house::{bytes, job, physicnet, python, run, site, start, untrained};

const FRAMES: u64 = 90;
/// Of a sensor: windows are of three frames.
const FORECASTS: usize = FRAMES as usize - 2;

/// A site, a second model that is better than its own, and what each of them says alone.
fn models(at: &Path) {
    site(at, FRAMES);
    untrained(&at.join("better.safetensors"), Expert::Advection);
    run(&["run", job(at, "own", "").to_str().unwrap()]);
    let better = job(at, "better", "");
    let text = std::fs::read_to_string(&better).unwrap();
    std::fs::write(&better, text.replace("/model.safetensors", "/better.safetensors")).unwrap();
    run(&["run", better.to_str().unwrap()]);
}

/// The job over the site at twelve frames a second, whose model can be changed.
fn open(at: &Path, out: &str) -> PathBuf {
    let file = job(at, out, "workers: 2");
    let text = std::fs::read_to_string(&file).unwrap();
    let control = format!("safetensors', control: '{}'}}", at.join("control").display());
    let text = text.replace("safetensors'}", &control).replace(".zarr'}", ".zarr', rate: 12}");
    std::fs::write(&file, text).unwrap();
    file
}

/// The values of every forecast of a sensor, as the bytes of its chunks.
fn chunks(store: &Path) -> Vec<Vec<u8>> {
    let chunk = |k: usize| std::fs::read(store.join(format!("u/c/{k}/0/0/0"))).ok();
    (0..).map_while(chunk).collect()
}

fn written(at: &Path, out: &str) -> usize {
    (0..5).map(|k| chunks(&at.join(format!("{out}/s{k}.zarr"))).len()).sum()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn swap(arguments: &[&str]) -> Output {
    physicnet().arg("swap").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said)).concat()
}

fn ended(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// The models of a store's forecasts, as xarray reads them.
fn by(store: &Path) -> Option<Vec<String>> {
    let script = "import json, sys, xarray\n\
                  model = xarray.open_zarr(sys.argv[1]).model\n\
                  names = model.attrs['flag_meanings'].split()\n\
                  print(json.dumps([names[i] for i in model.values]))";
    let output = Command::new(python()?).args(["-c", script]).arg(store).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_running_job_changes_its_model_and_back_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    models(at);
    let file = open(at, "out");
    let (file, better) = (file.to_str().unwrap(), at.join("better.safetensors"));
    let child = start(&["run", file]);
    wait_for("forecasts", || written(at, "out") > 20);
    let other = ModelConfig { history: 4, ..Checkpoint::load(&better).unwrap().config };
    let longer = at.join("longer.safetensors");
    Checkpoint::untrained(&other).unwrap().save(&longer).unwrap();
    let refused = swap(&[file, longer.to_str().unwrap()]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("history: it forecasts from 4 frames"), "{}", said(&refused));

    let taken = swap(&[file, better.to_str().unwrap(), "--shadow-for", "25"]);
    assert!(taken.status.success(), "{}", said(&taken));
    assert!(said(&taken).contains("its squared error was 0."), "{}", said(&taken));
    let before = written(at, "out");
    wait_for("forecasts by the other model", || written(at, "out") > before + 30);
    // Its own, on trial against the better one, must lose.
    let worse = swap(&[file, at.join("model.safetensors").to_str().unwrap(), "--shadow-for", "15"]);
    assert!(!worse.status.success() && said(&worse).contains("is not taken"), "{}", said(&worse));
    let back = swap(&[file, "--back"]);
    assert!(back.status.success() && said(&back).contains("without a trial"), "{}", said(&back));
    ended(child);

    let ids = ["model", "better"]
        .map(|name| Checkpoint::load(&at.join(format!("{name}.safetensors"))).unwrap().id);
    for sensor in 0..5 {
        let [own, better, swapped] =
            ["own", "better", "out"].map(|out| chunks(&at.join(format!("{out}/s{sensor}.zarr"))));
        assert_eq!(swapped.len(), FORECASTS, "lost or doubled");
        // Every forecast is one of the two, to the byte, in three runs: own, better, own.
        let made: Vec<usize> = (0..FORECASTS)
            .map(|k| match (swapped[k] == own[k], swapped[k] == better[k]) {
                (true, false) => 0,
                (false, true) => 1,
                which => panic!("forecast {k} of sensor {sensor}: {which:?}"),
            })
            .collect();
        let runs: Vec<usize> = made.chunk_by(|a, b| a == b).map(|run| run[0]).collect();
        assert_eq!(runs, [0, 1, 0], "{made:?}");
        if let Some(models) = by(&at.join(format!("out/s{sensor}.zarr"))) {
            assert!(models.iter().map(|model| &**model).eq(made.iter().map(|k| &*ids[*k])));
        }
    }
}

#[test]
fn to_validate_a_job_writes_nothing_and_ends_no_trial() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 9);
    let file = open(at, "out");
    run(&["validate", file.to_str().unwrap()]);
    let control = at.join("control");
    assert!(!control.exists());
    // The candidate's copy, as a running job has it.
    std::fs::create_dir(&control).unwrap();
    std::fs::copy(at.join("model.safetensors"), control.join("tried.safetensors")).unwrap();
    let before = bytes(at);
    run(&["validate", file.to_str().unwrap()]);
    assert_eq!(bytes(at), before);
}

#[test]
fn a_model_that_forecasts_no_numbers_loses_its_trial() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, FRAMES);
    let file = open(at, "out");
    let file = file.to_str().unwrap();
    // Its weights are finite, and what they make of a frame is not.
    let mut wild = Checkpoint::load(&at.join("model.safetensors")).unwrap();
    for weight in wild.weights.values_mut() {
        *weight = (&*weight * 1e12).unwrap();
    }
    let path = at.join("wild.safetensors");
    wild.save(&path).unwrap();
    let child = start(&["run", file]);
    wait_for("forecasts", || written(at, "out") > 20);
    let told = swap(&[file, path.to_str().unwrap(), "--shadow-for", "50"]);
    assert!(!told.status.success(), "{}", said(&told));
    assert!(
        said(&told).contains("it has no forecast, or one beyond all bounds"),
        "{}",
        said(&told)
    );
    ended(child);
}

#[test]
fn a_job_killed_after_a_swap_goes_on_with_the_new_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    models(at);
    let file = open(at, "out");
    let file = file.to_str().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let scored = format!("{text}scoring: {{store: '{}'}}\n", at.join("scores.jsonl").display());
    std::fs::write(file, scored).unwrap();
    let mut child = start(&["run", file]);
    wait_for("forecasts", || written(at, "out") > 20);
    let taken = swap(&[file, at.join("better.safetensors").to_str().unwrap(), "--shadow-for", "0"]);
    assert!(taken.status.success(), "{}", said(&taken));
    child.kill().unwrap();
    child.wait().unwrap();
    // What was asked for may be trained over: the job has a copy.
    std::fs::remove_file(at.join("better.safetensors")).unwrap();
    ended(start(&["run", file]));
    for sensor in 0..5 {
        let [own, better, swapped] =
            ["own", "better", "out"].map(|out| chunks(&at.join(format!("{out}/s{sensor}.zarr"))));
        assert_eq!(swapped.len(), FORECASTS);
        let first = (0..FORECASTS).position(|k| swapped[k] != own[k]).unwrap();
        assert!((first..FORECASTS).all(|k| swapped[k] == better[k]), "{sensor}: {first}");
    }
    let state = std::fs::read(at.join("control/state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["last"]["outcome"], "taken", "{state}");
}
