use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use physicnet_stream::{Axis, Cadence, Catalogue, Grid, Sensor, Serving, Variable};

use super::events::now;
use super::histogram::{Histogram, Tally};
use super::sensors::Standing;
use super::view::{Field, MOST, Views, put};
use super::{Event, Events, Kind, Sensors};

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
    state.used(0);
    assert_eq!(state.standing(now(), &minute), Standing::Filling);
    state.forecasts.store(1, Relaxed);
    assert_eq!(state.standing(now(), &minute), Standing::Forecasting);
    assert_eq!(state.standing(now() + 11_000, &minute), Standing::Silent);
    // Measured now: it has five cadences.
    state.used(now() as i64 * 1_000_000);
    assert_eq!(state.standing(now() + 240_000, &minute), Standing::Forecasting);
    assert_eq!(state.standing(now() + 301_000, &minute), Standing::Silent);
    assert_eq!(state.drift(), None);
    state.set_drift(Some(0.0));
    assert!(state.drift().unwrap() < 1e-9);
    // Another network's codes are others: what was known of drift holds no longer.
    state.set_drift(None);
    state.set_usage(3, 96);
    assert_eq!((state.drift(), state.usage()), (None, Some((3, 96))));
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
