//! What a dashboard shows is what the job knows: live scores beside an evaluation's, the page in a browser.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use physicnet_stream::Frame;
use serde_json::{Value, json};

use crate::house::{browser, checkpoint, run, store};
use crate::revisions::{self, site_of, version};
use crate::watching::{TOKEN, Watched};

/// Steps that the page's sensors see: more than an hour.
const STEPS: u64 = 72;

/// A quarter of the pixels is missing, others in every frame.
fn holed(step: u64, sensor: usize, of: u64) -> Frame {
    let mut frame = version(step, sensor, of);
    let holes = frame.data.iter_mut().skip((step % 4) as usize).step_by(4);
    holes.for_each(|pixel| *pixel = f32::NAN);
    frame
}

/// The job over a site that takes every score.
fn scored(folder: &Path, model: &Path, more: &str) -> PathBuf {
    let scores = "scoring: {thresholds: [0.1, 0.5], ssim: true, data_range: [-1, 1], \
                  fss: [{threshold: 0.1, scale: 3}, {threshold: 0.5, scale: 5}]}";
    let file = revisions::job(folder, model, "out", "hold", more);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| if line.starts_with("scoring:") { scores } else { line });
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    file.into()
}

/// The same with a dashboard, which reads at `rate` and then waits for more.
fn scored_live(folder: &Path, model: &Path, token: &Path, rate: u32) -> PathBuf {
    let listen = format!("{{listen: '127.0.0.1:0', token_file: '{}'}}", token.display());
    let rejects = format!("rejects: {{path: '{}/rejects', fsync: false}}", folder.display());
    let file = scored(folder, model, &format!("workers: 2\n{rejects}\ndashboard: {listen}"));
    let text = std::fs::read_to_string(&file).unwrap();
    let live = format!("cadence: 60s, follow: true, rate: {rate}}}");
    std::fs::write(&file, text.replace("cadence: 60s}", &live)).unwrap();
    file
}

#[test]
fn late_and_corrected_frames_are_seen_and_every_live_score_is_an_evaluations() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = at.join("model.safetensors");
    checkpoint(&model);
    let (ordered, shuffled) = (at.join("ordered"), at.join("shuffled"));
    site_of(&ordered, 44, None, holed);
    let coming = site_of(&shuffled, 44, Some(5), holed);
    let token = at.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let job = scored_live(&shuffled, &model, &token, 60);
    let watched = Watched::start(&job);
    let all: usize = coming.iter().map(Vec::len).sum();
    let state = watched.until("all read", |s| s["frames"] == all && s["in_flight"] == 0);

    let json = at.join("evaluation.json");
    let whole = scored(&ordered, &model, "");
    run(&["evaluate", whole.to_str().unwrap(), "--json", json.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    for product in ["physicnet", "persistence", "advection"] {
        let leads = report["variables"][0]["products"][product]["leads"].as_array().unwrap();
        assert_eq!(leads.len(), 2);
        for (lead, row) in leads.iter().enumerate() {
            let found: BTreeMap<&String, &Value> =
                row.as_object().unwrap().iter().filter(|(name, _)| *name != "lead").collect();
            assert!(found.len() == 19 && found.values().all(|x| x.is_number()), "{found:?}");
            for (name, value) in found {
                let live = match name.as_str() {
                    "pairs" => &state["skill"][0]["pairs"][lead],
                    name => &state["skill"][0]["scores"][name][product][lead],
                };
                assert_eq!(live.as_f64(), value.as_f64(), "{product} +{lead}: {name}");
            }
        }
    }

    // Frames that came after newer ones were used, and are late all the same.
    let metrics = watched.text("/metrics");
    let url = format!("http://{}", watched.host);
    let top = run(&["top", "--url", &url, "--token-file", token.to_str().unwrap()]);
    let top = String::from_utf8(top.stdout).unwrap();
    let mut late = 0;
    for (sensor, steps) in coming.iter().enumerate() {
        let after = |(at, step): (usize, &u64)| steps[..at].iter().any(|before| before > step);
        let own = steps.iter().enumerate().filter(|told| after(*told)).count();
        assert!(own > 5, "s{sensor}: {steps:?}");
        late += own;
        let told = &state["sensors"][sensor];
        assert_eq!((&told["late"], &told["missing_pixels"]), (&json!(own), &json!(0.25)));
        for line in [
            format!("physicnet_sensor_late_total{{sensor=\"s{sensor}\"}} {own}"),
            format!("physicnet_sensor_missing_pixels_ratio{{sensor=\"s{sensor}\"}} 0.25"),
            format!("physicnet_sensor_filled_total{{sensor=\"s{sensor}\"}} {}", told["missing"]),
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
        }
        let heads = top.lines().find(|line| line.trim_start().starts_with("name")).unwrap();
        let row = top.lines().find(|line| line.trim_start().starts_with(&format!("s{sensor} ")));
        // Numbers end where their heads do.
        let cell = |head: &str| row.unwrap()[..heads.find(head).unwrap() + head.len()].to_owned();
        assert!(cell("late").ends_with(&format!(" {own}")), "{top}");
        assert!(cell("no data").ends_with(" 25.0 %"), "{top}");
    }
    assert_eq!((&state["late"], &state["rejects"]["late"]), (&json!(late), &Value::Null));
    for title in ["RMSE by lead", "CSI 0.5 by lead", "FSS 0.5 5 by lead", "SSIM by lead"] {
        assert!(top.contains(title), "{title}: {top}");
    }
}

#[test]
fn the_page_shows_the_jobs_own_numbers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(python) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let pictures = root.join("target/dashboard");
    std::fs::create_dir_all(&pictures).unwrap();
    let model = at.join("model.safetensors");
    checkpoint(&model);
    let (ordered, live) = (at.join("ordered"), at.join("live"));
    site_of(&ordered, STEPS, None, holed);
    std::fs::create_dir_all(&live).unwrap();
    for sensor in 0..revisions::SENSORS {
        let mut coming = revisions::arrivals(STEPS, sensor, Some(5));
        // One that nobody waits for any more.
        let never = (5..).find(|step| coming.iter().all(|(known, _)| known != step)).unwrap();
        coming.insert(50, (never, 0));
        let frames: Vec<Frame> =
            coming.iter().map(|(step, of)| holed(*step, sensor, *of)).collect();
        store(&live.join(format!("s{sensor}.zarr")), &frames);
    }
    let evaluation = at.join("evaluation.json");
    let whole = scored(&ordered, &model, "");
    run(&["evaluate", whole.to_str().unwrap(), "--json", evaluation.to_str().unwrap()]);
    let token = at.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let job = scored_live(&live, &model, &token, 4);
    let watched = Watched::start(&job);
    // A browser takes its time: until it looks itself, somebody else does.
    let done = AtomicBool::new(false);
    let mut look = Command::new(python);
    look.arg(root.join("tests/python/dashboard.py"));
    look.args([&format!("http://{}", watched.host), TOKEN]);
    look.args([&live, &evaluation, &pictures]);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                watched.get("/api/sensor?sensor=s0");
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let output = look.output();
        done.store(true, Relaxed);
        output.unwrap()
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
