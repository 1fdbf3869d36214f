//! Forecasts beyond the network's horizon.

use super::*;

const PRODUCTS: [&str; 3] = ["physicnet", "mean", "sharp"];

/// A network with every part that looks back, and a place that nobody ever measures.
fn watched() -> (ModelConfig, Catalogue, Vec<Frame>) {
    let config = ModelConfig {
        sharp: true,
        local: true,
        skips: 2,
        tendency: 2,
        quantization: Quantization::Hard,
        ramp: [0.4, 0.1],
        ..small(2)
    };
    let sensors = catalogue(&[("a", 18, 21)], 2);
    let blind = |mut frame: Frame| {
        frame.data[100..103].fill(f32::NAN);
        frame
    };
    let sensor = sensors.get(&"a".into()).unwrap();
    let frames = (0..3).map(|step| blind(frame(&sensor, step))).collect();
    (config, sensors, frames)
}

/// Asserts the same bits, as far as `expected` goes.
fn same(found: &[f32], expected: &[f32], name: &str) {
    assert!(found.len() >= expected.len(), "{name}: {} of {}", found.len(), expected.len());
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{name}, value {at}: {a}, not {b}");
    }
}

/// Leads as frames that a sensor might have sent are forecast from as these are.
#[test]
fn a_roll_out_is_a_forecast_from_its_own_leads() {
    for history in [2, 3] {
        let (mut config, sensors, mut frames) = watched();
        config.history = history;
        config.tendency = 1;
        let checkpoint = shaken(&config);
        frames.drain(..3 - history);
        let rolled = stream_to(Some(5), &checkpoint, &sensors, frames.clone(), 1, 4, 1).remove(0);
        assert_eq!((rolled.shape, rolled.reference_time), ([5, 2, 18, 21], 20));
        let plane = 2 * 18 * 21;
        for from in [0, 2, 4] {
            let told = stream(&checkpoint, &sensors, frames.clone(), 1, 4, 1).remove(0);
            assert_eq!(told.reference_time, 20 + 10 * from as i64);
            let count = plane * (5 - from).min(2);
            for name in PRODUCTS {
                let own = &product(&rolled, name)[from * plane..][..count];
                assert!(own.iter().any(|value| value.is_nan()), "{name}");
                same(own, &product(&told, name)[..count], name);
            }
            let served = product(&told, "physicnet");
            let last = frames.last().unwrap().clone();
            let next = (1..=2).map(|lead| Frame {
                valid_time: told.valid_time(lead),
                offset: last.offset + lead as u64,
                data: served[(lead - 1) * plane..][..plane].to_vec(),
                ..last.clone()
            });
            frames.extend(next);
            frames.drain(..2);
        }
    }
}

#[test]
fn what_it_is_held_against_goes_as_far() {
    let (config, sensors, frames) = watched();
    let checkpoint = shaken(&config);
    let of = |leads| stream_to(leads, &checkpoint, &sensors, frames.clone(), 1, 4, 1).remove(0);
    let (rolled, own, one) = (of(Some(5)), of(None), of(Some(1)));
    let classical = ModelConfig { horizon: 5, expert: Expert::Advection, ..config.clone() };
    let classical = Checkpoint::untrained(&classical).unwrap();
    let classical = stream(&classical, &sensors, frames.clone(), 1, 4, 1).remove(0);
    let baselines = ["persistence", "advection", "trend"];
    for name in baselines {
        same(&product(&rolled, name), &product(&classical, name), name);
    }
    for name in [PRODUCTS, baselines].concat() {
        let all = product(&own, name);
        same(&product(&rolled, name), &all, name);
        same(&all, &product(&one, name), name);
    }
    assert_eq!((rolled.shape[0], own.shape[0], one.shape[0]), (5, 2, 1));
}

#[test]
fn a_roll_out_does_not_depend_on_its_batch() {
    let (config, ..) = watched();
    let checkpoint = shaken(&ModelConfig { variables: small(1).variables, ..config });
    let sensors = catalogue(&[("a", 16, 16), ("bb", 13, 18), ("ccc", 16, 16)], 1);
    let known: Vec<_> = sensors.known().cloned().collect();
    let frames: Vec<_> =
        (0..5).flat_map(|step| known.iter().map(move |sensor| frame(sensor, step))).collect();
    let told = |workers, batch, per_epoch| {
        bits(&stream_to(Some(7), &checkpoint, &sensors, frames.clone(), workers, batch, per_epoch))
    };
    let alone = told(1, 1, 1);
    assert_eq!(alone.len(), 3 * 3);
    assert!(told(1, 8, 15) == alone);
    assert!(told(2, 4, 4) == alone);
}
