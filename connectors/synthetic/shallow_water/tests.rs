use super::*;

fn config(size: usize) -> ShallowWater {
    ShallowWater { size, ..ShallowWater::default() }
}

fn volume(pool: &Pool) -> f64 {
    pool.water.iter().map(|water| water[0]).sum::<f64>() * pool.spacing * pool.spacing
}

/// Stoker's solution (1957) of a straight dam that broke at x = 0: the depth at x / t = `speed`,
/// with g = 1. Between the waves the depth is the one where the bore is as fast as the
/// rarefaction lets the water be.
fn stoker(high: f64, low: f64, speed: f64) -> f64 {
    let (fast, mut below, mut above) = (high.sqrt(), low, high);
    let behind = |h: f64| 2.0 * (fast - h.sqrt());
    let bore = |h: f64| (h - low) * (0.5 * (h + low) / (h * low)).sqrt();
    for _ in 0..200 {
        let middle = 0.5 * (below + above);
        let slower = bore(middle) < behind(middle);
        if slower { below = middle } else { above = middle }
    }
    let h = 0.5 * (below + above);
    let front = h * behind(h) / (h - low);
    if speed < -fast {
        high
    } else if speed < behind(h) - h.sqrt() {
        (2.0 * fast - speed).powi(2) / 9.0
    } else if speed < front {
        h
    } else {
        low
    }
}

#[test]
fn a_straight_dam_breaks_as_stoker_says() {
    for turned in [false, true] {
        let error = |size: usize| {
            let mut pool = Pool::still(&config(size), |x, y| {
                let along = if turned { y } else { x };
                if along < 0.0 { 2.0 } else { 1.0 }
            });
            pool.go_on(1.0).unwrap();
            let place = |i: usize| (i as f64 + 0.5) * pool.spacing - SIDE / 2.0;
            let error = |(i, water): (usize, &Water)| {
                let along = if turned { i / size } else { i % size };
                (water[0] - stoker(2.0, 1.0, place(along))).abs()
            };
            pool.water.iter().enumerate().map(error).sum::<f64>() / (size * size) as f64
        };
        let errors = [32, 64, 128].map(error);
        // A bore is a jump, so the mean error falls with the first power of the grid.
        assert!(errors[2] < 5e-3, "{errors:?}");
        assert!(errors.windows(2).all(|pair| pair[0] / pair[1] > 1.7), "{errors:?}");
    }
}

/// The depth at the centres of `n` rings of the width 2.5 / n after the time 1 of a round dam of
/// the radius one half, by a scheme that shares nothing with the one under test: one dimension, first
/// order, Rusanov's flux, and the rings' growing area as a source.
fn rings(n: usize) -> Vec<f64> {
    let dr = 2.5 / n as f64;
    let radius = |i: usize| (i as f64 + 0.5) * dr;
    let mut now: Vec<[f64; 2]> =
        (0..n).map(|i| [if radius(i) <= 0.5 { 2.0 } else { 1.0 }, 0.0]).collect();
    let flux = |[h, q]: [f64; 2]| [q, q * q / h + 0.5 * h * h];
    let mut time = 0.0;
    while time < 1.0 {
        let speed = |[h, q]: &[f64; 2]| (q / h).abs() + h.sqrt();
        let fastest = now.iter().map(speed).fold(0.0, f64::max);
        let dt = (0.8 * dr / fastest).min(1.0 - time);
        // The centre mirrors, the outer end lets out.
        let cell = |i: isize| match i {
            -1 => [now[0][0], -now[0][1]],
            i => now[(i as usize).min(n - 1)],
        };
        let face = |i: isize| {
            let (a, b) = (cell(i - 1), cell(i));
            let (fa, fb, s) = (flux(a), flux(b), speed(&a).max(speed(&b)));
            [0, 1].map(|k| 0.5 * (fa[k] + fb[k] - s * (b[k] - a[k])))
        };
        let next = (0..n).map(|i| {
            let (from, to, [h, q]) = (face(i as isize), face(i as isize + 1), now[i]);
            let source = [q / radius(i), q * q / h / radius(i)];
            [0, 1].map(|k| now[i][k] + dt * ((from[k] - to[k]) / dr - source[k]))
        });
        now = next.collect();
        time += dt;
    }
    now.iter().map(|[h, _]| *h).collect()
}

#[test]
fn a_round_dam_breaks_as_its_radial_equation_says() {
    let rings = rings(4000);
    let error = |size: usize| {
        let inner = |x: f64, y: f64| if x.hypot(y) <= 0.5 { 2.0 } else { 1.0 };
        let mut pool = Pool::still(&config(size), inner);
        (0..100).for_each(|_| pool.advance().unwrap());
        let place = |i: usize| (i as f64 + 0.5) * pool.spacing - SIDE / 2.0;
        let mut error = [0.0, 0.0];
        for (i, water) in pool.water.iter().enumerate() {
            let r = place(i % size).hypot(place(i / size));
            // Out to where all rings lie within the square.
            if r < 2.4 {
                error[0] += (water[0] - rings[(r / 2.5 * 4000.0) as usize]).abs();
                error[1] += 1.0;
            }
        }
        error[0] / error[1]
    };
    let errors = [64, 128].map(error);
    assert!(errors[1] < 7e-3, "{errors:?}");
    assert!(errors[0] / errors[1] > 1.6, "{errors:?}");
}

#[test]
fn smooth_water_is_followed_to_second_order() {
    let at = |size: usize| {
        let hump = |x: f64, y: f64| 1.0 + 0.1 * (-2.0 * (x * x + y * y)).exp();
        let mut pool = Pool::still(&config(size), hump);
        pool.go_on(0.5).unwrap();
        let side = size / 32;
        let mut means = vec![0.0; 32 * 32];
        for (i, water) in pool.water.iter().enumerate() {
            means[i / size / side * 32 + i % size / side] += water[0] / (side * side) as f64;
        }
        means
    };
    let finest = at(256);
    let error = |size: usize| at(size).iter().zip(&finest).map(|(a, b)| (a - b).abs()).sum::<f64>();
    let ratio = error(32) / error(64);
    assert!(ratio > 3.0, "{ratio}");
}

#[test]
fn no_water_is_made_or_lost_before_it_reaches_the_edge() {
    let mut pool = Pool::still(&config(64), |x, y| if x.hypot(y) <= 0.7 { 2.0 } else { 1.0 });
    let before = volume(&pool);
    (0..100).for_each(|_| pool.advance().unwrap());
    assert!((volume(&pool) - before).abs() < 1e-9, "{} {before}", volume(&pool));
    // Then it leaves, and the pool comes to rest.
    pool.go_on(30.0).unwrap();
    assert!(volume(&pool) < before);
    let calm = |[h, hu, hv]: &Water| (h - 1.0).abs() < 0.02 && hu.hypot(*hv) < 0.02;
    assert!(pool.water.iter().all(calm));
}

#[test]
fn still_water_stays_still_to_the_bit() {
    let mut pool = Pool::still(&config(16), |_, _| 1.7);
    let before = pool.water.clone();
    pool.advance().unwrap();
    assert_eq!(pool.water, before);
}

#[test]
fn what_is_symmetric_stays_so() {
    let mut pool = Pool::still(&config(32), |x, y| if x.hypot(y) <= 0.6 { 2.0 } else { 1.0 });
    (0..60).for_each(|_| pool.advance().unwrap());
    for (i, water) in pool.water.iter().enumerate() {
        let (y, x) = (i / 32, i % 32);
        for (y, x) in [(31 - y, x), (y, 31 - x), (x, y)] {
            assert!((pool.water[y * 32 + x][0] - water[0]).abs() < 1e-12);
        }
    }
}

#[test]
fn depths_stay_positive_over_nearly_dry_ground() {
    let config = ShallowWater { inner_height: 1000.0, outer_height: 1e-3, ..config(48) };
    let dam = |x: f64, y: f64| if x.hypot(y) <= 0.6 { 1000.0 } else { 1e-3 };
    let mut pool = Pool::still(&config, dam);
    for _ in 0..20 {
        pool.go_on(0.005).unwrap();
        assert!(pool.water.iter().all(|water| water[0] > 0.0));
    }
}
