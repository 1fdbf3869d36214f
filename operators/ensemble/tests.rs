//! Whether forecasts are as sure as they were right, and what a restart makes of it.

use std::rc::Rc;
use std::sync::Arc;

use physicnet_stream::{Cadence, Forecast, Product};

use super::{Dresser, EnsembleConfig, Known, Quantile, members};
use crate::admission::{Admitted, Plan};
use crate::cropping::Transform;
use crate::learning::Pupil;
use crate::scoring::EnsembleSums;

const LEADS: usize = 2;
const SIDE: usize = 24;
const STEP: i64 = 10;

/// A number of standard deviation 1, nearly normal, the same every time.
fn noise(seed: i64, at: usize) -> f32 {
    let unit = |k: u64| {
        let bits = super::mixed(super::mixed(seed as u64 ^ k << 50) ^ at as u64);
        (bits >> 11) as f32 / (1_u64 << 53) as f32
    };
    ((0..12).map(unit).sum::<f32>() - 6.0) * 1.0
}

/// Half of the frame is quiet, the other half varies more, and its errors are larger.
fn truth(step: i64) -> Vec<f32> {
    let pixel = |at: usize| {
        let size = if at % SIDE < SIDE / 2 { 0.2 } else { 1.5 };
        20.0 + size * noise(step, at)
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

fn frame(step: i64, scored: bool) -> Admitted {
    let plan =
        Plan { restart: false, after: None, keep_from: 0, windows: Vec::new(), replay_from: 0 };
    Admitted {
        sensor: "a".into(),
        valid_time: step * STEP,
        offset: step as u64,
        shape: [1, SIDE, SIDE],
        data: Rc::new(truth(step)),
        replay: scored,
        scored,
        plan: Some(Rc::new(plan)),
    }
}

/// From `step`: off by a third of how much the truth varies at the first lead, twice as much at the
/// second.
fn forecast(step: i64, scored: bool) -> Forecast {
    let lead = |lead: i64| {
        let off = move |at: usize| {
            let size = if at % SIDE < SIDE / 2 { 0.07 } else { 0.5 };
            size * lead as f32 * noise(1_000_000 + step * 10 + lead, at)
        };
        truth(step + lead).into_iter().enumerate().map(move |(at, value)| value + off(at))
    };
    Forecast {
        sensor: "a".into(),
        reference_time: step * STEP,
        cadence: Cadence::new(STEP).unwrap(),
        shape: [LEADS, 1, SIDE, SIDE],
        products: vec![Product {
            name: "physicnet".into(),
            data: Arc::new((1..=LEADS as i64).flat_map(lead).collect()),
        }],
        serving: None,
        ensemble: None,
        model: "none".into(),
        candidate: false,
        revision: 0,
        missing: 0.0,
        offset: step as u64,
        frame_time: step * STEP,
        replay_from: 0,
        replay: scored,
        scored,
    }
}

fn config() -> EnsembleConfig {
    EnsembleConfig {
        members: 10,
        memory: 48,
        transforms: vec![Transform::Identity],
        quantiles: ["q10", "q90"].iter().filter_map(|name| Quantile::named(name)).collect(),
    }
}

fn play(dresser: &mut Dresser, step: i64, scored: bool) -> Forecast {
    let mut made = [forecast(step, scored)];
    dresser.epoch(&frame(step, scored), &mut made);
    let [made] = made;
    made
}

#[test]
fn forecasts_become_as_sure_as_they_were_right() {
    let mut dresser = Dresser::new(config(), Known::default());
    let mut sums = vec![EnsembleSums::default(); 2 * LEADS];
    let mut outside = [[0_usize; 2]; LEADS];
    for step in 0..120 {
        let made = play(&mut dresser, step, false);
        if step < 40 {
            continue;
        }
        for lead in 1..=LEADS {
            let came = truth(step + lead as i64);
            let drawn = members(&made, lead, &config().transforms);
            assert_eq!(drawn.len(), 10);
            assert_eq!(drawn, members(&made, lead, &config().transforms), "drawn anew");
            // The quiet and the other half, each by itself, and away from where they meet.
            for half in 0..2 {
                let part = |field: &[f32]| -> Vec<f32> {
                    let rows = field.chunks_exact(SIDE);
                    rows.flat_map(|row| row[half * 3 * SIDE / 4..][..SIDE / 4].to_vec()).collect()
                };
                let drawn: Vec<Vec<f32>> = drawn.iter().map(|member| part(member)).collect();
                let found = EnsembleSums::of(&drawn, &part(&came), &[20.0], step as u64);
                sums[2 * (lead - 1) + half].add(&found);
            }
            let field = |name: &str| {
                let product = made.products.iter().find(|product| &*product.name == name);
                product.unwrap().field(made.shape, lead, 0).to_vec()
            };
            for ((low, high), o) in field("q10").iter().zip(field("q90")).zip(&came) {
                outside[lead - 1][0] += usize::from(o < low);
                outside[lead - 1][1] += usize::from(*o > high);
            }
        }
    }
    for (at, sums) in sums.iter().enumerate() {
        let dispersion = sums.spread() / sums.rmse();
        assert!((0.85..1.15).contains(&dispersion), "{at}: dispersion {dispersion}");
        let all: i64 = sums.ranks().iter().sum();
        for (rank, count) in sums.ranks().iter().enumerate() {
            let share = *count as f64 / all as f64 * 11.0;
            assert!((0.75..1.3).contains(&share), "{at}: rank {rank} {share}");
        }
        for point in sums.reliability(0).iter().filter(|point| point.count > 500) {
            let off = (point.observed - point.forecast).abs();
            assert!(off < 0.12, "{at}: {point:?}");
        }
    }
    for [below, above] in outside {
        let share = |count: usize| count as f64 / (80.0 * (SIDE * SIDE) as f64);
        let (below, above) = (share(below), share(above));
        assert!((below - 0.1).abs() < 0.02 && (above - 0.1).abs() < 0.02, "{below} {above}");
    }
    // Twice as far off at the second lead, and far less in the quiet half.
    assert!((1.7..2.3).contains(&(sums[3].spread() / sums[1].spread())));
    assert!(sums[0].spread() < 0.3 * sums[1].spread());
}

#[test]
fn before_anything_was_verified_members_are_what_is_forecast_around() {
    let mut dresser = Dresser::new(config(), Known::default());
    let made = play(&mut dresser, 0, false);
    for lead in 1..=LEADS {
        let served = made.served().field(made.shape, lead, 0);
        let drawn = members(&made, lead, &config().transforms);
        assert_ne!(drawn[0], drawn[1]);
        for member in drawn {
            for (at, value) in member.iter().enumerate() {
                let (y, x) = (at / SIDE, at % SIDE);
                let near = served.iter().enumerate().filter(|(other, _)| {
                    (other / SIDE).abs_diff(y) <= 4 && (other % SIDE).abs_diff(x) <= 4
                });
                let (low, high) = near
                    .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), (_, v)| {
                        (l.min(*v), h.max(*v))
                    });
                assert!((low - 1e-4..=high + 1e-4).contains(value), "{value}: {low} to {high}");
            }
        }
    }
    assert!(members(&made, 0, &[]).is_empty() && members(&made, 3, &[]).is_empty());
    assert!(members(&forecast(1, false), 1, &[]).is_empty());
    // One frame has verified the first lead of the first forecast, after which the second takes.
    let next = play(&mut dresser, 1, false).ensemble.unwrap();
    let half = next.curves.len() / 2;
    assert_eq!(next.curves[..half], next.curves[half..]);
    assert_ne!(next.curves, made.ensemble.unwrap().curves);
}

#[test]
fn a_restart_goes_on_as_if_there_had_been_none() {
    let mut whole = Dresser::new(config(), Known::default());
    let (mut told, mut states) = (Vec::new(), Vec::new());
    for step in 0..30 {
        let made = play(&mut whole, step, false);
        told.push((made.ensemble, made.products));
        states.push(serde_json::to_string(whole.known()).unwrap());
    }
    for cut in [0, 1, 7, 20] {
        let known: Known = serde_json::from_str(&states[cut as usize]).unwrap();
        let mut again = Dresser::new(config(), known);
        for step in (cut - LEADS as i64).max(0)..30 {
            let made = play(&mut again, step, step <= cut);
            if step > cut {
                let same = (made.ensemble, made.products) == told[step as usize];
                assert!(same, "cut at {cut}: step {step} differs");
            }
        }
        assert_eq!(&serde_json::to_string(again.known()).unwrap(), states.last().unwrap());
    }
}

#[test]
fn late_frames_and_missing_pixels_teach_nothing() {
    let mut dresser = Dresser::new(config(), Known::default());
    (0..5).for_each(|step| _ = play(&mut dresser, step, false));
    let before = dresser.known().clone();
    dresser.epoch(&frame(3, false), &mut [Forecast { revision: 1, ..forecast(4, false) }]);
    assert_eq!(dresser.known(), &before);
    let missing = vec![f32::NAN; SIDE * SIDE];
    let mut made = [forecast(5, false)];
    dresser.epoch(&Admitted { data: Rc::new(missing), ..frame(5, false) }, &mut made);
    let drawn = members(&made[0], 1, &config().transforms);
    assert!(drawn.iter().flatten().all(|value| value.is_finite()));
}

#[test]
fn members_are_nowhere_beyond_what_has_been_and_flat_fields_stay_flat() {
    // Rain of up to 9 mm/h that grows out of the dry: distances beyond are large where it is low.
    let config = EnsembleConfig { transforms: vec![Transform::LogRate { floor: 0.1 }], ..config() };
    let mut dresser = Dresser::new(config.clone(), Known::default());
    let rain = |step: i64, at: usize| {
        let wet = noise(step / 4, at / 7) > 0.8;
        if wet && at % SIDE > 2 { (4.0 + 2.0 * noise(step, at)).clamp(0.0, 9.0) } else { 0.0 }
    };
    let mut wet = 0;
    for step in 0..40 {
        let now = (0..SIDE * SIDE).map(|at| rain(step, at)).collect();
        let frame = Admitted { data: Rc::new(now), ..frame(step, false) };
        let field = |lead: i64| (0..SIDE * SIDE).map(move |at| rain(step - lead, at));
        let data: Vec<f32> = (1..=LEADS as i64).flat_map(field).collect();
        let product = Product { name: "physicnet".into(), data: Arc::new(data) };
        let mut made = [Forecast { products: vec![product], ..forecast(step, false) }];
        dresser.epoch(&frame, &mut made);
        for lead in 1..=LEADS {
            let drawn = members(&made[0], lead, &config.transforms);
            assert!(drawn.iter().flatten().all(|value| (0.0..=9.001).contains(value)));
            wet += drawn.iter().flatten().filter(|value| **value > 0.1).count();
        }
    }
    assert!(wet > 1000, "{wet}");

    let mut dresser = Dresser::new(config.clone(), Known::default());
    for step in 0..12 {
        let frame = Admitted { data: Rc::new(vec![0.0; SIDE * SIDE]), ..frame(step, false) };
        let data = Arc::new(vec![0.0; LEADS * SIDE * SIDE]);
        let product = Product { name: "physicnet".into(), data };
        let mut made = [Forecast { products: vec![product], ..forecast(step, false) }];
        dresser.epoch(&frame, &mut made);
        let drawn = members(&made[0], 1, &config.transforms);
        assert!(drawn.iter().flatten().all(|value| *value == 0.0), "step {step}");
    }
}
