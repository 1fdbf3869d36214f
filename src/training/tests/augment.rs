//! What a window is turned into before it is trained on.

use super::*;

#[test]
fn symmetries_move_frames_and_flow_together() {
    let model = model();
    type Change = fn(&mut Planes);
    let changes: [(&str, Change); 4] = [
        ("flip x", Planes::flip_x),
        ("flip y", Planes::flip_y),
        ("transpose", Planes::transpose),
        ("roll", |planes| planes.roll(5)),
    ];
    for (name, change) in changes {
        let mut planes = Planes::new(&frames(5, false), &model);
        change(&mut planes);
        let [newest, previous] = [2, 1].map(|t| planes.frames[t].clone());
        let again =
            between(&newest, &previous, SIDE, SIDE, &Transform::Identity, Boundary::Periodic);
        let off = planes.flow.iter().zip(&again).map(|(a, b)| (a - b).abs()).sum::<f32>();
        let moved = again.iter().map(|v| v.abs()).sum::<f32>();
        assert!(moved > 100.0 && off < 0.25 * moved, "{name}: {off} of {moved}");
    }
}

#[test]
fn a_window_is_scaled_in_physical_units() {
    let mut model = model();
    model.variables[0].transform = Transform::LogRate { floor: 0.1 };
    let mut rain = frames(5, true);
    let rates = [0.0, 0.3, 7.0];
    for frame in &mut rain {
        let wet = frame.data.iter_mut().filter(|value| !value.is_nan()).enumerate();
        wet.for_each(|(at, value)| *value = rates[at % 3]);
    }
    let mut planes = Planes::new(&rain, &model);
    let before = planes.frames.clone();
    planes.multiply(3.0, &model.variables);
    let rate = |value: f32| model.variables[0].transform.inverse(value);
    let (before, after) = (before.concat(), planes.frames.concat());
    assert!(before.iter().any(|value| value.is_nan()));
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(before.is_nan(), after.is_nan());
        let (wanted, got) = (3.0 * rate(before), rate(after));
        assert!(before.is_nan() || (got - wanted).abs() <= 1e-5 * (1.0 + wanted), "{before}");
    }

    // Drawn for each window, between the factor and its inverse.
    let augment = Augment { scale: 4.0, ..Augment::default() };
    let factors: Vec<f32> = (0..200)
        .map(|window| {
            let mut planes = Planes::new(&rain, &model);
            planes.augment(&augment, &model.variables, &mut Random::new(7, &[window]));
            let highest = planes.frames.concat().into_iter().fold(0.0, f32::max);
            rate(highest) / 7.0
        })
        .collect();
    let [least, most] = [f32::min, f32::max].map(|of| factors.iter().copied().reduce(of).unwrap());
    assert!((0.249..0.3).contains(&least) && (3.3..4.001).contains(&most), "{least} {most}");
    let above = factors.iter().filter(|factor| **factor > 1.0).count();
    assert!((70..130).contains(&above), "{above}");
}
