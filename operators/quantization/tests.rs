//! What drift promises: exact counts, the same for any worker, and a histogram that is kept.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use physicnet_stream::{Catalogue, Failure, Frame};
use timely::dataflow::operators::{Input, Inspect, Probe};

use super::*;
use crate::admission::{AdmissionConfig, Admit, Admitted, Memory};
use crate::cropping::{Crop, Cropped, crop};
use crate::encoding::Encode;
use crate::model::Checkpoint;
use crate::swapping::Appoint;
use crate::tests::{catalogue, frame, small};

/// Numbers without a pattern, the same in every run.
fn draws(seed: u64, below: u64) -> impl Iterator<Item = u64> {
    let step = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(seed), step).skip(1).map(move |state| (state >> 33) % below)
}

/// By its other definition: the entropy of the mixture less the mean of the entropies.
fn slow_distance(one: &[u64], other: &[u64]) -> f64 {
    let shares = |counts: &[u64]| -> Vec<f64> {
        let all = counts.iter().sum::<u64>() as f64;
        counts.iter().map(|&count| count as f64 / all).collect()
    };
    let entropy = |shares: &[f64]| -> f64 {
        shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln() / 2_f64.ln()).sum()
    };
    let (p, q) = (shares(one), shares(other));
    let mixed: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p + q) / 2.0).collect();
    (entropy(&mixed) - (entropy(&p) + entropy(&q)) / 2.0).max(0.0).sqrt()
}

#[test]
fn the_distance_is_its_definition() {
    for seed in 0..50 {
        let mut numbers = draws(seed, 9).map(|n| n.saturating_sub(4));
        let mut counts = || numbers.by_ref().take(40).collect::<Vec<u64>>();
        let (one, other) = (counts(), counts());
        let told = distance(&one, &other).unwrap();
        assert!((told - slow_distance(&one, &other)).abs() < 1e-7, "{one:?} {other:?}");
        assert_eq!(distance(&other, &one), Some(told));
        let tenfold: Vec<u64> = one.iter().map(|count| 10 * count).collect();
        assert!(distance(&one, &tenfold).unwrap() < 1e-7);
    }
    assert_eq!(distance(&[1, 0], &[0, 7]), Some(1.0));
    assert_eq!(distance(&[0, 0], &[0, 7]), None);
}

#[test]
fn a_usage_says_how_many_codes_live() {
    let usage = Usage { counts: vec![5, 0, 5, 5, 5, 0], window: 9, usual: 0.2 };
    assert_eq!(usage.dead(), 2);
    assert!((usage.perplexity() - 4.0).abs() < 1e-9);
    assert_eq!(usage.alarm(), 0.25);
    assert_eq!(Usage { usual: 0.9, ..usage }.alarm(), 1.0);
}

/// Frame `step` of a 10 x 18 sensor under a network of stride 4, with some pixels missing.
fn view(missing: impl Fn(usize, usize) -> bool) -> Cropped {
    let catalogue = catalogue(&[("a", 10, 18)], 1);
    let sensor = catalogue.get(&"a".into()).unwrap();
    let Frame { sensor: id, valid_time, offset, shape, mut data, .. } = frame(&sensor, 0);
    for (at, value) in data.iter_mut().enumerate() {
        if missing(at / 18, at % 18) {
            *value = f32::NAN;
        }
    }
    let (data, replay, scored, plan) = (Rc::new(data), false, false, None);
    let head = Admitted { sensor: id, valid_time, offset, shape, data, replay, scored, plan };
    crop(head, &sensor, &small(1))
}

#[test]
fn the_ring_counts_what_was_seen() {
    // 3 x 5 cells; the last row of cells has 2 rows of pixels, the last column 2 columns.
    let blinds: [fn(usize, usize) -> bool; 4] = [
        |_, _| false,
        |y, x| y >= 8 && x >= 16,
        |y, x| y < 4 && x < 8 && (y, x) != (3, 7),
        |_, _| true,
    ];
    let blind: [fn(usize) -> bool; 4] = [|_| false, |cell| cell == 14, |cell| cell == 0, |_| true];
    let mut codes = draws(5, 8).map(|code| code as u32);
    let mut past: Vec<(Vec<u32>, f64)> = Vec::new();
    let mut ring = Ring::new(4, 8);
    for at in 0..30 {
        let kind = at * 7 % 5 % 4;
        let (frame, codes): (_, Vec<u32>) = (view(blinds[kind]), codes.by_ref().take(15).collect());
        ring.push(Tally::of(&frame, &codes, 4));
        let seen = codes.iter().enumerate().filter(|(cell, _)| !blind[kind](*cell));
        past.push((seen.map(|(_, code)| *code).collect(), f64::from(frame.missing)));

        let last = &past[past.len().saturating_sub(4)..];
        let mut expected = [0; 8];
        last.iter().flat_map(|(codes, _)| codes).for_each(|code| expected[*code as usize] += 1);
        assert_eq!(ring.counts(), (at >= 3).then_some(&expected[..]), "{at}");
        let missing = last.iter().map(|(_, missing)| missing).sum::<f64>() / last.len() as f64;
        assert_eq!(ring.missing(), missing);
    }
}

/// A network with the same weights in every run.
fn fixed() -> Checkpoint {
    let mut checkpoint = Checkpoint::untrained(&small(1)).unwrap();
    for (i, weight) in checkpoint.weights.values_mut().enumerate() {
        let wave = |k: usize| 0.4 * ((k * 7 + i * 13) as f32).sin();
        let wave: Vec<f32> = (0..weight.elem_count()).map(wave).collect();
        *weight = Tensor::from_vec(wave, weight.dims(), &Device::Cpu).unwrap();
    }
    checkpoint
}

/// Streams frames as far as quantization and collects what is said of their drift, by sensor and
/// time.
fn watch(
    (config, usage): &(DriftConfig, Option<Usage>),
    catalogue: &Catalogue,
    frames: &[Frame],
    (workers, batch, per_epoch): (usize, usize, usize),
) -> Vec<Drift> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let checkpoint = Checkpoint { usage: usage.clone(), ..fixed() };
    let (config, catalogue, frames) = (*config, catalogue.clone(), frames.to_vec());
    timely::execute(timely::Config::process(workers), move |worker| {
        let telling = Arc::clone(&telling);
        let net = Rc::new(checkpoint.network(&Device::Cpu).unwrap());
        let failure = Failure::default();
        let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, frames) = scope.new_input::<Vec<Frame>>();
            let (probe, _) = frames
                .admit(&AdmissionConfig::default(), &catalogue, Memory::of(net.config.history))
                .admitted
                .appoint(&net)
                .crop(&catalogue, false, &failure)
                .encode(batch, &failure)
                .quantize(batch, &failure)
                .drift(config, &failure)
                .inspect(move |drift| telling.lock().unwrap().push(drift.clone()))
                .probe();
            (input, probe)
        });
        for (epoch, chunk) in frames.chunks(per_epoch).enumerate() {
            if worker.index() == 0 {
                chunk.iter().for_each(|frame| input.send(frame.clone()));
            }
            input.advance_to(epoch as u64 + 1);
            worker.step();
        }
        input.close();
        worker.step_while(|| !probe.done());
        assert!(failure.take().is_none());
    })
    .unwrap();
    let mut all = told.lock().unwrap().clone();
    all.sort_by(|a: &Drift, b: &Drift| (&a.sensor, a.valid_time).cmp(&(&b.sensor, b.valid_time)));
    all
}

/// Training that used the codes in the order of their numbers, the first most.
fn training() -> (DriftConfig, Option<Usage>) {
    let usage = Usage { counts: (1..=8).rev().collect(), window: 9, usual: 0.2 };
    (DriftConfig { alarm: Some(0.5), window: Some(3) }, Some(usage))
}

#[test]
fn workers_and_batches_cannot_be_seen_in_drift() {
    let sizes = [("a", 16, 16), ("bb", 13, 18), ("ccc", 16, 16), ("dddd", 33, 20)];
    let catalogue = catalogue(&sizes, 1);
    let sensors: Vec<_> = catalogue.known().cloned().collect();
    let frames: Vec<_> =
        (0..8).flat_map(|step| sensors.iter().map(move |s| frame(s, step))).collect();
    let alone = watch(&training(), &catalogue, &frames, (1, 1, 4));
    assert_eq!(alone.len(), 4 * 8);
    assert_eq!(alone.iter().filter(|drift| drift.distance.is_some()).count(), 4 * 6);
    for how in [(1, 8, 4), (2, 4, 4), (4, 3, 4)] {
        assert_eq!(watch(&training(), &catalogue, &frames, how), alone, "{how:?}");
    }
}

#[test]
fn made_up_frames_do_not_count_and_read_again_ones_say_nothing() {
    let catalogue = catalogue(&[("a", 16, 16)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let whole: Vec<_> = (0..9).map(|step| frame(sensor, step)).collect();
    let one = (1, 4, 1);
    // Without frame 5 the gap is filled; the drift is that of the frames that came.
    let holed: Vec<_> = whole.iter().filter(|frame| frame.offset != 5).cloned().collect();
    let told = watch(&training(), &catalogue, &holed, one);
    assert_eq!(told.len(), 8);
    let times: Vec<Frame> = (0..8)
        .map(|at| Frame { valid_time: at as i64 * 10, offset: at as u64, ..holed[at].clone() })
        .collect();
    let distances = |all: &[Drift]| all.iter().map(|drift| drift.distance).collect::<Vec<_>>();
    assert_eq!(distances(&told), distances(&watch(&training(), &catalogue, &times, one)));

    // A restart reads frames 2 to 4 again: what it says from there on is what would have been.
    let mut again = whole[2..].to_vec();
    again[..3].iter_mut().for_each(|frame| frame.replay = true);
    let uninterrupted = watch(&training(), &catalogue, &whole, one);
    assert_eq!(watch(&training(), &catalogue, &again, one), uninterrupted[5..]);
}

#[test]
fn an_alarm_begins_above_and_ends_well_below() {
    let catalogue = catalogue(&[("a", 16, 16)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let frames: Vec<_> = (0..40).map(|step| frame(sensor, step)).collect();
    let told = watch(&training(), &catalogue, &frames, (1, 4, 1));
    let distances: Vec<f64> = told.iter().filter_map(|drift| drift.distance).collect();
    let mut sorted = distances.clone();
    sorted.sort_by(f64::total_cmp);
    let limit = sorted[sorted.len() / 2];
    assert!(sorted[0] < 0.9 * limit && limit < sorted[sorted.len() - 1], "{sorted:?}");
    let (config, usage) = training();
    let config = DriftConfig { alarm: Some(limit), ..config };
    let told = watch(&(config, usage), &catalogue, &frames, (1, 4, 1));
    let (mut alarm, mut held, mut ended) = (false, false, false);
    for (drift, &distance) in told[2..].iter().zip(&distances) {
        held |= alarm && distance <= limit && distance > 0.9 * limit;
        ended |= alarm && distance <= 0.9 * limit;
        alarm = distance > limit || alarm && distance > 0.9 * limit;
        assert_eq!(drift.alarm, alarm);
    }
    assert!(held && ended, "{distances:?}");
    // A model that does not say what is usual has missing pixels, and no distance.
    let told = watch(&(config, None), &catalogue, &frames, (1, 4, 1));
    assert!(told.iter().all(|drift| drift.distance.is_none() && !drift.alarm));
    assert_eq!(told.len(), 40);
}

#[test]
fn the_model_says_what_the_job_does_not() {
    let usage = Usage { counts: vec![3, 1], window: 45, usual: 0.2 };
    let silent = DriftConfig::default();
    assert_eq!((silent.window(Some(&usage)), silent.alarm(Some(&usage))), (45, 0.25));
    assert_eq!((silent.window(None), silent.alarm(None)), (96, 1.0));
    let own = DriftConfig { alarm: Some(0.3), window: Some(7) };
    assert_eq!((own.window(Some(&usage)), own.alarm(Some(&usage))), (7, 0.3));
}

#[test]
fn usage_is_kept_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let usage = Usage { counts: (0..8).collect(), window: 7, usual: 0.1 / 3.0 };
    fixed().save(&path).unwrap();
    let older = Checkpoint::load(&path).unwrap();
    assert_eq!(older.usage, None);

    Checkpoint::describe(&path, &usage).unwrap();
    let described = Checkpoint::load(&path).unwrap();
    assert_eq!(described.usage.as_ref(), Some(&usage));
    // What the model forecasts, and what it is called, are as before.
    assert_eq!((&described.id, &described.config), (&older.id, &older.config));
    described.save(&path).unwrap();
    let saved = Checkpoint::load(&path).unwrap();
    assert_eq!((saved.usage, saved.id), (described.usage, older.id));

    Checkpoint::describe(&path, &Usage { counts: vec![1; 7], ..usage }).unwrap();
    let error = Checkpoint::load(&path).err().unwrap().to_string();
    assert!(error.contains("7 codes"), "{error}");
}
