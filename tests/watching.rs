//! A running job, watched: what it says of itself is what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use physicnet::telemetry::METRICS;
use physicnet_stream::Frame;
use serde_json::{Value, json};

use crate::house::{browser, checkpoint, differences, job, physicnet, run, site, store};
use crate::revisions::{self, site_of, version};

const TOKEN: &str = "a-token-of-the-tests";

/// A job whose dashboard answers; killed when it is dropped.
struct Watched {
    child: Child,
    host: String,
}

impl Watched {
    /// Starts the job of this file.
    fn start(job: &Path) -> Self {
        let mut command = physicnet();
        command.env("RUST_LOG", "info").arg("run").arg(job);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let host = loop {
            let Some(line) = lines.next().transpose().unwrap() else { panic!("{said:?}") };
            if let Some((_, host)) = line.split_once("the dashboard is at http://") {
                break host.trim().to_owned();
            }
            said.push(line);
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, host }
    }

    /// The status line, the headers and the body of an answer.
    fn ask(&self, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n{headers}\r\n", self.host).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) = self.ask(path, &format!("Authorization: Bearer {TOKEN}\r\n"));
        (status, body)
    }

    fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path);
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.text("/api/state")).unwrap()
    }

    /// Waits until the state is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let state = self.state();
            if wanted(&state) {
                return state;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {what}: {state}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The job over a site that reads its frames at `rate`, and then waits for more.
fn watched(folder: &Path, out: &str, rate: u32, frames: u64) -> PathBuf {
    site(folder, frames);
    let token = folder.join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let more = format!(
        "workers: 2\nscoring: {{}}\ndashboard: {{listen: '127.0.0.1:0', token_file: '{}'}}",
        token.display()
    );
    let path = job(folder, out, &more);
    let text = std::fs::read_to_string(&path).unwrap();
    let live = format!(".zarr', follow: true, rate: {rate}}}");
    std::fs::write(&path, text.replace(".zarr'}", &live)).unwrap();
    path
}

/// The evaluation of the same data, as JSON.
fn evaluated(folder: &Path) -> PathBuf {
    let whole = job(folder, "evaluated", "scoring: {}");
    let json = folder.join("evaluation.json");
    run(&["evaluate", whole.to_str().unwrap(), "--no-ssim", "--json", json.to_str().unwrap()]);
    json
}

#[test]
fn what_a_job_says_of_itself_is_what_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let frames = 30;
    let watched = Watched::start(&watched(at, "live", 20, frames));
    watched.until("ready", |state| state["ready"] == true);
    assert_eq!(watched.text("/readyz"), "ready\n");
    assert_eq!(watched.text("/healthz"), "alive\n");
    watched.get("/api/sensor?sensor=s1");
    let all = 5 * frames;
    let state = watched.until("all read", |s| s["frames"] == all && s["in_flight"] == 0);
    // Windows of three frames; each forecast but the last ones is verified at both leads.
    assert_eq!(state["forecasts"], 5 * (frames - 2));
    assert_eq!(state["skill"][0]["pairs"], json!([5 * (frames - 3), 5 * (frames - 4)]));
    assert_eq!(state["standings"]["forecasting"], 5);

    // The picture at the top of src/dataflow.rs, as timely's log tells it.
    let mut edges: Vec<String> = state["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| format!("{} {}", edge[0].as_str().unwrap(), edge[1].as_str().unwrap()))
        .collect();
    edges.sort();
    let picture = [
        "admission cropping",
        "admission rejects",
        "admission scoring",
        "cropping encoding",
        "encoding quantization",
        "experts fusion",
        "fusion scoring",
        "fusion sinks",
        "quantization drift",
        "quantization windowing",
        // Stored are forecasts behind what was rejected before them.
        "rejects sinks",
        "sources admission",
        "windowing experts",
    ];
    assert_eq!(edges, picture);

    // The live scores are those of an evaluation, to the bit.
    let report: Value = serde_json::from_slice(&std::fs::read(evaluated(at)).unwrap()).unwrap();
    for product in ["physicnet", "persistence", "advection"] {
        for lead in 0..2 {
            let found = &report["variables"][0]["products"][product]["leads"][lead]["rmse"];
            let live = &state["skill"][0]["scores"]["rmse"][product][lead];
            assert_eq!(live, found, "{product} +{lead}");
        }
    }

    // The frames are of less than an hour: the last hour and the last day are all there is.
    for span in ["hour", "day"] {
        assert_eq!(state["recent"][span], state["skill"], "{span}");
    }

    // Every metric is there, and the numbers are the same.
    let metrics = watched.text("/metrics");
    for (name, kind, _) in METRICS {
        assert!(metrics.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
    }
    for line in [
        format!("physicnet_frames_consumed_total {all}"),
        format!("physicnet_forecasts_total {}", 5 * (frames - 2)),
        "physicnet_ready 1".to_owned(),
        format!("physicnet_sensor_frames_total{{sensor=\"s3\"}} {frames}"),
        // Nothing is learnt: the network's field is served.
        format!("physicnet_forecasts_served_total{{serving=\"physicnet\"}} {}", 5 * (frames - 2)),
        "physicnet_forecasts_served_total{serving=\"blend\"} 0".to_owned(),
        "physicnet_sensor_serving{sensor=\"s3\",serving=\"physicnet\"} 1".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let sum = |name: &str, stage: &str| -> f64 {
        let begins = format!("{name}{{stage=\"{stage}\"");
        let values = metrics.lines().filter(|line| line.starts_with(&begins));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    for (stage, records) in [("admission", all), ("encoding", all), ("fusion", all - 10)] {
        assert_eq!(sum("physicnet_stage_records_total", stage), records as f64, "{stage}");
        assert_eq!(sum("physicnet_stage_batch_records_sum", stage), records as f64, "{stage}");
        assert!(sum("physicnet_stage_busy_seconds_total", stage) > 0.0, "{stage}");
    }
    if let Some(promtool) = promtool() {
        let mut check = Command::new(promtool);
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = check.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }

    // The terminal says the same, once where it is none.
    let url = format!("http://{}", watched.host);
    let token = at.join("token");
    let top = run(&["top", "--url", &url, "--token-file", token.to_str().unwrap()]);
    let shown = String::from_utf8(top.stdout).unwrap();
    let rmse = state["skill"][0]["scores"]["rmse"]["physicnet"][0].as_f64().unwrap();
    for expected in ["s4", "forecasting", "encoding", "persistence", &format!("{rmse:.4}")] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let refused = physicnet().args(["top", "--url", &url]).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("--token-file"), "{why}");
}

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
fn a_restarted_job_is_ready_once_its_windows_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Two frames of each sensor are read again, the second after a while, and then the newest, which
    // is judged anew.
    let job = watched(at, "live", 10_000, 20);
    let mut first = Watched::start(&job);
    first.until("all read", |state| state["frames"] == 100 && state["in_flight"] == 0);
    first.child.kill().unwrap();
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, text.replace("rate: 10000", "rate: 0.35")).unwrap();
    let again = Watched::start(&job);
    let begun = Instant::now();
    let mut said = BTreeSet::new();
    loop {
        let (status, body) = again.get("/readyz");
        if status == 200 {
            break;
        }
        assert_eq!(status, 503);
        said.extend(String::from_utf8(body).unwrap().lines().map(str::to_owned));
        assert!(begun.elapsed() < Duration::from_secs(60), "never ready: {said:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "ready after {:?}", begun.elapsed());
    assert_eq!(again.state()["frames"], 10);
    let filling = "sensors whose windows are being filled with what was read before: 5";
    assert!(said.contains(filling), "{said:?}");
    // And is from then on.
    for _ in 0..100 {
        assert_eq!(again.get("/readyz").0, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_who_knows_the_token_looks() {
    let folder = tempfile::tempdir().unwrap();
    let watched = Watched::start(&watched(folder.path(), "closed", 20, 5));
    for path in ["/", "/api/state", "/api/sensor?sensor=s0", "/metrics", "/app.js"] {
        assert_eq!(watched.ask(path, "").0, 401, "{path}");
        assert_eq!(watched.ask(path, "Authorization: Bearer wrong-token\r\n").0, 401, "{path}");
    }
    assert_eq!(watched.ask("/healthz", "").0, 200);
    let (status, head, _) = watched.ask(&format!("/?token={TOKEN}"), "");
    assert_eq!(status, 303, "{head}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let (status, head, page) = watched.ask("/", &format!("Cookie: {cookie}\r\n"));
    assert_eq!(status, 200);
    assert!(head.contains("default-src 'none'"), "{head}");
    // Nothing on the page comes from elsewhere.
    let page = String::from_utf8(page).unwrap();
    assert!(!page.contains("://"), "{page}");
    assert_eq!(watched.get("/api/sensor?sensor=nobody").0, 404);
    assert_eq!(watched.get("/api/sensor?sensor=s0&channel=7").0, 404);
    assert_eq!(watched.get("/api/sensor?sensor=s0&forecast=tomorrow").0, 400);
}

#[test]
fn watching_changes_no_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 20);
    let alone = job(at, "alone", "");
    run(&["run", alone.to_str().unwrap()]);
    let token = at.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let listen = format!("{{listen: '127.0.0.1:0', token_file: '{}'}}", token.display());
    let seen = job(at, "seen", &format!("workers: 2\ndashboard: {listen}"));
    let text = std::fs::read_to_string(&seen).unwrap().replace(".zarr'}", ".zarr', rate: 20}");
    std::fs::write(&seen, text).unwrap();
    let mut watched = Watched::start(&seen);
    let mut seen = 0;
    while watched.child.try_wait().unwrap().is_none() {
        // It ends while it is asked: that is no failure.
        let asked = TcpStream::connect(&watched.host).and_then(|mut stream| {
            let path = "/api/sensor?sensor=s2&forecast=newest";
            write!(stream, "GET {path} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        });
        seen += u32::from(asked.is_ok_and(|answer| answer.starts_with(b"HTTP/1.0 200")));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(watched.child.wait().unwrap().success());
    assert!(seen > 5, "it was looked at {seen} times");
    assert_eq!(differences(&at.join("alone"), &at.join("seen")), Vec::<PathBuf>::new());
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

/// Prometheus' own checker, where there is one.
fn promtool() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/promtool/usr/bin/promtool");
    let named = std::env::var_os("PROMTOOL").map_or(own, PathBuf::from);
    if named.exists() {
        return Some(named);
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|f| f.join("promtool")).find(|p| p.exists());
    if found.is_none() {
        // Not everywhere can it be had.
        eprintln!("skipped: no promtool in the PATH or named by PROMTOOL (see scripts/test)");
    }
    found
}

#[test]
fn documents_name_the_metrics_that_there_are() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    let page = read("watching.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `p")).collect();
    let wanted: Vec<String> = METRICS
        .iter()
        .map(|(name, kind, help)| format!("| `{name}` | {kind} | {help} |"))
        .collect();
    assert_eq!(rows, wanted);

    let known: BTreeSet<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
    for file in [
        "ops/prometheus-rules.yaml",
        "ops/grafana-dashboard.json",
        "ops/prometheus-rules.test.yaml",
    ] {
        let text = read(file);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let named = words.filter(|word| {
            (word.starts_with("physicnet_") || word.starts_with("process_")) && !word.contains(':')
        });
        let mut count = 0;
        for word in named {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
            assert!(known.contains(word) || known.contains(whole), "{file}: {word}");
            count += 1;
        }
        assert!(count > 5, "{file}: {count}");
    }

    // Every alert has a case in which it rings, and one in which it does not yet.
    let (rules, cases) =
        (read("ops/prometheus-rules.yaml"), read("ops/prometheus-rules.test.yaml"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 9);
    for alert in alerts {
        let told: Vec<&str> = cases.split(&format!("alertname: {alert}\n")).skip(1).collect();
        let rings = told.iter().filter(|told| told.trim_start().starts_with("exp_alerts:")).count();
        assert!(rings > 0 && rings < told.len(), "{alert} rings {rings} times of {}", told.len());
    }
}

#[test]
fn prometheus_takes_the_rules_and_every_query_of_the_dashboard() {
    let Some(promtool) = promtool() else { return };
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ops");
    let folder = tempfile::tempdir().unwrap();
    let dashboard = std::fs::read_to_string(ops.join("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = "groups:\n  - name: queries\n    rules:\n".to_owned();
    let panels = dashboard["panels"].as_array().unwrap();
    for (i, target) in panels.iter().flat_map(|p| p["targets"].as_array().unwrap()).enumerate() {
        let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        queries += &format!("      - record: query:{i}\n        expr: {}\n", Value::from(query));
    }
    let file = folder.path().join("queries.yaml");
    std::fs::write(&file, queries).unwrap();
    for arguments in [
        ["check", "rules", file.to_str().unwrap()],
        ["check", "rules", ops.join("prometheus-rules.yaml").to_str().unwrap()],
        ["test", "rules", ops.join("prometheus-rules.test.yaml").to_str().unwrap()],
    ] {
        let output = Command::new(&promtool).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}
