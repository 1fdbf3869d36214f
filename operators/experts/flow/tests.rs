//! Known motions are found, borders behave, and nothing depends on chance.

use super::*;
use crate::layers::Boundary;

/// A smooth field of blobs and ripples, 0..255, periodic in 64 pixels, its larger scales the stronger as in nature.
fn texture(y: f32, x: f32) -> f32 {
    let wave = |fy: f32, fx: f32, phase: f32| {
        ((fy * y + fx * x) * std::f32::consts::TAU / 64.0 + phase).sin()
    };
    let coarse = 1.5 * wave(1.0, 2.0, 0.3) + 1.2 * wave(3.0, -1.0, 1.1);
    let fine = 0.6 * wave(2.0, 5.0, 2.0) + 0.5 * wave(6.0, -4.0, 0.5) + 0.3 * wave(-7.0, 8.0, 4.0);
    127.0 + 28.0 * (coarse + fine)
}

/// The pair of images whose backward flow is `motion(y, x) = (dx, dy)`.
fn pair(
    height: usize,
    width: usize,
    motion: impl Fn(f32, f32) -> (f32, f32),
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let places = || (0..height * width).map(|p| ((p / width) as f32, (p % width) as f32));
    let previous = places().map(|(y, x)| texture(y, x)).collect();
    let newest = places()
        .map(|(y, x)| (y, x, motion(y, x)))
        .map(|(y, x, (dx, dy))| texture(y + dy, x + dx))
        .collect();
    let truth = places().map(|(y, x)| motion(y, x)).flat_map(|(dx, dy)| [dx, dy]).collect();
    (newest, previous, truth)
}

/// Mean end-point error, leaving out a frame of `margin` pixels.
fn error(v: &[f32], truth: &[f32], height: usize, width: usize, margin: usize) -> f32 {
    let inside = |y: usize, x: usize| {
        y >= margin && x >= margin && y + margin < height && x + margin < width
    };
    let all: Vec<f32> = (0..height * width)
        .filter(|p| inside(p / width, p % width))
        .map(|p| (v[2 * p] - truth[2 * p]).hypot(v[2 * p + 1] - truth[2 * p + 1]))
        .collect();
    all.iter().sum::<f32>() / all.len() as f32
}

#[test]
fn translations_are_found() {
    for (height, width, dx, dy) in
        [(64, 64, 1.3, -0.6), (96, 128, -4.0, 2.5), (128, 128, 12.0, 0.0), (97, 131, -7.0, 7.0)]
    {
        let (newest, previous, truth) = pair(height, width, |_, _| (dx, dy));
        let v = estimate(&newest, &previous, height, width, Boundary::Open);
        let error = error(&v, &truth, height, width, 16);
        assert!(error < 0.15, "({dx}, {dy}) on {height} x {width}: {error} px");
    }
}

#[test]
fn rotation_and_zoom_are_found() {
    for (turn, grow) in [(0.04_f32, 0.0_f32), (0.0, 0.05), (-0.03, -0.03)] {
        let motion = |y: f32, x: f32| {
            let (y, x) = (y - 64.0, x - 64.0);
            (grow * x - turn * y, turn * x + grow * y)
        };
        let (newest, previous, truth) = pair(128, 128, motion);
        let v = estimate(&newest, &previous, 128, 128, Boundary::Open);
        let (found, idle) =
            (error(&v, &truth, 128, 128, 8), error(&vec![0.0; v.len()], &truth, 128, 128, 8));
        assert!(
            found < 0.15 && found < 0.1 * idle,
            "turn {turn}, grow {grow}: {found} px of {idle}"
        );
    }
}

#[test]
fn periodic_motion_is_found_up_to_the_border() {
    let (newest, previous, truth) = pair(64, 64, |_, _| (5.0, -3.0));
    let wrapped = estimate(&newest, &previous, 64, 64, Boundary::Periodic);
    let error = error(&wrapped, &truth, 64, 64, 0);
    assert!(error < 0.15, "{error} px");
}

#[test]
fn any_size_and_any_value_give_a_finite_flow() {
    for (height, width) in [(4, 4), (5, 70), (33, 49), (64, 64), (100, 7)] {
        let (mut newest, previous, _) = pair(height, width, |_, _| (1.0, 1.0));
        newest[3] = f32::NAN;
        newest[5] = f32::INFINITY;
        newest[7] = -1e30;
        for boundary in [Boundary::Open, Boundary::Periodic] {
            let v = estimate(&newest, &previous, height, width, boundary);
            assert_eq!(v.len(), 2 * height * width);
            assert!(v.iter().all(|v| v.is_finite()));
        }
    }
    let empty = estimate(&[], &[], 0, 9, Boundary::Open);
    assert!(empty.is_empty());
}

#[test]
fn still_and_constant_images_do_not_move() {
    let flat = vec![80.0; 40 * 40];
    assert_eq!(estimate(&flat, &flat, 40, 40, Boundary::Open), vec![0.0; 2 * 40 * 40]);
    let (_, still, _) = pair(40, 40, |_, _| (0.0, 0.0));
    assert_eq!(estimate(&still, &still, 40, 40, Boundary::Open), vec![0.0; 2 * 40 * 40]);
}

#[test]
fn the_same_pair_gives_the_same_bits() {
    let (newest, previous, _) = pair(70, 90, |y, x| (0.02 * y, 1.0 - 0.03 * x));
    let run = || {
        estimate(&newest, &previous, 70, 90, Boundary::Open)
            .into_iter()
            .map(f32::to_bits)
            .collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(
        first,
        std::thread::spawn({
            let (newest, previous) = (newest.clone(), previous.clone());
            move || {
                estimate(&newest, &previous, 70, 90, Boundary::Open)
                    .into_iter()
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            }
        })
        .join()
        .unwrap()
    );
    assert_eq!(first, run());
}

#[test]
fn a_uniform_flow_composes_to_its_multiples() {
    let v: Vec<f32> = [1.5, -0.5].repeat(6 * 8);
    for boundary in [Boundary::Open, Boundary::Periodic] {
        let d = displacements(&v, 6, 8, 3, boundary);
        assert_eq!(d, [1.5, -0.5, 3.0, -1.0, 4.5, -1.5].repeat(6 * 8));
    }
    assert!(displacements(&v, 6, 8, 0, Boundary::Open).is_empty());
}

/// The paths as their definition has them: pixel by pixel, step by step.
fn slow_displacements(v: &[f32], h: usize, w: usize, leads: usize, boundary: Boundary) -> Vec<f32> {
    let flow_at = |y: f32, x: f32| {
        [0, 1].map(|k| {
            let one: Vec<f32> = v.iter().skip(k).step_by(2).copied().collect();
            plane::bilinear(&one, h, w, y, x, boundary)
        })
    };
    let mut out = Vec::new();
    for p in 0..h * w {
        let ([mut dx, mut dy], mut stride) = ([0.0_f32; 2], [v[2 * p], v[2 * p + 1]]);
        for _ in 0..leads {
            let (half_y, half_x) = (dy + 0.5 * stride[1], dx + 0.5 * stride[0]);
            stride = flow_at((p / w) as f32 + half_y, (p % w) as f32 + half_x);
            (dx, dy) = (dx + stride[0], dy + stride[1]);
            out.extend([dx, dy]);
        }
    }
    out
}

#[test]
fn paths_are_their_definition_to_the_bit() {
    let bits = |all: Vec<f32>| all.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for (h, w) in [(1, 1), (1, 5), (6, 1), (5, 16), (7, 19), (9, 40)] {
        // Some leave the domain, by more than its size.
        let v = |at: usize| 9.0 * (0.37 * at as f32).sin() * (0.011 * at as f32).cos();
        let v: Vec<f32> = (0..2 * h * w).map(v).collect();
        for boundary in [Boundary::Open, Boundary::Periodic] {
            let fast = bits(displacements(&v, h, w, 5, boundary));
            assert_eq!(fast, bits(slow_displacements(&v, h, w, 5, boundary)), "{h} x {w}");
        }
    }
}

#[test]
fn a_rotation_composes_to_an_arc() {
    let (n, turn, leads) = (65, 0.05_f32, 12);
    // The chord of one step, so that composed exactly every lead lies on the circle.
    let centred = |p: usize| ((p / n) as f32 - 32.0, (p % n) as f32 - 32.0);
    let arc = |p: usize, angle: f32| {
        let (y, x) = centred(p);
        let (sin, cos) = angle.sin_cos();
        (cos * x - sin * y - x, sin * x + cos * y - y)
    };
    let v: Vec<f32> = (0..n * n).map(centred).flat_map(|(y, x)| [-turn * y, turn * x]).collect();
    let d = displacements(&v, n, n, leads, Boundary::Open);
    let p = 32 * n + 32 + 20;
    let (dx, dy) = arc(p, turn * leads as f32);
    let last = &d[(p + 1) * 2 * leads - 2..(p + 1) * 2 * leads];
    assert!((last[0] - dx).hypot(last[1] - dy) < 0.1, "{last:?} instead of {dx}, {dy}");
}

#[test]
fn advection_clamps_or_wraps_at_the_border() {
    let field = [0.0, 1.0, 2.0, 3.0];
    let d = [1.5, 0.0].repeat(4);
    assert_eq!(advect(&field, &d, 1, 4, Boundary::Open), [1.5, 2.5, 3.0, 3.0]);
    assert_eq!(advect(&field, &d, 1, 4, Boundary::Periodic), [1.5, 2.5, 1.5, 0.5]);
}

#[test]
fn an_advected_image_lands_on_the_next_one() {
    let (newest, previous, _) = pair(96, 96, |_, _| (-3.0, 2.0));
    let v = estimate(&newest, &previous, 96, 96, Boundary::Open);
    let next =
        advect(&newest, &displacements(&v, 96, 96, 1, Boundary::Open), 96, 96, Boundary::Open);
    let misses = |image: &[f32]| -> f32 {
        let inner =
            (0..96 * 96).filter(|p| (8..88).contains(&(p / 96)) && (8..88).contains(&(p % 96)));
        inner
            .map(|p| (image[p] - texture((p / 96) as f32 + 4.0, (p % 96) as f32 - 6.0)).powi(2))
            .sum()
    };
    let (carried, idle) = (misses(&next), misses(&newest));
    assert!(carried < 0.01 * idle, "{carried} of {idle}");
}

#[test]
fn intensities_follow_the_decibels_and_the_range() {
    assert_eq!(
        rain_intensity(&[f32::NAN, 0.0, 0.05, 1e9, f32::INFINITY]),
        [0.0, 0.0, 0.0, 255.0, 255.0]
    );
    let one = rain_intensity(&[1.0])[0];
    assert!((one - 15.0 / 55.0 * 255.0).abs() < 1e-3);
    let (a, b) = pair_intensity(&[1.0, f32::NAN], &[3.0, 2.0]);
    assert_eq!((a, b), (vec![0.0, 127.5], vec![255.0, 127.5]));
    assert_eq!(pair_intensity(&[7.0], &[7.0]), (vec![0.0], vec![0.0]));
}
