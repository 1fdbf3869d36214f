use std::f64::consts::PI;

use super::*;

fn dish(size: usize, field: impl Fn(f64, f64) -> [f64; 2]) -> Dish {
    let config = FitzHughNagumo { size, ..FitzHughNagumo::default() };
    let at = |i: usize| (i as f64 + 0.5) * SIDE / size as f64 - SIDE / 2.0;
    let field = &field;
    let cells = || (0..size * size).map(|i| (at(i % size), at(i / size)));
    let state = (0..2).flat_map(|s| cells().map(move |(x, y)| field(x, y)[s])).collect();
    Dish::new(&config, state)
}

/// The means of blocks of `side` × `side` cells, of both species.
fn blocks(dish: &Dish, side: usize) -> Vec<f64> {
    let n = dish.config.size;
    let coarse = n / side;
    let mut means = vec![0.0; 2 * coarse * coarse];
    for (at, value) in dish.medium.state().iter().enumerate() {
        let (species, y, x) = (at / (n * n), at / n % n, at % n);
        means[(species * coarse + y / side) * coarse + x / side] += value / (side * side) as f64;
    }
    means
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (error / square(&mut b.iter().copied())).sqrt()
}

#[test]
fn finer_grids_agree_to_second_order() {
    let smooth = |x: f64, y: f64| {
        let wave = (PI * x).cos() * (0.5 * PI * (y + 1.0)).cos();
        [1.2 * wave + 0.1, 0.4 * (PI * y).cos()]
    };
    let at = |size: usize| {
        let mut dish = dish(size, smooth);
        dish.go_on(2.0).unwrap();
        blocks(&dish, size / 16)
    };
    let finest = at(256);
    let errors = [32, 64, 128].map(|size| distance(&at(size), &finest));
    assert!(errors[2] < 5e-4, "{errors:?}");
    // Against a finest grid that is not exact the ratios are 21/5 = 4.2 and 5.
    assert!((3.9..4.6).contains(&(errors[0] / errors[1])), "{errors:?}");
    assert!((4.5..5.5).contains(&(errors[1] / errors[2])), "{errors:?}");
}

#[test]
fn longer_steps_change_little() {
    // From noise, the hardest start: one frame in the steps that stability asks for, and in forty.
    let config = FitzHughNagumo { size: 32, ..FitzHughNagumo::default() };
    let mut random = Random::new(&[1]);
    let noise: Vec<f64> = (0..32 * 32).flat_map(|_| random.normals()).collect();
    let (mut dish, mut fine) = (Dish::new(&config, noise.clone()), Dish::new(&config, noise));
    dish.advance().unwrap();
    (0..40).for_each(|_| fine.go_on(config.interval / 40.0).unwrap());
    let error = distance(dish.medium.state(), fine.medium.state());
    assert!(error < 1e-4, "{error}");
}

#[test]
fn a_uniform_dish_comes_to_rest_where_it_must() {
    // u = v and −u³ − k = 0.
    let mut dish = dish(8, |_, _| [0.3, -0.2]);
    dish.go_on(200.0).unwrap();
    let rest = -(5e-3_f64).cbrt();
    assert!(dish.medium.state().iter().all(|value| (value - rest).abs() < 1e-3), "{rest}");
}

#[test]
fn noise_becomes_patterns() {
    let config = FitzHughNagumo { size: 64, interval: 5.0, ..FitzHughNagumo::default() };
    let mut dish = config.begin(&[1, 0]).unwrap();
    let spread = |frame: &[f32]| {
        let (mean, n) = (frame.iter().sum::<f32>() / frame.len() as f32, frame.len() as f32);
        (frame.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt()
    };
    let first = dish.render().unwrap();
    assert!((spread(&first) - 1.0).abs() < 0.05);
    (0..10).for_each(|_| dish.advance().unwrap());
    let last = dish.render().unwrap();
    let (u, _) = last.split_at(64 * 64);
    // Regions of either sign, smooth from cell to cell.
    assert!(spread(u) > 0.2, "{}", spread(u));
    let rough: Vec<f32> = u.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(spread(&rough) < 0.4 * spread(u), "{} {}", spread(&rough), spread(u));
}
