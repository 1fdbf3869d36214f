//! What is learnt, against a slow obvious version, and what a restart and late frames make of it.

use std::rc::Rc;
use std::sync::Arc;

use physicnet_stream::{Cadence, Forecast, Product, Serving};

use super::{LearnConfig, Learner, Learnt, Pupil};
use crate::admission::{Admitted, Plan};

const LEADS: usize = 3;
const CHANNELS: usize = 2;
const PIXELS: usize = 7;
const STEP: i64 = 10;
const CONFIG: LearnConfig = LearnConfig { memory: 12, gate: true, keep: 20 };

/// A number in -1..1 that is the same every time.
fn noise(seed: i64, at: usize) -> f64 {
    let mut x = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at as u64);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

fn truth(step: i64) -> Vec<f32> {
    let pixel = |at: usize| {
        let missing = (step.unsigned_abs() as usize + at).is_multiple_of(13);
        if missing { f32::NAN } else { noise(step, at) as f32 }
    };
    (0..CHANNELS * PIXELS).map(pixel).collect()
}

fn frame(step: i64) -> Admitted {
    let plan =
        Plan { restart: false, after: None, keep_from: 0, windows: Vec::new(), replay_from: 0 };
    Admitted {
        sensor: "a".into(),
        valid_time: step * STEP,
        offset: step as u64,
        shape: [CHANNELS, 1, PIXELS],
        data: Rc::new(truth(step)),
        replay: false,
        scored: false,
        plan: Some(Rc::new(plan)),
    }
}

/// From `step`; each product is off what will come by noise of its own size.
fn forecast(step: i64, [network, advection, persistence]: [f64; 3]) -> Forecast {
    let field = |name: &str, salt: i64, size: f64| {
        let lead = |lead: i64| {
            let off = move |at: usize| size * noise(salt + 1000 * (step * 10 + lead), at);
            let seen = (0..CHANNELS * PIXELS).map(move |at| noise(step + lead, at));
            seen.enumerate().map(move |(at, value)| (value + off(at)) as f32)
        };
        Product { name: name.into(), data: Arc::new((1..=LEADS as i64).flat_map(lead).collect()) }
    };
    Forecast {
        sensor: "a".into(),
        reference_time: step * STEP,
        cadence: Cadence::new(STEP).unwrap(),
        shape: [LEADS, CHANNELS, 1, PIXELS],
        products: vec![
            field("physicnet", 1, network),
            field("advection", 2, advection),
            field("persistence", 3, persistence),
        ],
        serving: None,
        ensemble: None,
        model: "none".into(),
        candidate: false,
        revision: 0,
        missing: 0.0,
        offset: step as u64,
        frame_time: step * STEP,
        replay_from: 0,
        replay: false,
        scored: false,
    }
}

/// How far off the products are: the network is good, then useless, then good again; advection is
/// better than persistence, then worse.
fn sizes(step: i64) -> [f64; 3] {
    let network = if (30..70).contains(&step) { 3.0 } else { 0.3 };
    if step < 55 { [network, 0.8, 1.5] } else { [network, 1.6, 0.9] }
}

/// The forecast of a step as it is served.
fn play(learner: &mut Learner, step: i64, scored: bool) -> Forecast {
    let frame = Admitted { scored, ..frame(step) };
    let mut made = [Forecast { scored, ..forecast(step, sizes(step)) }];
    learner.epoch(&frame, &mut made);
    let [made] = made;
    made
}

fn bits(forecast: &Forecast) -> (Option<Serving>, Vec<u32>) {
    let all = forecast.products.iter().flat_map(|product| product.data.iter());
    (forecast.serving, all.map(|value| value.to_bits()).collect())
}

/// Everything again from the beginning: `xx, xy` by lead and channel after the frame of `step`.
fn sums(step: i64) -> Vec<[f64; 2]> {
    let mut sums = vec![[0.0; 2]; LEADS * CHANNELS];
    for now in 1..=step {
        for (depth, sum) in sums.iter_mut().enumerate() {
            let lead = (depth / CHANNELS + 1) as i64;
            if now < lead {
                continue;
            }
            let [n, a, _] = fields(now - lead, depth);
            let fade = (-((step - now) as f64) / 12.0).exp();
            for (at, o) in observed(now, depth % CHANNELS) {
                sum[0] += fade * (n[at] - a[at]).powi(2);
                sum[1] += fade * (n[at] - a[at]) * (o - a[at]);
            }
        }
    }
    sums
}

fn fields(reference: i64, depth: usize) -> [Vec<f64>; 3] {
    let made = forecast(reference, sizes(reference));
    [0, 1, 2].map(|product| {
        let plane = made.products[product].data.chunks_exact(PIXELS).nth(depth).unwrap();
        plane.iter().map(|value| f64::from(*value)).collect()
    })
}

fn observed(step: i64, channel: usize) -> Vec<(usize, f64)> {
    let plane = truth(step)[channel * PIXELS..][..PIXELS].to_vec();
    let measured = plane.into_iter().enumerate().filter(|(_, value)| !value.is_nan());
    measured.map(|(at, value)| (at, value.into())).collect()
}

fn weights(step: i64) -> Vec<f64> {
    let weight = |(depth, [xx, xy]): (usize, [f64; 2])| {
        let frames = step - (depth / CHANNELS) as i64;
        if frames >= 6 { (xy / xx).clamp(0.0, 1.0) } else { 1.0 }
    };
    sums(step).into_iter().enumerate().map(weight).collect()
}

/// The squared errors, relative to the baselines', of the blend, advection and persistence.
fn errors(step: i64) -> [f64; 3] {
    let mut relative = [0.0; 3];
    for channel in 0..CHANNELS {
        let mut all = [0.0; 3];
        for now in 1..=step {
            let fade = (-((step - now) as f64) / 12.0).exp();
            let before = weights(now - 1);
            for lead in (1..=LEADS).filter(|lead| *lead as i64 <= now) {
                let depth = (lead - 1) * CHANNELS + channel;
                let [n, a, p] = fields(now - lead as i64, depth);
                for (at, o) in observed(now, channel) {
                    let served = a[at] + before[depth] * (n[at] - a[at]);
                    for (sum, field) in all.iter_mut().zip([served, a[at], p[at]]) {
                        *sum += fade * (o - field).powi(2);
                    }
                }
            }
        }
        relative.iter_mut().zip(all).for_each(|(sum, e)| *sum += 2.0 * e / (all[1] + all[2]));
    }
    relative
}

#[test]
fn what_is_served_is_what_everything_again_says() {
    let mut learner = Learner::new(CONFIG, Learnt::default());
    let mut gate = Serving::Blend;
    let mut seen = Vec::new();
    for step in 0..110 {
        let served = play(&mut learner, step, false);
        let (weights, errors) = (weights(step), errors(step));
        if step >= 6 {
            let choices = [Serving::Blend, Serving::Advection, Serving::Persistence];
            let own = choices.iter().position(|choice| *choice == gate).unwrap();
            let best = (0..3).min_by(|a, b| errors[*a].total_cmp(&errors[*b])).unwrap();
            gate = if errors[own] > 1.03 * errors[best] { choices[best] } else { gate };
        }
        let pure = weights.iter().all(|w| *w == 1.0);
        let expected = if gate == Serving::Blend && pure { Serving::Physicnet } else { gate };
        assert_eq!(served.serving, Some(expected), "step {step}: {errors:?}");
        seen.push(expected);
        for (depth, weight) in weights.into_iter().enumerate() {
            let [n, a, p] = fields(step, depth);
            let plane = served.products[0].data.chunks_exact(PIXELS).nth(depth).unwrap();
            for (at, value) in plane.iter().enumerate() {
                let expected = match expected {
                    Serving::Advection => a[at],
                    Serving::Persistence => p[at],
                    _ => a[at] + weight * (n[at] - a[at]),
                };
                assert!((f64::from(*value) - expected).abs() < 1e-5, "{step}: {value} {expected}");
            }
        }
        let network = served.products.iter().find(|product| &*product.name == "network").unwrap();
        assert_eq!(network.data, forecast(step, sizes(step)).products[0].data);
    }
    // As it is while little is known; a blend while it is good; a baseline, then the other, while
    // it is not; and the network again.
    seen.dedup();
    assert_eq!(seen.first(), Some(&Serving::Physicnet));
    assert_eq!(seen.last(), Some(&Serving::Blend));
    assert!(seen.contains(&Serving::Persistence), "{seen:?}");
}

#[test]
fn without_a_gate_no_baseline_is_served() {
    let config = LearnConfig { gate: false, ..CONFIG };
    let mut learner = Learner::new(config, Learnt::default());
    for step in 0..110 {
        let serving = play(&mut learner, step, false).serving.unwrap();
        assert!(matches!(serving, Serving::Physicnet | Serving::Blend), "{serving:?}");
    }
}

#[test]
fn a_restart_goes_on_as_if_there_had_been_none() {
    let mut whole = Learner::new(CONFIG, Learnt::default());
    let mut told = Vec::new();
    let mut states = Vec::new();
    for step in 0..110 {
        told.push(bits(&play(&mut whole, step, false)));
        states.push(serde_json::to_string(whole.known()).unwrap());
    }
    for cut in [0, 5, 6, 29, 33, 57, 71, 100] {
        let learnt: Learnt = serde_json::from_str(&states[cut as usize]).unwrap();
        let mut again = Learner::new(CONFIG, learnt);
        // What was made before the cut is made again as it was then, not as it would be now.
        for step in (cut - 12).max(0)..110 {
            let served = bits(&play(&mut again, step, step <= cut));
            assert!(served == told[step as usize], "cut at {cut}: step {step} differs");
        }
        assert_eq!(&serde_json::to_string(again.known()).unwrap(), states.last().unwrap());
    }
}

#[test]
fn late_and_corrected_frames_teach_nothing() {
    let mut learner = Learner::new(CONFIG, Learnt::default());
    let mut plain = Learner::new(CONFIG, Learnt::default());
    for step in 0..50 {
        let expected = play(&mut plain, step, false);
        assert_eq!(bits(&play(&mut learner, step, false)), bits(&expected));
        // The frame before it, once more and wrong, with forecasts issued again: they are served
        // as the newest ones are.
        let mut late = frame(step - 1);
        late.offset += 10_000;
        late.data = Rc::new(vec![99.0; CHANNELS * PIXELS]);
        let mut revised = [Forecast { revision: 1, ..forecast(step, sizes(step)) }];
        learner.epoch(&late, &mut revised);
        assert_eq!(bits(&revised[0]), bits(&expected));
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_learning() {
    let mut learner = Learner::new(CONFIG, Learnt::default());
    (500..520).for_each(|step| _ = play(&mut learner, step, false));
    let before = learner.known().clone();
    let mut first = frame(10);
    let plan = Plan { restart: true, ..(**first.plan.as_ref().unwrap()).clone() };
    first.plan = Some(Rc::new(plan));
    learner.epoch(&first, &mut [forecast(10, sizes(10))]);
    assert_eq!(learner.known().standing(), before.standing());
    play(&mut learner, 11, false);
    assert_ne!(learner.known().standing(), before.standing());
}

#[test]
fn a_blend_stays_between_its_fields() {
    let mut learner = Learner::new(CONFIG, Learnt::default());
    let mut blends = 0;
    for step in 0..110 {
        let served = play(&mut learner, step, false);
        blends += u32::from(served.serving == Some(Serving::Blend));
        let field = |name: &str| {
            let product = served.products.iter().find(|product| &*product.name == name);
            product.unwrap().data.iter()
        };
        for ((s, n), a) in field("physicnet").zip(field("network")).zip(field("advection")) {
            let between = a.min(*n) <= *s && *s <= a.max(*n);
            assert!(between || served.serving == Some(Serving::Persistence), "{s} {n} {a}");
        }
    }
    assert!(blends > 10);
}

#[test]
fn a_useless_network_says_one_forecast_and_no_more() {
    let mut learner = Learner::new(CONFIG, Learnt::default());
    let mut useless = |step: i64, network: f64| {
        let mut made = [forecast(step, [network, 0.8, 1.5])];
        learner.epoch(&frame(step), &mut made);
        made[0].serving.unwrap()
    };
    // From a cold start, and when one that was good becomes useless.
    assert_eq!(useless(0, 30.0), Serving::Physicnet);
    (1..60).for_each(|step| assert_eq!(useless(step, 30.0), Serving::Advection, "{step}"));
    (60..200).for_each(|step| _ = useless(step, 0.3));
    assert_eq!(useless(200, 30.0), Serving::Blend);
    (201..240).for_each(|step| assert_ne!(useless(step, 30.0), Serving::Blend, "{step}"));
}
