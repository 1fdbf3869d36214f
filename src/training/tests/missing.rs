//! Pixels that were not measured: in the loss, in views, and what augmentation does to them.

use super::*;

fn holed() -> Planes {
    let mut frames = frames(5, false);
    for (t, frame) in frames.iter_mut().enumerate() {
        frame.data[7 * SIDE + 3 + t] = f32::NAN;
    }
    Planes::new(&frames, &model())
}

fn plain(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_missing_target_does_not_count_and_a_missing_input_is_told() {
    let sample = holed().sample(&model(), false, String::new()).unwrap();
    let (target, weight) = (plain(&sample.target), plain(&sample.weight));
    let lost: Vec<usize> = (0..weight.len()).filter(|at| weight[*at] == 0.0).collect();
    // Frames 3 and 4 are the leads.
    let at = |t: usize, lead: usize| (7 * SIDE + 3 + t) * 2 + lead;
    assert_eq!(lost, [at(3, 0), at(4, 1)]);
    assert!(target.iter().all(|value| value.is_finite()));
    let (frames, mask) = (plain(&sample.batch.frames), plain(&sample.batch.mask));
    let unseen: Vec<usize> = (0..mask.len()).filter(|at| mask[*at] == 0.0).collect();
    assert_eq!(unseen, [0, 1, 2].map(|t| t * SIDE * SIDE + 7 * SIDE + 3 + t));
    assert!(frames.iter().all(|value| value.is_finite()));
    // The newest older measurement stands in; before the first frame there is none.
    assert_eq!(frames[unseen[0]], 0.0);
    assert_eq!(frames[unseen[1]], frames[unseen[1] - SIDE * SIDE]);
}

#[test]
fn no_gradient_comes_from_what_was_not_measured() {
    let settings =
        LossConfig { physical: 0.1, soft_csi: 0.5, thresholds: vec![0.5], ..LossConfig::default() };
    let mut model = model();
    model.variables[0].transform = Transform::Sqrt { scale: Some(1.0) };
    let loss = Loss::new(&settings, &model, &[1.0, 1.0], 1.0).unwrap();
    let sample = holed().sample(&model, false, String::new()).unwrap();
    let shape = sample.target.dims();
    let values: Vec<f32> = (0..SIDE * SIDE * 2).map(|i| (i as f32 * 0.37).sin()).collect();
    let field = candle_core::Var::from_vec(values, shape, &Device::Cpu).unwrap();
    let of = || field.as_tensor().clone();
    let out = Outputs {
        mean: of(),
        global: None,
        sharp: Some(of()),
        warped: of(),
        chosen: of(),
        displacement: of(),
        correction: None,
        commitment: None,
        latent: None,
    };
    let losses = loss.of(&out, &sample).unwrap();
    assert!(losses.parts.iter().all(|(_, value)| value.is_finite()));
    let slopes = losses.total.backward().unwrap();
    let slopes = plain(slopes.get(&field).unwrap());
    for (slope, weight) in slopes.iter().zip(plain(&sample.weight)) {
        assert_eq!(*slope == 0.0, weight == 0.0);
    }
}

#[test]
fn augmentation_moves_holes_with_their_frames_and_makes_new_ones_in_inputs_alone() {
    let count = |planes: &Planes| -> Vec<usize> {
        planes.frames.iter().map(|plane| plane.iter().filter(|v| v.is_nan()).count()).collect()
    };
    type Change = fn(&mut Planes);
    let changes: [Change; 4] =
        [Planes::flip_x, Planes::flip_y, Planes::transpose, |planes| planes.roll(5)];
    for change in changes {
        let mut planes = holed();
        change(&mut planes);
        assert_eq!(count(&planes), [1; 5]);
    }
    let (noise, dropout) = (0.3, 0.9);
    let augment = Augment { flip: true, noise, dropout, ..Augment::default() };
    let clean = holed();
    let mut more = 0;
    for seed in 0..8 {
        let mut planes = holed();
        planes.augment(&augment, &model().variables, &mut Random::new(seed, &[]));
        let lost = count(&planes);
        // A measurement is never made up, and the future stays as it was measured.
        assert!(lost[..3].iter().all(|count| *count >= 1));
        assert_eq!(lost[3..], [1, 1], "{lost:?}");
        more += usize::from(lost[..3].iter().any(|count| *count > 8));
        let sorted = |plane: &[f32]| {
            let mut bits: Vec<u32> = plane.iter().map(|value| value.to_bits()).collect();
            bits.sort_unstable();
            bits
        };
        assert_eq!(sorted(&planes.frames[4]), sorted(&clean.frames[4]));
        planes.sample(&model(), false, String::new()).unwrap();
    }
    assert!(more >= 6, "{more} of 8 lose blocks");
}

#[test]
fn a_view_with_too_little_in_it_is_refused() {
    let mut frames = frames(5, false);
    // The newest input is measured in its left half alone.
    for (at, value) in frames[2].data.iter_mut().enumerate() {
        if at % SIDE >= SIDE / 2 {
            *value = f32::NAN;
        }
    }
    let (mut kept, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut planes = Planes::new(&frames, &model());
        let good = planes.crop(4, 0.5, &mut Random::new(seed, &[]));
        let newest = &planes.frames[2];
        let measured = newest.iter().filter(|v| !v.is_nan()).count();
        assert_eq!(good, measured * 2 >= newest.len(), "{measured} of {}", newest.len());
        if good { kept += 1 } else { refused += 1 }
    }
    assert!(kept > 10 && refused > 10, "{kept} {refused}");
}
