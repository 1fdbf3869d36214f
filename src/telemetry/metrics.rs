//! The job in Prometheus' text format: base units, `_total` for what only grows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use physicnet_operators::scoring::{Categorical, Fss, Metrics, Scores, Span};
use physicnet_stream::Serving;

use super::events::Kind;
use super::histogram::Tally;
use super::job::{Job, Telemetry};
use super::skill::{Skill, skill};

/// Every metric: its name, its type and what it tells. `docs/watching.md` shows the same table.
pub const METRICS: [(&str, &str, &str); 53] = [
    (
        "physicnet_build_info",
        "gauge",
        "1; the version of the program, the job and the model as labels",
    ),
    ("physicnet_start_timestamp_seconds", "gauge", "When the job began, seconds since 1970"),
    ("physicnet_ready", "gauge", "1 if /readyz says so, else 0"),
    ("physicnet_workers", "gauge", "Worker threads of this process"),
    ("physicnet_frames_consumed_total", "counter", "Frames read by the sources"),
    (
        "physicnet_consumer_lag_messages",
        "gauge",
        "Messages of a partition of Kafka that were not read when its broker was last asked, every five seconds",
    ),
    ("physicnet_frames_admitted_total", "counter", "Frames admitted to windows"),
    ("physicnet_frames_filled_total", "counter", "Frames made up for gaps"),
    (
        "physicnet_windows_restarted_total",
        "counter",
        "Windows begun anew after a gap too long to fill",
    ),
    ("physicnet_frames_rejected_total", "counter", "Frames not used, by reason"),
    ("physicnet_forecasts_total", "counter", "Forecasts made"),
    ("physicnet_forecast_revisions_total", "counter", "Of those, forecasts issued again"),
    (
        "physicnet_forecasts_served_total",
        "counter",
        "Forecasts by what they are: the network's field, a blend, or a baseline in its place",
    ),
    (
        "physicnet_forecast_latency_seconds",
        "histogram",
        "From a frame read to its forecast made, within this process",
    ),
    (
        "physicnet_epochs_in_flight",
        "gauge",
        "How many epochs the newest frame is ahead of what is durable",
    ),
    ("physicnet_epochs_in_flight_limit", "gauge", "How many it may be"),
    ("physicnet_stage_records_total", "counter", "What came into a stage, by worker"),
    ("physicnet_stage_busy_seconds_total", "counter", "Time spent in a stage, by worker"),
    (
        "physicnet_stage_duration_seconds",
        "histogram",
        "Time a stage takes for what has arrived at once, known when more arrives",
    ),
    ("physicnet_stage_batch_records", "histogram", "How much has arrived at once"),
    ("physicnet_sensor_frames_total", "counter", "Frames of a sensor that were judged"),
    ("physicnet_sensor_rejected_total", "counter", "Frames of a sensor not used"),
    (
        "physicnet_sensor_late_total",
        "counter",
        "Frames of a sensor that came after a newer one, used or not",
    ),
    ("physicnet_sensor_filled_total", "counter", "Frames of a sensor made up for gaps"),
    (
        "physicnet_sensor_missing_pixels_ratio",
        "gauge",
        "Share of missing pixels among the frames of a sensor that drift is taken over",
    ),
    (
        "physicnet_last_frame_timestamp_seconds",
        "gauge",
        "When the newest frame of a sensor was judged",
    ),
    (
        "physicnet_last_valid_timestamp_seconds",
        "gauge",
        "The valid time of the newest frame of a sensor",
    ),
    (
        "physicnet_last_forecast_timestamp_seconds",
        "gauge",
        "When the newest forecast of a sensor was made",
    ),
    (
        "physicnet_code_drift",
        "gauge",
        "How far the codes of a sensor have moved from those of the training data, 0 to 1",
    ),
    ("physicnet_code_drift_limit", "gauge", "The drift of a sensor that is alarming"),
    (
        "physicnet_code_drift_window_ratio",
        "gauge",
        "How much of the window that this is taken over there is: below 1 since a start, it is warming",
    ),
    ("physicnet_sensor_serving", "gauge", "1; what the newest forecast of a sensor is, as a label"),
    (
        "physicnet_sensor_gate_closed_total",
        "counter",
        "How often a baseline took the network's place for a sensor",
    ),
    (
        "physicnet_forecast_rmse",
        "gauge",
        "Root mean squared error by variable, product and lead, in the variable's units",
    ),
    ("physicnet_forecast_mae", "gauge", "Mean absolute error, likewise"),
    ("physicnet_forecast_bias", "gauge", "Mean error, forecast minus observation, likewise"),
    ("physicnet_forecast_correlation", "gauge", "Pearson correlation over all pixels, likewise"),
    ("physicnet_forecast_relative_l2", "gauge", "Mean relative error in the 2-norm, likewise"),
    (
        "physicnet_forecast_coverage_ratio",
        "gauge",
        "Share of observed pixels that had a forecast, likewise",
    ),
    ("physicnet_forecast_ssim", "gauge", "Mean structural similarity, likewise"),
    (
        "physicnet_forecast_fss",
        "gauge",
        "Fractions skill score, likewise, and by threshold and scale in pixels",
    ),
    (
        "physicnet_forecast_csi",
        "gauge",
        "Critical success index of values above a threshold, likewise, and by threshold",
    ),
    ("physicnet_forecast_pod", "gauge", "Probability of detection, by the same"),
    ("physicnet_forecast_far", "gauge", "False alarm ratio, by the same"),
    ("physicnet_forecast_frequency_bias", "gauge", "Frequency bias, by the same"),
    ("physicnet_forecast_pairs", "gauge", "Pairs of forecast and observation that these come from"),
    (
        "physicnet_forecast_recent_rmse",
        "gauge",
        "The RMSE over the last hour and the last day of valid times, by span",
    ),
    ("physicnet_forecast_recent_pairs", "gauge", "Pairs that this comes from, by span"),
    ("physicnet_events_total", "counter", "What was told to those who watch, by kind"),
    (
        "physicnet_samples_dropped_total",
        "counter",
        "Fields and events not kept for those who watch, so as not to wait",
    ),
    ("process_resident_memory_bytes", "gauge", "Memory of the process"),
    ("process_peak_resident_memory_bytes", "gauge", "The most memory that the process has had"),
    ("process_cpu_seconds_total", "counter", "Processor time of the process"),
];

impl Telemetry {
    /// All metrics, as Prometheus scrapes them.
    pub fn metrics(&self) -> String {
        let Some(job) = &self.0 else { return String::new() };
        let mut text = String::new();
        let ready = self.unready().is_empty();
        let [hour, day, all] = Span::ALL.map(|span| skill(&job.totals, None, span));
        for (name, kind, help) in METRICS {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let mut page = Page { text: &mut text, name };
            match name.strip_prefix("physicnet_forecast_").and_then(score) {
                None => samples(job, name, ready, &mut page),
                Some(score) if name.contains("_recent_") => {
                    scores(job, &hour, &[("span", "hour")], score, &mut page);
                    scores(job, &day, &[("span", "day")], score, &mut page);
                }
                Some(score) => scores(job, &all, &[], score, &mut page),
            }
        }
        text
    }
}

/// The samples of one metric.
fn samples(job: &Job, name: &str, ready: bool, page: &mut Page<'_>) {
    let (about, counts) = (&job.about, &job.counts);
    match name {
        "physicnet_build_info" => {
            let labels = [
                ("version", env!("CARGO_PKG_VERSION")),
                ("job", &about.name),
                ("model", &job.serving()),
            ];
            page.sample(&labels, 1.0);
        }
        "physicnet_start_timestamp_seconds" => page.sample(&[], job.started as f64 / 1e3),
        "physicnet_ready" => page.sample(&[], f64::from(u8::from(ready))),
        "physicnet_workers" => page.sample(&[], about.workers as f64),
        "physicnet_frames_consumed_total" => page.sample(&[], counts.frames() as f64),
        "physicnet_consumer_lag_messages" => {
            for ((topic, partition), messages) in job.lag() {
                let labels = [("topic", &*topic), ("partition", &*partition.to_string())];
                page.sample(&labels, messages as f64);
            }
        }
        "physicnet_frames_admitted_total" => page.sample(&[], counts.admitted_frames() as f64),
        "physicnet_frames_filled_total" => page.sample(&[], counts.filled() as f64),
        "physicnet_windows_restarted_total" => page.sample(&[], counts.parted() as f64),
        "physicnet_frames_rejected_total" => {
            for (reason, count) in counts.rejects() {
                page.sample(&[("reason", reason)], count as f64);
            }
        }
        "physicnet_forecasts_total" => page.sample(&[], counts.forecasts() as f64),
        "physicnet_forecast_revisions_total" => {
            page.sample(&[], job.revisions.load(Relaxed) as f64);
        }
        "physicnet_forecasts_served_total" => {
            for (serving, count) in Serving::ALL.iter().zip(&job.served) {
                page.sample(&[("serving", serving.label())], count.load(Relaxed) as f64);
            }
        }
        "physicnet_sensor_serving" => {
            for (id, state) in job.sensors.all() {
                if let Some(serving) = state.serving() {
                    let labels = [("sensor", id.as_str()), ("serving", serving.label())];
                    page.sample(&labels, 1.0);
                }
            }
        }
        "physicnet_forecast_latency_seconds" => page.histogram(&[], &job.latency.read()),
        "physicnet_epochs_in_flight" => page.sample(&[], job.health.in_flight() as f64),
        "physicnet_epochs_in_flight_limit" => page.sample(&[], about.in_flight as f64),
        "physicnet_samples_dropped_total" => {
            let dropped = job.views.dropped.load(Relaxed) + job.events.dropped();
            page.sample(&[], dropped as f64);
        }
        "physicnet_events_total" => {
            for kind in Kind::ALL {
                page.sample(&[("kind", kind.label())], job.events.count(kind) as f64);
            }
        }
        _ if name.starts_with("physicnet_stage_") => stages(job, name, page),
        _ if name.starts_with("process_") => process(name, page),
        _ => sensors(job, name, page),
    }
}

fn stages(job: &Job, name: &str, page: &mut Page<'_>) {
    let mut all = BTreeMap::<String, Tally>::new();
    for ((worker, stage), done) in job.rooms.read() {
        let worker = worker.to_string();
        let labels = [("stage", stage.as_str()), ("worker", worker.as_str())];
        match name {
            "physicnet_stage_records_total" => page.sample(&labels, done.records as f64),
            "physicnet_stage_busy_seconds_total" => page.sample(&labels, done.busy),
            "physicnet_stage_duration_seconds" => {
                all.entry(stage).or_default().add(&done.seconds);
            }
            _ => all.entry(stage).or_default().add(&done.batch),
        }
    }
    for (stage, tally) in all {
        page.histogram(&[("stage", &stage)], &tally);
    }
}

fn sensors(job: &Job, name: &str, page: &mut Page<'_>) {
    for (id, state) in job.sensors.all() {
        let labels = [("sensor", id.as_str())];
        let at = |at: u64| (at > 0).then_some(at as f64 / 1e3);
        let (frames, forecast_at) = (state.frames.load(Relaxed), state.forecast_at.load(Relaxed));
        let rejected = state.rejected.load(Relaxed);
        let valid_time = state.valid_time.load(Relaxed) as f64 / 1e9;
        let value = match name {
            "physicnet_sensor_frames_total" => Some(frames as f64),
            "physicnet_sensor_rejected_total" => Some(rejected as f64),
            "physicnet_sensor_late_total" => Some(state.late.load(Relaxed) as f64),
            "physicnet_sensor_filled_total" => Some(state.missing.load(Relaxed) as f64),
            "physicnet_sensor_gate_closed_total" => Some(state.gate_closed.load(Relaxed) as f64),
            "physicnet_sensor_missing_pixels_ratio" => state.missing_pixels.get(),
            "physicnet_last_frame_timestamp_seconds" => at(state.frame_at.load(Relaxed)),
            "physicnet_last_valid_timestamp_seconds" => (frames > rejected).then_some(valid_time),
            "physicnet_last_forecast_timestamp_seconds" => at(forecast_at),
            "physicnet_code_drift_limit" => state.drift_limit.get(),
            "physicnet_code_drift_window_ratio" => {
                let usage = state.usage().filter(|(_, window)| *window > 0);
                usage.map(|(frames, window)| f64::from(frames) / f64::from(window))
            }
            _ => state.drift.get(),
        };
        if let Some(value) = value {
            page.sample(&labels, value);
        }
    }
}

/// What there is to say of the scores of one lead: labels beside its own, and values.
type Told = Vec<(Vec<(&'static str, String)>, f64)>;

/// What the score in the name of a metric says, of those that were asked for.
fn score(name: &str) -> Option<fn(&Scores, &Metrics) -> Told> {
    let score: fn(&Scores, &Metrics) -> Told = match name {
        "rmse" | "recent_rmse" => |scores, _| one(scores.rmse),
        "mae" => |scores, _| one(scores.mae),
        "bias" => |scores, _| one(scores.bias),
        "correlation" => |scores, _| one(scores.corr),
        "relative_l2" => |scores, _| one(scores.rel_l2),
        "coverage_ratio" => |scores, _| one(scores.coverage),
        "pairs" | "recent_pairs" => |scores, _| one(scores.pairs as f64),
        "ssim" => |scores, asked| asked.ssim.iter().flat_map(|_| one(scores.ssim)).collect(),
        "csi" => |scores, asked| above(scores, asked, |table| table.csi),
        "pod" => |scores, asked| above(scores, asked, |table| table.pod),
        "far" => |scores, asked| above(scores, asked, |table| table.far),
        "frequency_bias" => |scores, asked| above(scores, asked, |table| table.fbias),
        "fss" => |scores, asked| {
            let of = |(Fss { threshold, scale }, value): (&Fss, &f64)| {
                let labels = [("threshold", threshold.to_string()), ("scale", scale.to_string())];
                (labels.into(), *value)
            };
            asked.fss.iter().zip(&scores.fss).map(of).collect()
        },
        _ => return None,
    };
    Some(score)
}

/// A score that stands alone.
fn one(value: f64) -> Told {
    vec![(Vec::new(), value)]
}

/// A score of values above each threshold.
fn above(scores: &Scores, asked: &Metrics, value: fn(&Categorical) -> f64) -> Told {
    let all = asked.thresholds.iter().zip(&scores.categorical);
    all.map(|(above, table)| (vec![("threshold", above.to_string())], value(table))).collect()
}

fn scores(
    job: &Job,
    skill: &[Skill],
    labels: &[(&str, &str)],
    score: fn(&Scores, &Metrics) -> Told,
    page: &mut Page<'_>,
) {
    let usual = Metrics::default();
    for of in skill {
        let variable = job.about.variables.get(of.channel);
        let variable = variable.map_or_else(|| of.channel.to_string(), |v| v.0.clone());
        let asked = job.about.scoring.iter().flatten().nth(of.channel).unwrap_or(&usual);
        for (product, leads) in &of.products {
            for (lead, scores) in (1..).zip(leads) {
                let lead = lead.to_string();
                let own = [("variable", &*variable), ("product", product), ("lead", &*lead)];
                for (more, value) in scores.iter().flat_map(|scores| score(scores, asked)) {
                    let more: Vec<_> = more.iter().map(|(name, of)| (*name, &**of)).collect();
                    page.sample(&[labels, &own, &more].concat(), value);
                }
            }
        }
    }
}

/// Linux tells these of every process; elsewhere they are absent.
fn process(name: &str, page: &mut Page<'_>) {
    let value = match name {
        "process_resident_memory_bytes" => memory("VmRSS:"),
        "process_peak_resident_memory_bytes" => memory("VmHWM:"),
        _ => {
            // Fields 14 and 15, in hundredths of a second; the second is a name that may hold blanks.
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
            let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11));
            let ticks = fields.map(|fields| fields.take(2).filter_map(|f| f.parse::<f64>().ok()));
            ticks.map(|ticks| ticks.sum::<f64>() / 100.0)
        }
    };
    if let Some(value) = value {
        page.sample(&[], value);
    }
}

/// The bytes of memory that a line of Linux's status of this process tells.
pub(crate) fn memory(line: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let told = status.lines().find_map(|all| all.strip_prefix(line))?;
    let kibibytes: f64 = told.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Where the samples of a metric are written.
struct Page<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Page<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    fn histogram(&mut self, labels: &[(&str, &str)], tally: &Tally) {
        let mut so_far = 0;
        let bounds = tally.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&tally.counts) {
            so_far += count;
            let labels = [labels, &[("le", &*bound)]].concat();
            self.line("_bucket", &labels, so_far as f64);
        }
        self.line("_sum", labels, tally.sum);
        self.line("_count", labels, so_far as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let escape =
            |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.name);
    }
}
