//! A running job, watched: what it says of itself is what it does.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use physicnet::telemetry::METRICS;
use serde_json::{Value, json};

use crate::house::{differences, job, physicnet, run, site};
use crate::monitoring::promtool;

pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// A job whose dashboard answers; killed when it is dropped.
pub(crate) struct Watched {
    child: Child,
    pub(crate) host: String,
}

impl Watched {
    /// Starts the job of this file.
    pub(crate) fn start(job: &Path) -> Self {
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

    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) = self.ask(path, &format!("Authorization: Bearer {TOKEN}\r\n"));
        (status, body)
    }

    pub(crate) fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path);
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.text("/api/state")).unwrap()
    }

    /// Waits until the state is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
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
