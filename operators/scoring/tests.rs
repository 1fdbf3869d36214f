//! Scores against those of pysteps and scikit-image, and promises of the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use physicnet_stream::{Cadence, Forecast, Frame, Product, SensorId};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Concat, Input, Probe};

use super::*;

mod any_order;
mod ensemble;

const SIZE: [usize; 2] = [17, 23];

/// Two fields that any language can make again: `(forecast, observation)`.
fn fields(k: usize) -> (Vec<f32>, Vec<f32>) {
    let mut forecast = Vec::new();
    let mut observation = Vec::new();
    for i in 0..SIZE[0] * SIZE[1] {
        let a = ((i * 7919 + k * 104_729) % 1009) as f64;
        let b = ((i * 6007 + k * 1_299_709) % 997) as f64;
        let o = if a < 500.0 { 0.0 } else { (a - 500.0) / 50.0 } as f32;
        let p = o * 0.5 + if b < 600.0 { 0.0 } else { (b - 600.0) / 80.0 } as f32;
        observation.push(if (i * 31 + k).is_multiple_of(37) { f32::NAN } else { o });
        forecast.push(if (i * 17 + k).is_multiple_of(41) { f32::NAN } else { p });
    }
    (forecast, observation)
}

fn metrics(ssim: Option<Scale>) -> Metrics {
    Metrics { thresholds: vec![0.1, 1.0, 5.0], ssim, fss: vec![Fss { threshold: 1.0, scale: 4 }] }
}

fn sum_of_three(metrics: &Metrics) -> Sums {
    let mut total = Sums::zero();
    for k in 0..3 {
        let (p, o) = fields(k);
        total.plus_equals(&Sums::of(&p, &o, SIZE[1], metrics));
    }
    total
}

/// The values are those of `pysteps.verification` and `skimage.metrics.structural_similarity`
/// on the same fields, to the seven decimals that were printed.
#[test]
fn scores_equal_those_of_pysteps_and_scikit_image() {
    let scores = Scores::from(&sum_of_three(&metrics(Some(Scale::Db))));
    let near =
        |value: f64, expected: f64| assert!((value - expected).abs() < 6e-8, "{value} {expected}");
    assert_eq!(scores.pairs, 3);
    near(scores.coverage, 0.975_481_6);
    near(scores.mse, 4.929_838_9);
    near(scores.rmse, 2.220_324_1);
    near(scores.mae, 1.573_781_4);
    near(scores.bias, -0.300_065_1);
    near(scores.corr, 0.743_107_9);
    near(scores.rel_l2, 0.534_536_6);
    near(scores.ssim, 0.700_469_5);
    near(scores.fss[0], 0.938_516_1);
    let expected = [
        [0.707_850_7, 0.987_432_7, 0.285_714_3, 1.382_405_7],
        [0.662_873_4, 0.920_948_6, 0.297_134_2, 1.310_276_7],
        [0.277_419_4, 0.303_886_9, 0.238_938_1, 0.399_293_3],
    ];
    for (c, [csi, pod, far, fbias]) in scores.categorical.iter().zip(expected) {
        near(c.csi, csi);
        near(c.pod, pod);
        near(c.far, far);
        near(c.fbias, fbias);
    }
    let linear = Scale::Linear { minimum: -1.0, range: 10.5 };
    near(Scores::from(&sum_of_three(&metrics(Some(linear)))).ssim, 0.703_213_5);
}

#[test]
fn what_is_taken_away_was_never_there() {
    let metrics = metrics(Some(Scale::Db));
    let total = sum_of_three(&metrics);
    let mut sum = total.clone();
    for k in [2, 0, 1] {
        let (p, o) = fields(k);
        let mut part = Sums::of(&p, &o, SIZE[1], &metrics);
        part.negate();
        assert!(!sum.is_zero());
        sum.plus_equals(&part);
    }
    assert!(sum.is_zero());
    let mut thrice = total.clone();
    thrice.plus_equals(&total);
    thrice.plus_equals(&total);
    assert_eq!(thrice, total.multiply(&3));
}

#[test]
fn sums_of_large_windows_are_exact() {
    let side = 1024;
    let fss = vec![Fss { threshold: 1.0, scale: side / 2 }];
    let metrics = Metrics { fss, ..Metrics::default() };
    let above = vec![2.0; side * side];
    let one = Sums::of(&above, &above, side, &metrics);
    // A month of five minutes.
    let month = one.clone().times(8640);
    assert!(month.fss[0][0] > i64::MAX.into());
    assert_eq!(Scores::from(&month).fss, [1.0]);
    let text = serde_json::to_string(&month).unwrap();
    assert_eq!(serde_json::from_str::<Sums>(&text).unwrap(), month);
    let mut rest = month;
    rest.plus_equals(&one.times(-8640));
    assert!(rest.is_zero());
}

#[test]
fn missing_pixels_are_not_scored() {
    let nan = f32::NAN;
    let metrics = Metrics { thresholds: vec![1.0], ..Metrics::default() };
    let sums = Sums::of(&[1.0, nan, 3.0, nan], &[nan, 2.0, 2.0, nan], 2, &metrics);
    let scores = Scores::from(&sums);
    assert_eq!((scores.pairs, scores.coverage, scores.mse), (1, 0.5, 1.0));
    assert_eq!(sums.tables, [Table { hits: 1, ..Table::default() }]);
    let unseen = Sums::of(&[nan], &[1.0], 1, &metrics);
    assert_eq!((unseen.pairs, unseen.observed, unseen.scored), (0, 1, 0));
    assert!(Scores::from(&Sums::zero()).mse.is_nan());
}

const STEP: i64 = 10;

fn frame(sensor: &str, step: i64, value: f32) -> Frame {
    // Real cadences jitter.
    let valid_time = step * STEP + step % 3;
    let data = vec![value, value + 1.0];
    Frame {
        sensor: sensor.into(),
        valid_time,
        offset: step as u64,
        shape: [1, 1, 2],
        data,
        replay: false,
        scored: false,
        record: None,
    }
}

fn forecast(sensor: &str, step: i64, values: [f32; 2]) -> Forecast {
    let data = values.iter().flat_map(|&v| [v, v]).collect();
    Forecast {
        sensor: sensor.into(),
        reference_time: frame(sensor, step, 0.0).valid_time,
        cadence: Cadence::new(STEP).unwrap(),
        shape: [2, 1, 1, 2],
        products: vec![Product { name: "mean".into(), data: Arc::new(data) }],
        serving: None,
        ensemble: None,
        model: "none".into(),
        candidate: false,
        revision: 0,
        missing: 0.0,
        offset: step as u64,
        frame_time: frame(sensor, step, 0.0).valid_time,
        replay_from: 0,
        replay: false,
        scored: false,
    }
}

type Round = (Vec<Forecast>, Vec<Frame>);

/// Frames before a forecast that go with it once it has settled.
const PAST: usize = 2;

/// What is counted of all time when these rounds are played.
fn play(
    workers: usize,
    at_once: bool,
    config: ScoringConfig,
    rounds: Vec<Round>,
) -> BTreeMap<Key, Sums> {
    verify(workers, at_once, config, rounds).over(Span::All)
}

/// Plays rounds, one epoch each, all of them in flight at once or one after another.
fn verify(workers: usize, at_once: bool, config: ScoringConfig, rounds: Vec<Round>) -> Verified {
    // What was counted before a restart settles like the rest, and is in the sums of that time.
    let anew =
        |(made, seen): &Round| made.iter().all(|f| !f.scored) && seen.iter().all(|f| !f.scored);
    let whole = rounds.iter().all(anew);
    let totals = Totals::default();
    let shared = totals.clone();
    let settled = Arc::new(Mutex::new(Vec::<Settled>::new()));
    let (log, channels) = (Arc::clone(&settled), config.channels.clone());
    let run = move |worker: &mut timely::worker::Worker| {
        let log = Arc::clone(&log);
        let mut forecasts = InputHandleVec::<u64, Forecast>::new();
        let mut frames = InputHandleVec::<u64, Frame>::new();
        let probe = worker.dataflow(|scope| {
            let observations = scope.input_from(&mut frames);
            let forecasts = scope.input_from(&mut forecasts);
            let look = move |one: &Settled| log.lock().unwrap().push(one.clone());
            let settled = forecasts.clone().settle(observations.clone(), PAST, &config, look);
            let verified = total_into(forecasts.verify(observations, &config), &shared);
            verified.concat(settled).probe().0
        });
        for (epoch, (made, seen)) in rounds.iter().enumerate() {
            if worker.index() == worker.peers() - 1 {
                // Observations overtake the forecasts of their epoch, and the other way round.
                if epoch % 2 == 0 {
                    seen.iter().for_each(|frame| frames.send(frame.clone()));
                    frames.flush();
                    worker.step();
                }
                made.iter().for_each(|forecast| forecasts.send(forecast.clone()));
                if epoch % 2 == 1 {
                    seen.iter().for_each(|frame| frames.send(frame.clone()));
                }
            }
            let next = epoch as u64 + 1;
            forecasts.advance_to(next);
            frames.advance_to(next);
            if !at_once {
                worker.step_while(|| probe.less_than(&next));
            }
        }
    };
    timely::execute(timely::Config::process(workers), run)
        .unwrap()
        .join()
        .into_iter()
        .for_each(|r| r.unwrap());
    let verified = totals.now().clone();
    if whole {
        assert_eq!(added_up(&settled.lock().unwrap(), &channels), verified.over(Span::All));
    }
    verified
}

/// The sums over what has settled: each forecast once, in the order of its sensor, with its past.
fn added_up(all: &[Settled], channels: &[Metrics]) -> BTreeMap<Key, Sums> {
    let mut last = BTreeMap::new();
    let mut sums = BTreeMap::<Key, Sums>::new();
    for Settled { forecast, observed, past } in all {
        let at = forecast.reference_time;
        let before = last.insert(forecast.sensor.clone(), at);
        // Only a clock that was set turns back.
        let step = forecast.cadence.nanoseconds();
        assert!(before.is_none_or(|before| before < at || before > at + 100 * step));
        assert!(past.len() <= PAST && past.is_sorted_by_key(|frame| frame.valid_time));
        assert!(past.iter().all(|f| ((at - 2 * step)..=(at + step / 2)).contains(&f.valid_time)));
        for (lead, frame) in observed.iter().enumerate() {
            let Some(frame) = frame else { continue };
            let [_, count, height, width] = forecast.shape;
            let usual = Metrics::default();
            for (product, channel) in
                forecast.products.iter().flat_map(|product| (0..count).map(move |c| (product, c)))
            {
                let plane = |data: &'_ [f32], at: usize| {
                    data[at * height * width..][..height * width].to_vec()
                };
                let p = plane(&product.data, lead * count + channel);
                let asked = channels.get(channel).unwrap_or(&usual);
                let pair = Sums::of(&p, &plane(&frame.data, channel), width, asked);
                let key = Key {
                    sensor: forecast.sensor.clone(),
                    product: Arc::clone(&product.name),
                    lead: lead as u32 + 1,
                    channel: channel as u32,
                };
                sums.entry(key).or_default().plus_equals(&pair);
            }
        }
    }
    sums.retain(|_, sums| !sums.is_zero());
    sums
}

fn story() -> Vec<Round> {
    (0..12)
        .map(|step| {
            let made = ["a", "b", "c"].map(|s| forecast(s, step, [step as f32 + 1.0, step as f32]));
            let seen = ["a", "b", "c"].map(|s| frame(s, step, step as f32));
            (made.to_vec(), seen.to_vec())
        })
        .collect()
}

#[test]
fn each_lead_is_held_against_its_own_time() {
    let totals = play(1, false, ScoringConfig::default(), story());
    assert_eq!(totals.len(), 6);
    for (key, sums) in totals {
        let scores = Scores::from(&sums);
        let (pairs, mse) = match key.lead {
            1 => (11, 0.5), // right in the first pixel, 1 off in the second
            _ => (10, (4.0 + 9.0) / 2.0),
        };
        assert_eq!((scores.pairs, scores.mse), (pairs, mse), "{key:?}");
    }
}

#[test]
fn workers_and_batches_cannot_be_seen() {
    let one = play(1, false, ScoringConfig::default(), story());
    for (workers, at_once) in [(1, true), (2, false), (2, true), (4, true)] {
        assert_eq!(play(workers, at_once, ScoringConfig::default(), story()), one, "{workers}");
    }
}

#[test]
fn a_correction_is_an_exact_retraction() {
    let config = ScoringConfig { correct_within: 1, ..ScoringConfig::default() };
    let expected = play(1, false, config.clone(), story());
    let mut rounds = story();
    let right = rounds[5].1[0].clone();
    rounds[5].1[0].data = vec![99.0, f32::NAN];
    rounds[6].1.push(right);
    let revised = rounds[7].0[2].clone();
    rounds[7].0[2].products[0].data = Arc::new(vec![-3.0; 4]);
    rounds[8].0.push(revised);
    assert_eq!(play(2, false, config, rounds), expected);
}

#[test]
fn a_stride_selects_reference_times() {
    let config = ScoringConfig { from: Some(10), to: Some(75), stride: 3, ..Default::default() };
    let totals = play(1, false, config, story());
    // Reference steps 1 + 3 n up to 7: 1 (at 11), 4 (at 41), 7 (at 71).
    assert!(totals.values().all(|sums| sums.pairs == 3), "{totals:?}");
    let sensors: BTreeSet<SensorId> = totals.into_keys().map(|key| key.sensor).collect();
    assert_eq!(sensors.len(), 3);
}

#[test]
fn spans_end_at_a_sensors_newest_observation() {
    const MINUTE: i64 = 60_000_000_000;
    let (hour, day) = (60 * MINUTE, 24 * 60 * MINUTE);
    let key = |sensor: &str, lead| Key {
        sensor: sensor.into(),
        product: "mean".into(),
        lead,
        channel: 0,
    };
    let value = |at: i64| Sums::of(&[at as f32], &[0.5], 1, &Metrics::default());
    // Every five minutes over three days; the other sensor is silent after the first of them.
    let times = |days: i64| (0..days * day).step_by(5 * MINUTE as usize);
    let mut all: Vec<(Key, i64)> = times(3).map(|at| (key("a", 1), at)).collect();
    all.extend(times(1).map(|at| (key("b", 1), at)));
    all.extend(times(2).map(|at| (key("a", 2), at)));
    // In any order: what is too old for a span when it comes is in none but `All`.
    for reversed in [false, true] {
        let mut verified = Verified::default();
        let mut coming = all.clone();
        if reversed {
            coming.reverse();
        }
        for (key, at) in &coming {
            let pair = Pair { key: key.clone(), valid_time: *at };
            verified.add(pair, &value(at / MINUTE));
        }
        // A correction of a frame of the last hour, and its retraction.
        let pair = Pair { key: key("a", 1), valid_time: 3 * day - 30 * MINUTE };
        verified.add(pair.clone(), &value(7));
        verified.add(pair, &value(7).times(-1));
        for (span, reach) in [(Span::Hour, hour), (Span::Day, day), (Span::All, i64::MAX)] {
            let mut expected = BTreeMap::<Key, Sums>::new();
            for (key, at) in &all {
                let newest = if key.sensor.as_str() == "a" { 3 * day } else { day } - 5 * MINUTE;
                // The grain of a day is an hour, and the newest hour is whole.
                if newest - at < reach {
                    expected.entry(key.clone()).or_default().plus_equals(&value(at / MINUTE));
                }
            }
            assert_eq!(verified.over(span), expected, "{span:?}, {reversed}");
        }
        let kept: usize = verified.series().map(|(_, series, _)| series.buckets()).sum();
        assert!(kept <= 3 * (12 + 24), "{kept} buckets are kept");
    }
}

#[test]
fn what_is_pooled_is_the_sum_over_all_sensors() {
    let totals = Totals::default();
    // More of them than are added up in one turn.
    for sensor in 0..400_u32 {
        for lead in 1..3 {
            let (sensor_id, product) = (format!("s{sensor}").as_str().into(), "mean".into());
            let key = Key { sensor: sensor_id, product, lead, channel: 0 };
            let sums = Sums::of(&[sensor as f32], &[lead as f32], 1, &Metrics::default());
            totals.now().add(Pair { key, valid_time: i64::from(sensor) }, &sums);
        }
    }
    for span in Span::ALL {
        let mut expected = BTreeMap::<u32, Sums>::new();
        for (key, sums) in totals.over(span) {
            expected.entry(key.lead).or_default().plus_equals(&sums);
        }
        assert_eq!(expected.values().map(|sums| sums.pairs).collect::<Vec<_>>(), [400, 400]);
        assert_eq!(totals.pooled(span, |key| key.lead), expected, "{span:?}");
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_end_the_verification() {
    let config = ScoringConfig { largest_jump: Some(100), ..ScoringConfig::default() };
    let expected = play(1, false, config.clone(), story());
    // Two frames and their forecasts a thousand cadences ahead, and then the true time.
    let mut rounds: Vec<Round> = [1_000, 1_001]
        .map(|step| (vec![forecast("a", step, [0.0; 2])], vec![frame("a", step, 0.0)]))
        .into();
    let ahead = play(1, false, config.clone(), rounds.clone());
    rounds.extend(story());
    let mut told = play(1, false, config, rounds);
    for (key, sums) in ahead {
        told.entry(key).or_default().plus_equals(&sums.times(-1));
    }
    told.retain(|_, sums| !sums.is_zero());
    assert_eq!(told, expected);
}
