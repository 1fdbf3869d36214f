use super::*;

/// The six patterns of The Well: feed and kill rates.
const PATTERNS: [(&str, f64, f64); 6] = [
    ("gliders", 0.014, 0.054),
    ("bubbles", 0.098, 0.057),
    ("maze", 0.029, 0.057),
    ("worms", 0.058, 0.065),
    ("spirals", 0.018, 0.051),
    ("spots", 0.03, 0.062),
];

fn spread(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[test]
fn concentrations_stay_between_none_and_all() {
    // But for what a steep front that falls between two cells leaves beside it.
    for (name, feed, kill) in PATTERNS {
        let config = GrayScott { feed, kill, ..GrayScott::default() };
        let mut tank = Tank::new(&config, spots(128, &mut Random::new(&[3])));
        for _ in 0..60 {
            tank.advance().unwrap();
            let good = tank.medium.state().iter().all(|c| (-1e-5..=1.0).contains(c));
            assert!(good, "{name}");
        }
        // Something lives.
        assert!(spread(&tank.medium.state()[128 * 128..]) > 0.02, "{name}");
    }
}

#[test]
fn without_feed_and_kill_nothing_is_made_or_lost() {
    let config = GrayScott { size: 48, feed: 0.0, kill: 0.0, ..GrayScott::default() };
    let mut tank = Tank::new(&config, spots(48, &mut Random::new(&[5])));
    let sum = |tank: &Tank| tank.medium.state().iter().sum::<f64>();
    let u = |tank: &Tank| tank.medium.state()[..48 * 48].iter().sum::<f64>();
    let (before, fed) = (sum(&tank), u(&tank));
    (0..20).for_each(|_| tank.advance().unwrap());
    assert!((sum(&tank) - before).abs() < 1e-9 * before);
    assert!(u(&tank) < 0.95 * fed, "u becomes v");
}

#[test]
fn without_v_the_tank_fills_up() {
    // du/dt = f (1 − u): the rest of the way falls with exp(−f t).
    let config = GrayScott { size: 8, ..GrayScott::default() };
    let state = [[0.2; 64], [0.0; 64]].concat();
    let mut tank = Tank::new(&config, state);
    tank.go_on(100.0).unwrap();
    let expected = 1.0 - 0.8 * (-1.4_f64).exp();
    let (u, v) = tank.medium.state().split_at(64);
    assert!(u.iter().all(|u| (u - expected).abs() < 1e-5), "{} {expected}", u[0]);
    assert!(v.iter().all(|v| *v == 0.0));
}

#[test]
fn finer_grids_agree_to_fourth_order() {
    // The amount of v after one wide spot has burst into a ring. It diffuses faster than by
    // default, so that the coarsest grid resolves the front as well.
    let amount = |size: usize| {
        let config = GrayScott { size, diffusion: [3.2e-4, 1.6e-4], ..GrayScott::default() };
        let place = |i: usize| (i as f64 + 0.5) * SIDE / size as f64 - SIDE / 2.0;
        let spot = |i: usize| {
            let (x, y) = (place(i % size), place(i / size));
            0.6 * (-(x * x + 2.0 * y * y) / (2.0 * 0.15_f64.powi(2))).exp()
        };
        let v: Vec<f64> = (0..size * size).map(spot).collect();
        let state = v.iter().map(|v| 1.0 - v).chain(v.iter().copied()).collect();
        let mut tank = Tank::new(&config, state);
        tank.go_on(40.0).unwrap();
        tank.medium.state()[size * size..].iter().sum::<f64>() / (size * size) as f64
    };
    let finest = amount(256);
    let errors = [64, 128].map(|size| (amount(size) / finest - 1.0).abs());
    assert!(errors[1] < 1e-3, "{errors:?}");
    assert!(errors[0] / errors[1] > 14.0, "{errors:?}");
}
