//! What the job says of itself, as lines of text.

use std::fmt::Write as _;

use serde_json::Value;

/// Everything once, for pipes and files.
pub(super) fn snapshot(state: &Value) -> String {
    let mut text = format!("{}\n{}\n", head(state), answer(state));
    let mut table = |title: &str, rows: Vec<Vec<String>>| {
        let _ = writeln!(text, "\n{title}");
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max())
            .map(|width| width.unwrap_or(0))
            .collect();
        for row in rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
                if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "  {}", line.trim_end());
        }
    };
    table("sensors", sensors(state));
    table("stages", stages(state));
    for score in scores(state) {
        table(&title(state, score), skill(state, score));
    }
    let events = events(state);
    if !events.is_empty() {
        table("events", events);
    }
    text
}

/// Who it is and how it does.
pub(super) fn head(state: &Value) -> String {
    let number = |key: &str| state["rates"][key].as_f64();
    let ready = match state["unready"][0].as_str() {
        None => "ready".to_owned(),
        Some(why) => format!("not ready: {why}"),
    };
    format!(
        "{}  {ready}  up {}  {} frames/s  {} forecasts/s  {} of {} epochs in flight  frame to \
         forecast {}",
        state["job"]["name"].as_str().unwrap_or("?"),
        seconds(state["uptime_seconds"].as_f64()),
        short(number("frames_per_second")),
        short(number("forecasts_per_second")),
        state["in_flight"],
        state["job"]["in_flight"],
        seconds(number("latency_seconds")),
    )
}

/// Whether it is better than persistence.
pub(super) fn answer(state: &Value) -> String {
    let lately = &state["lately"][0];
    let Some(gains) = lately["gain"].as_object() else {
        return "nothing has been verified yet".to_owned();
    };
    let span = if lately["span"] == "day" { "over the last day" } else { "over all time" };
    let told = gains.iter().filter_map(|(name, gain)| {
        let gain = 100.0 * gain.as_f64()?;
        let side = if gain < 0.0 { "above" } else { "below" };
        Some(format!("{:.0} % {side} {name}", gain.abs()))
    });
    format!("RMSE {} {span}", told.collect::<Vec<_>>().join(", "))
}

/// A row for each sensor, after their heads.
pub(super) fn sensors(state: &Value) -> Vec<Vec<String>> {
    let heads = [
        "name",
        "state",
        "frames",
        "newest",
        "forecasts",
        "missing",
        "late",
        "not used",
        "drift",
        "no data",
        "serves",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for sensor in list(&state["sensors"]) {
        let count = |key: &str| sensor[key].to_string();
        rows.push(vec![
            sensor["id"].as_str().unwrap_or("?").to_owned(),
            sensor["standing"].as_str().unwrap_or("?").to_owned(),
            count("frames"),
            seconds(sensor["frame_age_seconds"].as_f64()),
            count("forecasts"),
            count("missing"),
            count("late"),
            count("rejected"),
            drift(sensor),
            sensor["missing_pixels"]
                .as_f64()
                .map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
            sensor["serving"].as_str().unwrap_or("-").to_owned(),
        ]);
    }
    rows
}

/// The drift of a sensor, or how much of the window that it is taken over there is, if the model
/// can tell it.
fn drift(sensor: &Value) -> String {
    let window = &sensor["drift_window"];
    match (sensor["drift"].as_f64(), window["frames"].as_u64(), window["of"].as_u64()) {
        (Some(drift), ..) => match sensor["drift_limit"].as_f64() {
            Some(limit) if sensor["drifted"] == true => format!("{drift:.2} > {limit:.2}"),
            _ => format!("{drift:.2}"),
        },
        (None, Some(frames), Some(of)) if frames < of => format!("{frames} of {of}"),
        _ => "-".to_owned(),
    }
}

/// A row for each stage, in the order of the dataflow, after their heads.
pub(super) fn stages(state: &Value) -> Vec<Vec<String>> {
    const ORDER: [&str; 13] = [
        "sources",
        "admission",
        "cropping",
        "encoding",
        "quantization",
        "drift",
        "windowing",
        "experts",
        "fusion",
        "learning",
        "sinks",
        "rejects",
        "scoring",
    ];
    let mut rooms: Vec<&Value> = list(&state["rates"]["rooms"]).iter().collect();
    let rank = |room: &&Value| {
        let name = room["name"].as_str();
        ORDER.iter().position(|stage| Some(*stage) == name).unwrap_or(ORDER.len())
    };
    rooms.sort_by_key(rank);
    let heads = ["name", "per s", "batch", "time", "busy"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for room in rooms {
        let busy = list(&room["busy"]).iter().filter_map(Value::as_f64);
        rows.push(vec![
            room["name"].as_str().unwrap_or("?").to_owned(),
            short(room["per_second"].as_f64()),
            short(room["batch"].as_f64()),
            seconds(room["seconds"].as_f64()),
            busy.map(|share| format!("{:.0} %", 100.0 * share)).collect::<Vec<_>>().join(" "),
        ]);
    }
    rows
}

/// The scores that are told of, those that most look for first.
pub(super) fn scores(state: &Value) -> Vec<&str> {
    const ORDER: [&str; 8] = ["rmse", "mae", "bias", "csi", "fss", "ssim", "pod", "far"];
    let all = state["skill"][0]["scores"].as_object();
    let mut all: Vec<&str> = all.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let rank = |name: &str| ORDER.iter().position(|kind| name.split('_').next() == Some(kind));
    all.retain(|name| rank(name).is_some());
    all.sort_by_key(|name| rank(name));
    all
}

/// What a score is called over its table.
pub(super) fn title(state: &Value, score: &str) -> String {
    let units = if matches!(score, "rmse" | "mae" | "bias") { unit(state) } else { String::new() };
    format!("{} by lead{units}", score.to_uppercase().replace('_', " "))
}

/// A row for each product with its `score` by lead, after their heads.
pub(super) fn skill(state: &Value, score: &str) -> Vec<Vec<String>> {
    let scores = &state["skill"][0]["scores"];
    let Some(products) = scores[score].as_object() else { return Vec::new() };
    let leads = products.values().map(|leads| list(leads).len()).max().unwrap_or(0);
    let heads = (1..=leads).map(|lead| format!("+{lead}"));
    let mut rows = vec![std::iter::once(String::new()).chain(heads).collect::<Vec<_>>()];
    let mut names: Vec<&String> = products.keys().collect();
    names.sort_by_key(|name| (*name != "physicnet", *name));
    for name in names {
        let cells = list(&products[name]).iter().map(|value| short(value.as_f64()));
        rows.push(std::iter::once(name.clone()).chain(cells).collect());
    }
    rows
}

/// The unit of the scores, if they have one.
fn unit(state: &Value) -> String {
    match state["skill"][0]["units"].as_str() {
        None | Some("" | "1") => String::new(),
        Some(units) => format!(", {units}"),
    }
}

/// A row for each event, newest first.
pub(super) fn events(state: &Value) -> Vec<Vec<String>> {
    let told = list(&state["events"]).iter().take(20).map(|event| {
        let text = event["text"].as_str().unwrap_or_default();
        let text = match event["sensor"].as_str() {
            Some(sensor) if !text.starts_with(sensor) => format!("{sensor}: {text}"),
            _ => text.to_owned(),
        };
        let at = event["time"].as_i64().unwrap_or(0).saturating_mul(1_000_000);
        let at = physicnet_stream::format_time(at);
        let kind = event["kind"].as_str().unwrap_or("?");
        vec![format!("{}  {kind:<8}  {text}", at.get(11..19).unwrap_or(&at))]
    });
    told.collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn short(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value == 0.0 || value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.*}", if value.abs() < 1.0 { 4 } else { 1 }),
    }
}

fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(s) if s < 1e-3 => format!("{:.0} us", s * 1e6),
        Some(s) if s < 1.0 => format!("{:.1} ms", s * 1e3),
        Some(s) if s < 120.0 => format!("{s:.0} s"),
        Some(s) if s < 7200.0 => format!("{:.0} min", s / 60.0),
        Some(s) => format!("{:.0} h", s / 3600.0),
    }
}
