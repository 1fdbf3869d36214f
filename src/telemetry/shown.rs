//! A watched sensor as bytes: a forecast, what it came from, and what then came.
//!
//! ```text
//! u32 length of the header │ header, JSON, padded to four bytes │ f32 values, little-endian
//! ```
//!
//! The header's `arrays` say what the values are: name, shape `[plane, y, x]` and place, counted in
//! values. Missing values are NaN.

use std::collections::BTreeMap;

use physicnet_operators::scoring::Span;
use physicnet_stream::{SensorId, Time, format_time};
use serde_json::{Map, Value, json};

use super::job::{Job, Telemetry};
use super::state::{recent, scores};
use super::view::{Field, Kept, MOST, Made};

/// Which forecast is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest one whose every lead has been observed; before there is one, the oldest.
    Verified,
    /// The newest one.
    Newest,
    /// The one of this reference time, if it is still kept.
    At(Time),
}

/// What is to be seen of a watched sensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// Its fields.
    Bytes(Vec<u8>),
    /// Nothing has changed since the version that was seen.
    Same,
    /// So many others are being watched, and no more may be.
    Full(usize),
}

impl Telemetry {
    /// Whether there is a sensor of this name, and so many channels and one.
    pub fn has(&self, sensor: &SensorId, channel: usize) -> bool {
        let job = self.0.as_ref();
        job.is_some_and(|job| job.sensors.has(sensor) && channel < job.about.variables.len())
    }

    /// A channel of a sensor, which is watched from now on, unless others are in its place.
    pub fn show(
        &self,
        sensor: &SensorId,
        channel: usize,
        choice: Choice,
        seen: Option<u64>,
    ) -> Shown {
        let watched =
            self.0.as_ref().and_then(|job| Some((job, job.views.watch(sensor, channel)?)));
        let Some((job, view)) = watched else { return Shown::Full(MOST) };
        match view.read() {
            kept if seen == Some(kept.version) => Shown::Same,
            kept => Shown::Bytes(encode(job, sensor, channel, choice, &kept)),
        }
    }
}

fn encode(job: &Job, sensor: &SensorId, channel: usize, choice: Choice, kept: &Kept) -> Vec<u8> {
    let mut arrays = Arrays::default();
    let made: Vec<Value> = kept
        .made
        .iter()
        .map(|(_, made)| {
            let observed = truth(kept, made).iter().flatten().count();
            json!({"reference_time": format_time(made.reference_time),
                   "reference": made.reference_time.to_string(), "revision": made.revision,
                   "observed": observed})
        })
        .collect();
    let chosen = choose(kept, choice);
    if let Some(made) = chosen {
        arrays.push("forecast", &made.fields);
        let [leads, rows, columns] = made.fields.shape;
        let mut seen = Vec::with_capacity(leads * rows * columns);
        for field in truth(kept, made) {
            match field.filter(|field| field.shape == [1, rows, columns]) {
                Some(field) => seen.extend_from_slice(&field.values),
                None => seen.resize(seen.len() + rows * columns, f32::NAN),
            }
        }
        arrays.push("truth", &Field { shape: [leads, rows, columns], values: seen.into() });
    }
    let until = chosen.map_or(Time::MAX, |made| made.reference_time);
    let past: Vec<_> = kept.frames.iter().filter(|(at, _)| *at <= until).collect();
    let past = &past[past.len().saturating_sub(job.about.history)..];
    for (_, field) in past {
        arrays.push("past", field);
    }
    let at_reference = |(at, _): &&(Time, Field)| *at == until;
    if let Some((_, flow)) = kept.flows.iter().find(at_reference) {
        arrays.push("flow", flow);
    }
    let newest = past.last().map(|(at, _)| *at);
    if let Some((_, codes)) = kept.codes.iter().find(|(at, _)| Some(*at) == newest) {
        let values = codes.codes.iter().map(|&code| code as f32).collect();
        let [rows, columns] = codes.shape;
        arrays.push("codes", &Field { shape: [1, rows, columns], values });
    }
    let about = job.sensors.about(sensor);
    let (variable, units) = job.about.variables.get(channel).cloned().unwrap_or_default();
    let size = about.as_ref().map(|about| about.grid.shape());
    let header = json!({
        "version": kept.version,
        "sensor": sensor,
        "channel": channel,
        "variable": variable,
        "units": units,
        "size": size,
        "cadence_seconds": about.map(|about| about.cadence.nanoseconds() as f64 / 1e9),
        "forecasts": made,
        "chosen": chosen.map(about_made),
        "past_times": past.iter().map(|(at, _)| format_time(*at)).collect::<Vec<_>>(),
        "codes": job.about.codes,
        "usage": usage(kept),
        "skill": scores(job, Some(sensor), Span::All),
        "recent": recent(job, Some(sensor)),
        "arrays": arrays.told,
    });
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(4), b' ');
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes.extend(arrays.values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn about_made(made: &Made) -> Value {
    let leads = 1..=made.fields.shape[0] as i64;
    let valid = leads.map(|lead| format_time(made.cadence.after(made.reference_time, lead)));
    json!({"reference_time": format_time(made.reference_time), "revision": made.revision,
           "reference": made.reference_time.to_string(), "model": made.model,
           "missing": made.missing, "valid_times": valid.collect::<Vec<_>>()})
}

fn choose(kept: &Kept, choice: Choice) -> Option<&Made> {
    let whole = |made: &&Made| truth(kept, made).iter().all(Option::is_some);
    // Of one whose newest frame was not kept, made before anybody looked, half would be blank.
    let begun = kept.frames.front().map_or(Time::MAX, |(at, _)| *at);
    let mut all =
        kept.made.iter().map(|(_, made)| made).filter(|made| made.reference_time >= begun);
    match choice {
        Choice::Newest => all.next_back(),
        Choice::At(at) => all.find(|made| made.reference_time == at),
        Choice::Verified => all.clone().rev().find(whole).or(all.next()),
    }
}

/// What came at each lead.
fn truth<'a>(kept: &'a Kept, made: &Made) -> Vec<Option<&'a Field>> {
    let mut by_lead = BTreeMap::new();
    for (at, field) in &kept.frames {
        by_lead.insert(made.cadence.steps(made.reference_time, *at), field);
    }
    (1..=made.fields.shape[0] as i64).map(|lead| by_lead.get(&lead).copied()).collect()
}

/// How often each code stands in the maps that are kept.
fn usage(kept: &Kept) -> BTreeMap<u32, u64> {
    let mut usage = BTreeMap::new();
    for code in kept.codes.iter().flat_map(|(_, codes)| codes.codes.iter()) {
        *usage.entry(*code).or_default() += 1;
    }
    usage
}

/// Values one behind the other, and what they are.
#[derive(Default)]
struct Arrays {
    told: Vec<Map<String, Value>>,
    values: Vec<f32>,
}

impl Arrays {
    fn push(&mut self, name: &str, field: &Field) {
        let told = json!({"name": name, "shape": field.shape, "at": self.values.len()});
        self.told.extend(told.as_object().cloned());
        self.values.extend_from_slice(&field.values);
    }
}
