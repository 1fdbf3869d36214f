//! Pixels that a sensor reports and that cannot be.

use super::*;
use crate::admission::Admitted;
use crate::cropping::{crop, model_input};

const SIDES: (usize, usize) = (24, 32);

/// What is served of four frames in which nothing moves, but for what `fault` does to the pixel in its
/// row and column of a step; and the share of missing pixels that each forecast tells.
fn served(
    checkpoint: &Checkpoint,
    fault: impl Fn(u64, usize, usize) -> Option<f32>,
) -> Vec<(Vec<u32>, f32)> {
    let (height, width) = SIDES;
    let catalogue = catalogue(&[("a", height, width)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let still = frame(sensor, 0).data;
    let one = |step: u64| {
        let mut frame = frame(sensor, step);
        for (at, value) in frame.data.iter_mut().enumerate() {
            *value = fault(step, at / width, at % width).unwrap_or(still[at]);
        }
        frame
    };
    let told = stream(checkpoint, &catalogue, (0..4).map(one).collect(), 1, 4, 1);
    let bits = |forecast: &Forecast| {
        let data = forecast.served().data.iter();
        (data.map(|value| value.to_bits()).collect(), forecast.missing)
    };
    told.iter().map(bits).collect()
}

/// How far the latents of a frame lie from their codes, at most.
fn furthest(checkpoint: &Checkpoint) -> f32 {
    let (height, width) = SIDES;
    let catalogue = catalogue(&[("a", height, width)], 1);
    let sensor = catalogue.get(&"a".into()).unwrap();
    let Frame { sensor: id, valid_time, offset, shape, data, .. } = frame(&sensor, 0);
    let (data, replay, scored, plan) = (Rc::new(data), false, false, None);
    let head = Admitted { sensor: id, valid_time, offset, shape, data, replay, scored, plan };
    let net = checkpoint.network(&Device::Cpu).unwrap();
    let input = model_input(&crop(head, &sensor, &net.config), &Device::Cpu).unwrap();
    let latent = net.encoder.as_ref().unwrap().forward(&input, None).unwrap().latent;
    let codebook = net.codebook.as_ref().unwrap();
    let apart = codebook.apart(&latent, &codebook.codes(&latent).unwrap()).unwrap();
    apart.into_iter().fold(0.0, f32::max)
}

/// A model that doubts what lies further from its codes than anything in a frame of the test.
fn doubting(boundary: Boundary) -> [Checkpoint; 2] {
    let trusting = shaken(&ModelConfig { boundary, ..small(1) });
    let faults = Some(1.01 * furthest(&trusting));
    let config = ModelConfig { faults, ..trusting.config.clone() };
    [trusting.clone(), Checkpoint { config, ..trusting }]
}

/// Where nothing moves, what one frame shows that cannot be is as if it had not come, to the bit.
#[test]
fn what_no_training_frame_ever_showed_is_taken_for_missing() {
    for boundary in [Boundary::Open, Boundary::Periodic] {
        let [trusting, doubting] = doubting(boundary);
        let whole = served(&trusting, |_, _, _| None);
        assert_eq!(whole.len(), 2);
        assert!(served(&doubting, |_, _, _| None) == whole, "a true frame is left alone");
        let stuck = |step, row, column| {
            let hit = step == 1 && (7..15).contains(&row) && (9..22).contains(&column);
            hit.then_some(200.0)
        };
        let bits = |told: &[(Vec<u32>, f32)]| -> Vec<Vec<u32>> {
            told.iter().map(|(bits, _)| bits.clone()).collect()
        };
        let (blind, seen) = (served(&trusting, stuck), served(&doubting, stuck));
        assert!(bits(&blind) != bits(&whole), "{boundary:?}");
        assert!(bits(&seen) == bits(&whole), "{boundary:?}");
        // What was doubted is told as missing.
        assert!(seen.iter().all(|(_, missing)| *missing > 0.0));
        assert!(blind.iter().all(|(_, missing)| *missing == 0.0));
    }
}

/// What every frame of a window shows is news, however strange it is.
#[test]
fn what_stays_is_no_fault() {
    let [trusting, doubting] = doubting(Boundary::Open);
    let storm = |_, row, _| (row < 9).then_some(200.0);
    assert!(served(&trusting, storm) == served(&doubting, storm));
}
