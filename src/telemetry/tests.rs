use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use physicnet_operators::learning::Learnt;
use physicnet_operators::scoring::{Fss, Key, Metrics, Pair, Sums, Totals};
use physicnet_stream::{
    Axis, Cadence, Catalogue, Forecast, Grid, Product, Sensor, Serving, Variable,
};
use serde_json::{Value, json};

use super::events::now;
use super::histogram::{Histogram, Tally};
use super::sensors::Standing;
use super::view::{Field, MOST, Views, put};
use super::{About, Event, Events, Kind, Sensors, Telemetry};
use crate::engine::Counts;
use crate::health::Health;

fn sensor(cadence: i64) -> Arc<Sensor> {
    let variables = vec![Variable { name: "u".into(), units: "1".into() }];
    let grid = Grid { variables, y: Axis::index("y", 4), x: Axis::index("x", 4) };
    Arc::new(Sensor { id: "a".into(), grid, cadence: Cadence::new(cadence).unwrap() })
}

#[test]
fn a_flood_of_rejects_drives_out_no_alarm() {
    let events = Events::default();
    events.publish(Kind::Alarm, Some(&"a".into()), "no frame");
    (0..1000).for_each(|i| events.publish(Kind::Reject, None, format!("{i} {}", "ü".repeat(500))));
    let latest = events.latest();
    assert_eq!((latest.len(), events.count(Kind::Reject)), (51, 1000));
    assert!(latest[0].text.starts_with("999 ") && latest[0].text.chars().count() == 301);
    let Event { number, kind, text, .. } = latest.last().unwrap();
    assert_eq!((*number, *kind, text.as_str()), (1, Kind::Alarm, "no frame"));
}

#[test]
fn nobody_waits_to_tell_an_event() {
    let events = Events::default();
    events.publish(Kind::Alarm, None, "first");
    let looking = events.looking(Kind::Reject);
    let (told, heard) = std::sync::mpsc::channel();
    let teller = events.clone();
    std::thread::spawn(move || {
        teller.publish(Kind::Reject, None, "while somebody looks");
        teller.publish(Kind::Alarm, None, "of another kind");
        told.send(()).unwrap();
    });
    heard.recv_timeout(Duration::from_secs(10)).expect("it waits for who looks");
    drop(looking);
    let texts: Vec<_> = events.latest().into_iter().map(|event| event.text).collect();
    assert_eq!(texts, ["of another kind", "first"]);
    // What is not kept is counted all the same.
    assert_eq!((events.count(Kind::Reject), events.dropped()), (1, 1));
}

#[test]
fn nobody_waits_to_tell_how_long_a_forecast_took() {
    let telemetry = listening(Totals::default());
    let state = telemetry.sensor(&"a".into()).unwrap();
    let looking = state.arrivals.lock().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let teller = telemetry.clone();
    std::thread::spawn(move || {
        teller.forecasts()(&forecast());
        told.send(()).unwrap();
    });
    heard.recv_timeout(Duration::from_secs(10)).expect("it waits for who looks");
    drop(looking);
    assert_eq!(state.forecasts.load(Relaxed), 1);
}

#[test]
fn a_frame_is_late_that_comes_after_a_newer_one() {
    let sensors = Sensors::new(Catalogue::from_iter([sensor(10)]), 0..1, 1);
    let state = sensors.get(&"a".into()).unwrap();
    let late = || (state.frames.load(Relaxed), state.late.load(Relaxed));
    // The first frame of a sensor may be of any time.
    state.used(-70, true, false);
    state.used(-60, false, false);
    assert_eq!(late(), (2, 0));
    state.used(-65, false, false);
    // The newest one corrected is not late.
    state.used(-60, false, false);
    assert_eq!(late(), (4, 1));
    state.refused(true);
    assert_eq!(late(), (5, 2));
    // Read again after a restart: it was late then.
    state.used(-65, false, true);
    assert_eq!(late(), (6, 2));
    // A clock that is set back is not late ever after.
    state.used(-900, true, false);
    state.used(-890, false, false);
    assert_eq!(late(), (8, 2));
}

/// What a job over the sensor `a` says of itself, with `totals` so far.
fn listening(totals: Totals) -> Telemetry {
    let about = About {
        name: "job".into(),
        model: "none".into(),
        variables: vec![("u".into(), "1".into())],
        history: 1,
        horizon: 2,
        codes: 0,
        trained: true,
        workers: 1,
        process: 0,
        processes: 1,
        in_flight: 1,
        scoring: Some(vec![Metrics {
            thresholds: vec![0.5],
            fss: vec![Fss { threshold: 0.5, scale: 3 }],
            ..Metrics::default()
        }]),
    };
    let catalogue = Catalogue::from_iter([sensor(1)]);
    Telemetry::listen(about, &catalogue, &Counts::default(), &totals, Vec::new())
}

/// A forecast of the sensor `a`, all 0.
fn forecast() -> Forecast {
    let cadence = Cadence::new(1).unwrap();
    let data = Arc::new(vec![0.0; 2 * 16]);
    Forecast {
        sensor: "a".into(),
        reference_time: 0,
        cadence,
        shape: [2, 1, 4, 4],
        products: vec![Product { name: "physicnet".into(), data }],
        serving: None,
        ensemble: None,
        model: "none".into(),
        candidate: false,
        revision: 0,
        missing: 0.0,
        offset: 0,
        frame_time: 0,
        replay_from: 0,
        replay: false,
        scored: false,
    }
}

/// The totals of pairs whose error is that of each product, `pairs` of them an hour apart from
/// the hour `from` on.
fn verify(totals: &Totals, from: i64, pairs: i64, errors: [(&str, f32); 2]) {
    let asked = Metrics {
        thresholds: vec![0.5],
        fss: vec![Fss { threshold: 0.5, scale: 3 }],
        ..Metrics::default()
    };
    for (hour, (product, error)) in (from..from + pairs).flat_map(|h| errors.map(|e| (h, e))) {
        let observed = [0.0, 1.0, f32::NAN, 0.0];
        let sums = Sums::of(&observed.map(|x| x + error), &observed, 2, &asked);
        let key = Key { sensor: "a".into(), product: product.into(), lead: 1, channel: 0 };
        totals.now().add(Pair { key, valid_time: hour * 3_600_000_000_000 }, &sums);
    }
}

#[test]
fn a_model_that_was_good_and_is_bad_today_is_bad() {
    let totals = Totals::default();
    let state = || listening(totals.clone()).state();
    verify(&totals, 0, 12, [("physicnet", 0.25), ("persistence", 0.5)]);
    // A day of twelve pairs is not enough to tell: it is what is known over all.
    assert_eq!(
        state()["lately"],
        json!([{"channel": 0, "span": "all", "gain": {"persistence": 0.5}}])
    );
    verify(&totals, 12, 500, [("physicnet", 0.25), ("persistence", 0.5)]);
    for _ in 0..2 {
        verify(&totals, 600, 24, [("physicnet", 0.5), ("persistence", 0.25)]);
    }
    let state = state();
    assert_eq!(
        state["lately"],
        json!([{"channel": 0, "span": "day", "gain": {"persistence": -1.0}}])
    );
    let of = |of: &Value, product: &str| of[0]["scores"]["rmse"][product][0].as_f64().unwrap();
    assert!(of(&state["skill"], "physicnet") < of(&state["skill"], "persistence"));
    assert_eq!(of(&state["recent"]["day"], "physicnet"), 0.5);
}

#[test]
fn a_gate_that_closes_is_counted() {
    let telemetry = listening(Totals::default());
    let learnt = |gate: &str| -> Learnt {
        let state = json!({"frames": 9, "blends": [], "errors": [], "gate": gate, "served": []});
        serde_json::from_value(state).unwrap()
    };
    let mut tell = Health::default().serving(&BTreeMap::new(), &telemetry);
    for gate in ["blend", "advection", "persistence", "blend", "persistence"] {
        tell(&("a".into(), learnt(gate)));
    }
    let line = "physicnet_sensor_gate_closed_total{sensor=\"a\"} 2";
    let metrics = telemetry.metrics();
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    assert_eq!(telemetry.state()["sensors"][0]["gate_closed"], 2);
}

#[test]
fn every_score_is_a_metric() {
    let totals = Totals::default();
    verify(&totals, 0, 3, [("physicnet", 0.25), ("persistence", 0.75)]);
    let metrics = listening(totals).metrics();
    for (name, labels, value) in [
        ("rmse", "", 0.25),
        ("mae", "", 0.25),
        ("bias", "", 0.25),
        ("coverage_ratio", "", 1.0),
        ("correlation", "", 1.0),
        ("pairs", "", 3.0),
        ("csi", ",threshold=\"0.5\"", 1.0),
        ("pod", ",threshold=\"0.5\"", 1.0),
        ("far", ",threshold=\"0.5\"", 0.0),
        ("frequency_bias", ",threshold=\"0.5\"", 1.0),
        ("fss", ",threshold=\"0.5\",scale=\"3\"", 1.0),
        ("relative_l2", "", 3.0_f64.sqrt() / 4.0),
    ] {
        let own = "variable=\"u\",product=\"physicnet\",lead=\"1\"";
        let begin = format!("physicnet_forecast_{name}{{{own}{labels}}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&begin));
        let found: f64 = found.unwrap_or_else(|| panic!("{begin}: {metrics}")).parse().unwrap();
        assert!((found - value).abs() < 1e-12, "{begin}: {found}");
    }
    let far = "product=\"persistence\",lead=\"1\",threshold=\"0.5\"} 0.6666666666666666";
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("physicnet_forecast_far") && line.ends_with(far))
    );
    let recent = "physicnet_forecast_recent_pairs{span=\"day\",variable=\"u\",product=\"physicnet\",lead=\"1\"} 3";
    assert!(metrics.lines().any(|line| line == recent), "{metrics}");
    // Similarity was not asked for.
    assert!(!metrics.contains("physicnet_forecast_ssim{"), "{metrics}");
}

#[test]
fn a_histogram_counts_and_is_compared_with_itself() {
    let histogram = Histogram::new(&[1.0, 10.0]);
    histogram.add(1.0);
    let before = histogram.read();
    [0.5, 3.0, 100.0].into_iter().for_each(|value| histogram.add(value));
    let all = histogram.read();
    assert_eq!((all.counts.clone(), all.sum), (vec![2, 1, 1], 104.5));
    let since = all.since(&before);
    assert_eq!((since.counts.clone(), since.count()), (vec![1, 1, 1], 3));
    assert_eq!(
        (all.quantile(0.5), all.quantile(0.7), all.quantile(1.0)),
        (Some(1.0), Some(10.0), None)
    );
    let mut sum = Tally::default();
    sum.add(&all);
    sum.add(&since);
    assert_eq!((sum.counts, Tally::default().mean()), (vec![3, 2, 2], None));
}

#[test]
fn a_sensor_is_silent_by_its_own_pace() {
    let minute = sensor(60_000_000_000);
    let sensors = Sensors::new(Catalogue::from_iter([Arc::clone(&minute)]), 0..1, 1);
    let others = Sensors::new(Catalogue::from_iter([Arc::clone(&minute)]), 1..1, 1);
    assert!(others.get(&"a".into()).is_none() && others.all().is_empty());
    let state = sensors.get(&"a".into()).unwrap();
    assert!(sensors.get(&"stranger".into()).is_none());
    let begun = now();
    assert_eq!(state.standing(begun, &minute), Standing::Waiting);
    // An old recording, replayed fast.
    state.used(0, true, false);
    assert_eq!(state.standing(now(), &minute), Standing::Filling);
    state.forecasts.store(1, Relaxed);
    assert_eq!(state.standing(now(), &minute), Standing::Forecasting);
    assert_eq!(state.standing(now() + 11_000, &minute), Standing::Silent);
    // Measured now: it has five cadences.
    state.used(now() as i64 * 1_000_000, false, false);
    assert_eq!(state.standing(now() + 240_000, &minute), Standing::Forecasting);
    assert_eq!(state.standing(now() + 301_000, &minute), Standing::Silent);
    assert_eq!(state.drift.get(), None);
    state.drift.set(Some(0.0));
    assert_eq!(state.drift.get(), Some(0.0));
    // Another network's codes are others: what was known of drift holds no longer.
    state.drift.set(None);
    state.set_usage(3, 96);
    assert_eq!((state.drift.get(), state.usage()), (None, Some((3, 96))));
    // One that does not say which codes are usual.
    state.set_usage(3, 0);
    assert_eq!(state.usage(), Some((3, 0)));
    assert_eq!(state.serving(), None);
    Serving::ALL.into_iter().for_each(|serving| {
        state.set_serving(serving);
        assert_eq!(state.serving(), Some(serving));
    });
}

#[test]
fn large_fields_are_averaged_and_missing_pixels_left_out() {
    let nan = f32::NAN;
    let plane = [1.0, 3.0, 5.0, nan, 5.0, 7.0, 9.0, nan, 1.0, 1.0, nan, nan];
    let little = Field::little(&plane, [3, 4], 2);
    assert_eq!(little.shape, [1, 2, 2]);
    assert_eq!(little.values[..3], [4.0, 7.0, 1.0]);
    assert!(little.values[3].is_nan());
    assert_eq!(Field::little(&plane[..8], [2, 2], 2).values[..3], plane[..3]);
}

#[test]
fn only_what_is_watched_is_kept_and_no_more_than_is_shown() {
    let views = Views::new(3, 2);
    let field = |value: f32| Field { shape: [1, 1, 1], values: [value].into() };
    let keep = |at: i64| {
        views.keep(&"a".into(), |_| Some(field(at as f32)), |kept, f| put(&mut kept.frames, at, f));
    };
    keep(0);
    let view = views.watch(&"a".into(), 0).unwrap();
    assert!(view.read().frames.is_empty());
    (1..100).for_each(keep);
    let kept = view.read();
    assert_eq!((kept.frames.len(), kept.frames.back().unwrap().0, kept.version), (10, 99, 99));
    // Others may be watched too, but not any number of them, and none is lost to one that comes later.
    let others = |channels: std::ops::Range<usize>| {
        channels.filter(|channel| views.watch(&"b".into(), *channel).is_some()).count()
    };
    assert_eq!(others(1..20), MOST - 1);
    keep(100);
    assert_eq!(view.read().version, 100, "it is still looked at");
    views.age(5_000);
    assert_eq!(others(1..MOST + 1), MOST);
    keep(101);
    assert_eq!(view.read().version, 100, "the longest unwatched made room");
    assert_eq!(views.dropped.load(Relaxed), 0);
}

#[test]
fn the_last_that_was_looked_at_is_kept_when_nobody_looks() {
    let views = Views::new(3, 2);
    let frames = |sensor: &str| {
        let field = Field { shape: [1, 1, 1], values: [0.0].into() };
        views.keep(&sensor.into(), |_| Some(field.clone()), |kept, f| put(&mut kept.frames, 0, f));
    };
    // Before anybody has looked, the sensor that came first.
    ["a", "b"].into_iter().for_each(|sensor| views.begin(&sensor.into()));
    views.forget();
    ["a", "b"].into_iter().for_each(frames);
    assert_eq!(views.last(), Some("a".into()));
    let kept = |sensor: &str| views.watch(&sensor.into(), 0).unwrap().read().frames.len();
    assert_eq!([kept("a"), kept("b")], [1, 0]);
    // A look at one of which nothing comes does not lose it.
    views.age(30_000);
    views.forget();
    assert_eq!(views.last(), Some("a".into()));
    let last = views.watch(&"b".into(), 0).unwrap();
    views.forget();
    assert_eq!(views.last(), Some("a".into()));
    frames("b");
    views.age(30_000);
    views.forget();
    ["a", "b"].into_iter().for_each(frames);
    assert_eq!((views.last(), last.read().version), (Some("b".into()), 2));
    assert_eq!([kept("b"), kept("a")], [1, 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn the_most_memory_is_not_less_than_that_of_now() {
    let [now, most] = ["VmRSS:", "VmHWM:"].map(|line| super::memory(line).unwrap());
    assert!(now > 1e6 && most >= now, "{now} of {most}");
    assert_eq!(super::memory("VmNothing:"), None);
}
