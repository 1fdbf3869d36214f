//! How the job does, as JSON: what the page and `physicnet top` show.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use physicnet_operators::scoring::Span;
use physicnet_stream::{SensorId, format_time};
use serde_json::{Value, json};

use super::events::{Kind, now};
use super::job::{About, Job, Telemetry};
use super::sensors::{SensorState, Standing};
use super::skill::skill;

/// How many sensors are told of at once; the rest is counted.
const SENSORS: usize = 500;

/// What is served: what everything else is held against.
const OURS: &str = "physicnet";
/// What it is held against.
const BASELINES: [&str; 3] = ["persistence", "advection", "trend"];

/// The scores of one channel, by product and lead.
pub(super) struct Gain {
    channel: usize,
    /// `(pairs, rmse)` by lead, from 1.
    products: BTreeMap<String, Vec<(i64, f64)>>,
}

/// The scores of each channel over a span: of `sensor`, or of all.
pub(super) fn gains(job: &Job, sensor: Option<&SensorId>, span: Span) -> Vec<Gain> {
    let mut gains = Vec::<Gain>::new();
    for score in skill(&job.totals, sensor, span) {
        if gains.last().is_none_or(|gain| gain.channel != score.channel) {
            gains.push(Gain { channel: score.channel, products: BTreeMap::new() });
        }
        let Some(gain) = gains.last_mut() else { continue };
        let leads = gain.products.entry(score.product.to_string()).or_default();
        leads.resize(leads.len().max(score.lead), (0, f64::NAN));
        leads[score.lead - 1] = (score.pairs, score.rmse);
    }
    gains
}

impl Gain {
    /// By how much the mean RMSE lies below that of `other`: 0.2 for a fifth less. Over the leads
    /// at which both were verified by `least` pairs.
    pub(super) fn over(&self, other: &str, least: i64) -> Option<f64> {
        let (ours, theirs) = (self.products.get(OURS)?, self.products.get(other)?);
        let enough = |((n, a), (m, b)): &(&(i64, f64), &(i64, f64))| {
            (*n).min(*m) >= least && (a + b).is_finite()
        };
        let both = ours.iter().zip(theirs).filter(enough);
        let (a, b) = both.fold((0.0, 0.0), |(a, b), (ours, theirs)| (a + ours.1, b + theirs.1));
        (b > 0.0).then(|| 1.0 - a / b)
    }

    fn json(&self, job: &Job) -> Value {
        let (variable, units) = job.about.variables.get(self.channel).cloned().unwrap_or_default();
        let rmse = |leads: &Vec<(i64, f64)>| leads.iter().map(|(_, rmse)| json!(rmse)).collect();
        let products: BTreeMap<_, Value> =
            self.products.iter().map(|(name, leads)| (name, rmse(leads))).collect();
        let pairs: Vec<i64> = self.products.get(OURS).into_iter().flatten().map(|l| l.0).collect();
        let baselines = BASELINES.into_iter().filter(|name| self.products.contains_key(*name));
        let gain: BTreeMap<_, _> = baselines.map(|name| (name, self.over(name, 1))).collect();
        json!({"channel": self.channel, "variable": variable, "units": units, "pairs": pairs,
               "rmse": products, "gain": gain})
    }
}

/// The scores as JSON, a list by channel: `rmse` by product and lead, `gain` over each product.
pub(super) fn scores(job: &Job, sensor: Option<&SensorId>, span: Span) -> Value {
    gains(job, sensor, span).iter().map(|gain| gain.json(job)).collect()
}

/// The same of the last hour and the last day.
pub(super) fn recent(job: &Job, sensor: Option<&SensorId>) -> Value {
    json!({"hour": scores(job, sensor, Span::Hour), "day": scores(job, sensor, Span::Day)})
}

impl Telemetry {
    /// How the job does.
    pub fn state(&self) -> Value {
        let Some(job) = &self.0 else { return Value::Null };
        job.views.look();
        let now = now();
        let all = job.sensors.all();
        let mut standings = BTreeMap::<_, u64>::new();
        let mut sensors = Vec::new();
        for (id, state) in &all {
            let Some(about) = job.sensors.about(id) else { continue };
            let standing = state.standing(now, &about);
            *standings
                .entry(json!(standing).as_str().unwrap_or_default().to_owned())
                .or_default() += 1;
            if sensors.len() < SENSORS {
                sensors.push(sensor(id, state, standing, now));
            }
        }
        let unready = self.unready();
        let count = |kind| job.events.count(kind);
        let about = About { model: self.model(), ..job.about.clone() };
        json!({
            "job": about,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": job.begun.elapsed().as_secs_f64(),
            "ready": unready.is_empty(),
            "unready": unready,
            "alive": job.health.dead().is_empty(),
            "in_flight": job.health.in_flight(),
            "frames": job.counts.frames(),
            "filled": job.counts.filled(),
            "forecasts": job.counts.forecasts(),
            "rejects": job.counts.rejects(),
            "rates": job.rates.read(),
            "edges": job.rooms.edges(),
            "standings": standings,
            "sensor_count": all.len(),
            "sensors": sensors,
            "skill": scores(job, None, Span::All),
            "recent": recent(job, None),
            "events": job.events.latest(),
            "event_counts": Kind::ALL.map(|kind| (kind.label(), count(kind))).into_iter().collect::<BTreeMap<_, _>>(),
        })
    }
}

fn sensor(id: &SensorId, state: &SensorState, standing: Standing, now: u64) -> Value {
    let ago = |at: u64| (at > 0).then(|| now.saturating_sub(at) as f64 / 1000.0);
    let frames = state.frames.load(Relaxed);
    let rejected = state.rejected.load(Relaxed);
    let valid_time = (frames > rejected).then(|| format_time(state.valid_time.load(Relaxed)));
    let thumb = state.thumb.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let thumb = thumb.map(|thumb| {
        let pixels: String = thumb.pixels.iter().map(|pixel| format!("{pixel:02x}")).collect();
        json!({"rows": thumb.rows, "columns": thumb.columns, "pixels": pixels})
    });
    json!({
        "id": id,
        "standing": standing,
        "frames": frames,
        "missing": state.missing.load(Relaxed),
        "rejected": rejected,
        "late": state.late.load(Relaxed),
        "forecasts": state.forecasts.load(Relaxed),
        "revisions": state.revisions.load(Relaxed),
        "frame_age_seconds": ago(state.frame_at.load(Relaxed)),
        "forecast_age_seconds": ago(state.forecast_at.load(Relaxed)),
        "valid_time": valid_time,
        "drift": state.drift(),
        "drift_window": state.usage().map(|(frames, window)| json!({"frames": frames, "of": window})),
        "serving": state.serving(),
        "thumb": thumb,
    })
}
