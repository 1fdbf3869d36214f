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
use super::skill::{Skill, lately, skill};

/// How many sensors are told of at once; the rest is counted.
const SENSORS: usize = 500;

/// The scores as JSON, a list by channel.
pub(super) fn scores(job: &Job, sensor: Option<&SensorId>, span: Span) -> Value {
    skill(&job.totals, sensor, span).iter().map(|skill| skill.json(job)).collect()
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
        let [hour, day, whole] = Span::ALL.map(|span| skill(&job.totals, None, span));
        let told = |skill: &[Skill]| skill.iter().map(|skill| skill.json(job)).collect::<Value>();
        let count = |kind| job.events.count(kind);
        let about = About { model: self.model(), ..job.about.clone() };
        json!({
            "job": about,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": job.begun.elapsed().as_secs_f64(),
            "ready": unready.is_empty(),
            "unready": unready,
            "alive": self.dead().is_empty(),
            "in_flight": job.health.in_flight(),
            "frames": job.counts.frames(),
            "filled": job.counts.filled(),
            "forecasts": job.counts.forecasts(),
            "rejects": job.counts.rejects(),
            "late": all.iter().map(|(_, state)| state.late.load(Relaxed)).sum::<u64>(),
            "lag": job.lag().into_values().reduce(|all, of| all + of),
            "rates": job.rates.read(),
            "edges": job.rooms.edges(),
            "standings": standings,
            "sensor_count": all.len(),
            "watched": job.views.last(),
            "sensors": sensors,
            "skill": told(&whole),
            "recent": {"hour": told(&hour), "day": told(&day)},
            "lately": lately(&day, &whole),
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
        "missing_pixels": state.missing_pixels.get(),
        "drift": state.drift.get(),
        "drift_limit": state.drift_limit.get(),
        "drifted": state.drifted.load(Relaxed),
        "drift_window": state.usage().map(|(frames, window)| json!({"frames": frames, "of": window})),
        "serving": state.serving(),
        "gate_closed": state.gate_closed.load(Relaxed),
        "thumb": thumb,
    })
}
