//! What a swap promises: one network in an epoch, on all workers, and nothing lost or doubled.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use physicnet_stream::{Catalogue, Failure, Forecast, Frame, Product, SensorId};
use timely::dataflow::operators::vec::Filter;
use timely::dataflow::operators::{Input, Inspect, Probe};

use super::*;
use crate::admission::{AdmissionConfig, Admit, Gap, Memory};
use crate::cropping::{Crop, Transform};
use crate::encoding::Encode;
use crate::experts::{Bank, Consult};
use crate::fusion::{Fuse, FuseConfig};
use crate::model::{Checkpoint, ModelConfig};
use crate::quantization::Quantize;
use crate::scoring::{Score, ScoringConfig};
use crate::tests::{catalogue, frame, small};
use crate::windowing::Windowed;

/// A network of its own weights and transform, as the bytes of its file too.
fn network(seed: usize, mean: f64) -> (Checkpoint, Vec<u8>) {
    let mut config = ModelConfig { skips: 2, local: true, ..small(1) };
    config.variables[0].transform = Transform::Standardise { mean: Some(mean), std: Some(0.7) };
    let mut checkpoint = Checkpoint::untrained(&config).unwrap();
    for (i, weight) in checkpoint.weights.values_mut().enumerate() {
        let wave = |k: usize| 0.2 * ((k * 7 + i * 13 + seed * 31) as f32).sin();
        let wave: Vec<f32> = (0..weight.elem_count()).map(wave).collect();
        *weight = Tensor::from_vec(wave, weight.dims(), &Device::Cpu).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    checkpoint.save(&path).unwrap();
    (Checkpoint::load(&path).unwrap(), std::fs::read(&path).unwrap())
}

/// Sensors of different sizes, and what comes of them in each epoch: a frame in most, one lost,
/// one that comes late and one that is corrected after the swap.
fn arrivals() -> (Catalogue, Vec<Vec<Frame>>) {
    let sizes = [("a", 16, 16), ("bb", 13, 18), ("ccc", 16, 16), ("dddd", 20, 12)];
    let catalogue = catalogue(&sizes, 1);
    let mut epochs = vec![Vec::new(); 20];
    for sensor in catalogue.known() {
        for step in 0..18 {
            let made = frame(sensor, step);
            match (sensor.id.as_str(), step) {
                ("a", 5) => {}
                ("bb", 7) => epochs[18].push(Frame { offset: 18, ..made }),
                ("ccc", 8) => {
                    let data = made.data.iter().map(|value| value + 0.5).collect();
                    epochs[8].push(made.clone());
                    epochs[19].push(Frame { offset: 19, data, ..made });
                }
                _ => epochs[step as usize].push(made),
            }
        }
    }
    (catalogue, epochs)
}

/// A history of one sensor, whose frames come in every second epoch: of step `late` late, after the
/// next one, or, if it is `corrected`, again then. From step `back` on its clock is set back.
fn history(late: u64, corrected: bool, back: u64) -> (Catalogue, Vec<Vec<Frame>>) {
    let catalogue = catalogue(&[("a", 16, 16)], 1);
    let mut epochs = vec![Vec::new(); 40];
    for sensor in catalogue.known() {
        for step in 0..20 {
            let mut made = frame(sensor, step);
            made.valid_time += if step < back { 5000 } else { 0 };
            if step == late {
                let data = made.data.iter().map(|value| value + 0.5).collect();
                epochs[2 * step as usize + 3].push(Frame { data, offset: 100, ..made.clone() });
            }
            if step != late || corrected {
                epochs[2 * step as usize].push(made);
            }
        }
    }
    (catalogue, epochs)
}

/// How a run is cut up: workers, batch, and by how many epochs frames run ahead of what is known
/// of changes.
type How = (usize, usize, usize);

/// Streams the frames, epoch by epoch, with the `changes` at theirs: what is forecast in which
/// epoch, and how a trial stands at the end.
fn stream(
    first: &Checkpoint,
    changes: &[(usize, Change)],
    tried: &Checkpoint,
    how: How,
) -> (Vec<(u64, Forecast)>, u64, Option<f64>) {
    stream_of(&arrivals(), Gap::Hold, first, changes, tried, how)
}

fn stream_of(
    arrivals: &(Catalogue, Vec<Vec<Frame>>),
    gap: Gap,
    first: &Checkpoint,
    changes: &[(usize, Change)],
    tried: &Checkpoint,
    (workers, batch, ahead): How,
) -> (Vec<(u64, Forecast)>, u64, Option<f64>) {
    let made = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&made);
    let trial = Trial::default();
    trial.begin(&tried.id);
    let (first, changes, kept) = (first.clone(), changes.to_vec(), trial.clone());
    let arrivals = arrivals.clone();
    timely::execute(timely::Config::process(workers), move |worker| {
        let all = Arc::clone(&all);
        let (catalogue, epochs) = &arrivals;
        let net = Rc::new(first.network(&Device::Cpu).unwrap());
        let failure = Failure::default();
        let config = FuseConfig { products: vec!["advection".into()], leads: None };
        let revise_within = Some(12);
        let admission = AdmissionConfig { gap, revise_within, ..AdmissionConfig::default() };
        let load = |bytes: &[u8]| Checkpoint::from_bytes(bytes, "swap")?.network(&Device::Cpu);
        let (mut frames, mut told, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (frame_input, frames) = scope.new_input::<Vec<Frame>>();
            let (change_input, changes) = scope.new_input::<Vec<Change>>();
            let observed = frames.clone();
            let memory = Memory::of(net.config.history);
            let forecasts = frames
                .admit(&admission, catalogue, memory)
                .admitted
                .appoint_by(&net, changes, load, &failure)
                .crop(catalogue, true, &failure)
                .encode(batch, &failure)
                .quantize(batch, &failure)
                .windows(false, &failure)
                .consult(&Bank::default(), batch, &failure)
                .fuse(&config, batch, &failure);
            let served = forecasts.clone().filter(|forecast| !forecast.candidate);
            let candidates = forecasts.clone().filter(|forecast| forecast.candidate);
            let scoring = ScoringConfig { correct_within: 12, ..ScoringConfig::default() };
            let pairs = served.beside(candidates).verify(observed, &scoring);
            let (probe, _) = tally(pairs, &trial).probe();
            forecasts.inspect_core(move |event| {
                let Ok((stamp, forecasts)) = event else { return };
                let epoch = *stamp.iter().next().unwrap();
                let made = forecasts.iter().map(|forecast| (epoch, forecast.clone()));
                all.lock().unwrap().extend(made);
            });
            (frame_input, change_input, probe)
        });
        for epoch in 0..epochs.len() + ahead {
            if worker.index() == 0 {
                epochs.iter().skip(epoch).take(1).flatten().for_each(|f| frames.send(f.clone()));
                let now = changes.iter().filter(|(at, _)| at + ahead == epoch);
                now.for_each(|(_, change)| told.send(change.clone()));
            }
            frames.advance_to(epoch as u64 + 1);
            told.advance_to((epoch + 1).saturating_sub(ahead) as u64);
            worker.step();
        }
        frames.close();
        told.close();
        worker.step_while(|| !probe.done());
        assert!(failure.take().is_none());
    })
    .unwrap();
    let mut all = made.lock().unwrap().clone();
    let key =
        |(epoch, f): &(u64, Forecast)| (*epoch, f.candidate, f.sensor.clone(), f.reference_time);
    all.sort_by_key(key);
    (all, kept.frames(), kept.ratio())
}

/// What is the same for the same forecast, bit by bit.
type Bits = (u64, SensorId, i64, u32, Arc<str>, Vec<u32>);

fn bits((epoch, forecast): &(u64, Forecast)) -> Bits {
    let data = forecast.products.iter().flat_map(|product| product.data.iter());
    (
        *epoch,
        forecast.sensor.clone(),
        forecast.reference_time,
        forecast.revision,
        Arc::clone(&forecast.model),
        data.map(|value| value.to_bits()).collect::<Vec<_>>(),
    )
}

#[test]
fn a_swap_is_seen_between_two_epochs_and_nowhere_else() {
    let ((old, back), (new, bytes)) = (network(1, 0.1), network(2, -0.2));
    let one = (1, 4, 0);
    let (of_old, ..) = stream(&old, &[], &new, one);
    let (of_new, ..) = stream(&new, &[], &new, one);
    assert_eq!(of_old.len(), of_new.len());
    assert!(of_old.iter().any(|(_, forecast)| forecast.revision > 0));
    let changes = [
        (4, Change::Try(bytes.clone())),
        (11, Change::Take),
        // Back without a trial, and the new one again, just before what is late comes.
        (14, Change::Try(back)),
        (14, Change::Take),
        (17, Change::Try(bytes)),
        (17, Change::Take),
    ];
    let by_new = |epoch: u64| (11..14).contains(&epoch) || epoch >= 17;
    type Made = (u64, Forecast);
    let expected =
        |(old, new): (&Made, &Made)| -> Bits { if by_new(new.0) { bits(new) } else { bits(old) } };
    let tried: Vec<_> = of_new.iter().filter(|(epoch, _)| (4..11).contains(epoch)).collect();
    let mut standing = None;
    for how in [one, (1, 1, 5), (2, 8, 3), (3, 4, 1)] {
        let (all, frames, ratio) = stream(&old, &changes, &new, how);
        let (candidates, served): (Vec<_>, Vec<_>) = all.iter().partition(|(_, f)| f.candidate);
        assert!(
            served.into_iter().map(bits).eq(of_old.iter().zip(&of_new).map(expected)),
            "{how:?}"
        );
        // From its first epoch on it has windows, of frames from before its time.
        assert!(candidates.into_iter().map(bits).eq(tried.iter().copied().map(bits)), "{how:?}");
        assert_eq!(*standing.get_or_insert((frames, ratio)), (frames, ratio), "{how:?}");
    }
    // Reference times 4 to 10 of two sensors, each verified by the next frame. Of another, frame 5
    // never comes: nothing starts from it, and nothing verifies what starts from 4. Of the last,
    // frame 7 comes when the trial is over: nothing starts from it, but it verifies.
    let (frames, ratio) = standing.unwrap();
    assert_eq!(frames, 7 + 7 + 5 + 6, "{ratio:?}");
    assert!(ratio.unwrap() > 0.0);
}

#[test]
fn a_candidate_that_is_dropped_leaves_no_trace() {
    let ((old, _), (new, bytes)) = (network(1, 0.1), network(2, -0.2));
    let (alone, ..) = stream(&old, &[], &new, (1, 4, 0));
    let changes = [(3, Change::Try(bytes)), (9, Change::Drop)];
    let (all, ..) = stream(&old, &changes, &new, (2, 3, 2));
    assert!(all.iter().any(|(epoch, f)| f.candidate && *epoch == 8));
    assert!(!all.iter().any(|(epoch, f)| f.candidate && *epoch >= 9));
    let served = all.iter().filter(|(_, f)| !f.candidate).map(bits);
    assert!(served.eq(alone.iter().map(bits)));
}

#[test]
fn a_newcomer_sees_what_the_one_that_serves_has_seen() {
    let ((old, _), (gone, dropped), (new, bytes)) =
        (network(1, 0.1), network(3, 0.4), network(2, -0.2));
    let one = (1, 4, 0);
    let mut seen = 0;
    let never = u64::MAX;
    let cases = (4..9).flat_map(|late| [true, false].map(|corrected| (late, corrected, never)));
    // A swap, and the clock set back while frames of before it are kept for windows.
    for (late, corrected, back) in cases.chain([(never, false, 9)]) {
        let arrivals = history(late, corrected, back);
        let at = if back == never { 2 * late as usize + 4 } else { 2 * back as usize + 9 };
        let mut changes = if back == never {
            // It sees the newest frame and is gone when the one before it comes.
            vec![(at - 5, Change::Try(dropped.clone())), (at - 1, Change::Drop)]
        } else {
            vec![(at - 10, Change::Try(dropped.clone())), (at - 10, Change::Take)]
        };
        let first = if back == never { &old } else { &gone };
        changes.extend([(at, Change::Try(bytes.clone())), (at, Change::Take)]);
        for gap in [Gap::Hold, Gap::Skip] {
            let whole = |first, changes: &[_]| {
                let (all, ..) = stream_of(&arrivals, gap, first, changes, &new, one);
                all.iter().filter(|(_, f)| !f.candidate).map(bits).collect::<Vec<_>>()
            };
            let (before, after) = (whole(first, &[]), whole(&new, &[]));
            let swapped = whole(&old, &changes);
            let since = if back == never { 0 } else { at as u64 - 10 };
            for ((before, after), made) in before.iter().zip(&after).zip(&swapped) {
                let expected = if made.0 < at as u64 { before } else { after };
                assert!(made.0 < since || made == expected, "{late} {corrected} {back} {gap:?}");
            }
            assert_eq!(swapped.len(), after.len());
            seen += after.iter().filter(|made| made.0 >= at as u64).count();
        }
    }
    assert!(seen > 100, "{seen}");
}

/// How a trial stands after frames of `observed`, every forecast of which was `served` by the
/// incumbent and `tried` by the candidate: values by lead, the same for all pixels.
fn standing(observed: f32, served: [f32; 2], tried: [f32; 2]) -> Trial {
    let trial = Trial::default();
    trial.begin(&"new".into());
    let kept = trial.clone();
    timely::execute_directly(move |worker| {
        let catalogue = catalogue(&[("a", 4, 4)], 1);
        let sensor = Arc::clone(catalogue.known().next().unwrap());
        let (mut inputs, mut frames, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (served, serving) = scope.new_input();
            let (tried, trying) = scope.new_input();
            let (frames, observed) = scope.new_input();
            let pairs = serving.beside(trying).verify(observed, &ScoringConfig::default());
            let (probe, _) = tally(pairs, &trial).probe();
            ([served, tried], frames, probe)
        });
        let forecast = |values: [f32; 2], model: &str, step: u64| {
            let mut data: Vec<f32> = values.iter().flat_map(|value| [*value; 16]).collect();
            // Never measured: neither forecasts it.
            (data[3], data[19]) = (f32::NAN, f32::NAN);
            Forecast {
                sensor: sensor.id.clone(),
                reference_time: step as i64 * 10,
                cadence: sensor.cadence,
                shape: [2, 1, 4, 4],
                products: vec![Product { name: "physicnet".into(), data: Arc::new(data) }],
                serving: None,
                ensemble: None,
                model: model.into(),
                candidate: model == "new",
                revision: 0,
                missing: 0.0,
                offset: step,
                frame_time: step as i64 * 10,
                replay_from: 0,
                replay: false,
                scored: false,
            }
        };
        for step in 0..7 {
            inputs[0].send(forecast(served, "old", step));
            inputs[1].send(forecast(tried, "new", step));
            frames.send(Frame { data: vec![observed; 16], ..frame(&sensor, step) });
            inputs.iter_mut().for_each(|input| input.advance_to(step + 1));
            frames.advance_to(step + 1);
        }
        inputs.into_iter().for_each(|input| input.close());
        frames.close();
        worker.step_while(|| !probe.done());
    });
    kept
}

#[test]
fn what_is_no_forecast_wins_no_trial() {
    // It lacks a lead, or all; or squares beyond what a sum holds: of six, or of eight, it wraps.
    for tried in [[1.0, f32::NAN], [f32::NAN; 2], [1e20; 2], [2.0, -3e38], [f32::INFINITY; 2]] {
        let trial = standing(1.0, [1.5, 2.0], tried);
        assert!(trial.is_spoiled(), "{tried:?}");
        assert_eq!(trial.frames(), 6, "{tried:?}");
    }
    // Where it rains nowhere and the incumbent says so, drizzle is worse, and as dry as good.
    for (served, tried, ratio) in [
        ([0.0; 2], [0.01, 0.0], 1e3),
        ([0.0; 2], [0.0; 2], 1.0),
        ([0.1, 0.2], [0.0; 2], 1e-6),
        ([0.1, 0.2], [0.2, 0.1], 1.0),
        // An incumbent that exploded has no error that could be told.
        ([f32::NAN, 0.1], [7.0, 0.2], 4.0),
    ] {
        let trial = standing(0.0, served, tried);
        assert!(!trial.is_spoiled() && trial.frames() == 6, "{served:?} {tried:?}");
        let told = trial.ratio().unwrap();
        assert!((told / ratio - 1.0).abs() < 1e-5, "{served:?} {tried:?}: {told}");
    }
}

#[test]
fn the_better_one_has_the_smaller_error() {
    let (old, _) = network(1, 0.1);
    let mut config =
        ModelConfig { learned_flow: false, gate: false, residual: false, ..old.config.clone() };
    config.local = false;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // Advection alone, on a field that is carried along, beside weights that nobody trained.
    Checkpoint::untrained(&config).unwrap().save(&path).unwrap();
    let (new, bytes) = (Checkpoint::load(&path).unwrap(), std::fs::read(&path).unwrap());
    let (_, frames, ratio) = stream(&old, &[(4, Change::Try(bytes))], &new, (1, 4, 0));
    assert!(frames > 40 && ratio.unwrap() < 0.5, "{frames} {ratio:?}");
}
