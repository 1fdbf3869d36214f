use std::f64::consts::{PI, TAU};

use super::*;

/// No reaction: diffusion alone.
struct Inert;

impl Kinetics for Inert {
    fn rates(&self, _u: f64, _v: f64) -> [f64; 2] {
        [0.0; 2]
    }

    fn stiffness(&self, _u: f64, _v: f64) -> f64 {
        0.0
    }
}

/// A pendulum, whose course is known.
struct Pendulum;

impl Kinetics for Pendulum {
    fn rates(&self, u: f64, v: f64) -> [f64; 2] {
        [v, -u]
    }

    fn stiffness(&self, _u: f64, _v: f64) -> f64 {
        1.0
    }
}

fn what() -> String {
    "a test".to_owned()
}

/// On the unit square.
fn inert(edge: Edge, n: usize, field: impl Fn(f64, f64) -> [f64; 2]) -> Medium<Inert> {
    let at = |i: usize| (i as f64 + 0.5) / n as f64;
    let field = &field;
    let state = (0..2).flat_map(|s| (0..n * n).map(move |i| field(at(i % n), at(i / n))[s]));
    Medium::new(Inert, edge, [1.0, 0.25], 1.0 / n as f64, state.collect())
}

#[test]
fn waves_diffuse_as_they_must() {
    let time = 0.02;
    let dish = |x: f64, y: f64| [(PI * x).cos() * (2.0 * PI * y).cos(), 0.0];
    let torus = |x: f64, y: f64| [(TAU * x).sin() * (TAU * y).cos(), 0.0];
    // π² (1 + 4) in the dish, 4π² (1 + 1) on the torus.
    type Wave<'a> = &'a dyn Fn(f64, f64) -> [f64; 2];
    let cases: [(Edge, Wave<'_>, f64, [f64; 2]); 2] =
        [(Edge::Closed, &dish, 5.0, [3.6, 4.2]), (Edge::Periodic, &torus, 8.0, [13.0, 17.0])];
    for (edge, wave, decay, [least, most]) in cases {
        let error = |n: usize| {
            let mut medium = inert(edge, n, wave);
            let before = medium.state.clone();
            // Steps so short that the grid alone is to blame.
            (0..800).for_each(|_| medium.step(time / 800.0));
            let left = (-decay * PI * PI * time).exp();
            let errors = medium.state.iter().zip(before).map(|(now, then)| now - left * then);
            errors.map(f64::abs).fold(0.0, f64::max)
        };
        let errors = [8, 16, 32].map(error);
        for pair in errors.windows(2) {
            assert!((least..most).contains(&(pair[0] / pair[1])), "{edge:?} {errors:?}");
        }
    }
}

#[test]
fn diffusion_makes_and_loses_nothing() {
    let bump = |x: f64, y: f64| [(3.0 * x - y).sin(), if x < 0.3 && y > 0.6 { 1.0 } else { 0.0 }];
    for edge in [Edge::Closed, Edge::Periodic] {
        let mut medium = inert(edge, 24, bump);
        let sums = |medium: &Medium<Inert>| -> [f64; 2] {
            let (u, v) = medium.state().split_at(24 * 24);
            [u.iter().sum(), v.iter().sum()]
        };
        let before = sums(&medium);
        medium.march(0.3, what).unwrap();
        let after = sums(&medium);
        for (before, after) in before.into_iter().zip(after) {
            assert!((before - after).abs() < 1e-9, "{before} {after}");
        }
        // And it evens out.
        let (u, _) = medium.state().split_at(24 * 24);
        let mean = after[0] / (24.0 * 24.0);
        assert!(u.iter().all(|u| (u - mean).abs() < 0.1), "{edge:?}");
    }
}

#[test]
fn reactions_are_followed_to_fourth_order() {
    let error = |steps: usize| {
        let state = [[1.0; 4], [0.0; 4]].concat();
        let mut medium = Medium::new(Pendulum, Edge::Closed, [1.0; 2], 1.0, state);
        (0..steps).for_each(|_| medium.step(2.0 / steps as f64));
        (medium.state()[0] - 2.0_f64.cos()).hypot(medium.state()[7] + 2.0_f64.sin())
    };
    let errors = [8, 16, 32].map(error);
    for pair in errors.windows(2) {
        assert!((14.0..18.0).contains(&(pair[0] / pair[1])), "{errors:?}");
    }
}

#[test]
fn what_is_no_number_is_told() {
    let mut medium = inert(Edge::Closed, 8, |_, _| [0.0; 2]);
    medium.state[3] = f64::NAN;
    // The reaction alone bounds the step, so a medium without one would not notice.
    let state = medium.state.clone();
    let mut stiff = Medium::new(Stiff, Edge::Closed, [1.0; 2], 1.0, state);
    assert!(stiff.march(1.0, what).unwrap_err().to_string().starts_with("a test: "));
}

struct Stiff;

impl Kinetics for Stiff {
    fn rates(&self, u: f64, _v: f64) -> [f64; 2] {
        [u * u, 0.0]
    }

    fn stiffness(&self, u: f64, _v: f64) -> f64 {
        2.0 * u
    }
}
