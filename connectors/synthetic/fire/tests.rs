use super::*;

/// The speed of a straight front through a full load, in m/s along a wind of this speed.
///
/// With z the way ahead of the front, c T' + D T'' − w T' − T/τc + (Q/τ) F = 0: ahead the
/// temperature falls as exp(−m z) from the ignition temperature, behind it is the sum of
/// exp(n z), n > 0, and of what burning fuel, F = exp(z / (c τ)), makes. Value and slope are the
/// same on both sides, which is one equation for c.
fn speed(config: &Fire, wind: f64) -> f64 {
    let Fire { diffusivity: d, heat, burning, cooling, .. } = *config;
    let rise = config.ignition - config.ambient;
    let excess = |c: f64| {
        let (through, root) = (c - wind, ((c - wind).powi(2) + 4.0 * d / cooling).sqrt());
        let (ahead, behind) = ((through + root) / (2.0 * d), (root - through) / (2.0 * d));
        let fuel = 1.0 / (c * burning);
        let made = -(heat / burning) / (d * fuel * fuel + through * fuel - 1.0 / cooling);
        // T(0) from both sides, given that the slopes agree: rest n + made fuel = −rise m.
        let rest = (-rise * ahead - made * fuel) / behind;
        rest + made - rise
    };
    // The fastest root: a faster front would be too cold to ignite.
    let mut fast = 20.0;
    while excess(0.98 * fast) < 0.0 {
        fast *= 0.98;
    }
    let mut slow = 0.98 * fast;
    for _ in 0..100 {
        let middle = 0.5 * (slow + fast);
        if excess(middle) > 0.0 { slow = middle } else { fast = middle }
    }
    0.5 * (slow + fast)
}

/// How fast a front runs along x in a strip that is lit at its left end, between 40 % and 80 % of
/// the way.
fn measured(config: &Fire, wind: f64) -> f64 {
    let length = 240.0;
    let n = (length / config.spacing) as usize;
    let mut land = Land::cold(config, [1, n], [wind, 0.0], 1.0);
    let lit = (6.0 * (config.diffusivity * config.burning).sqrt() / config.spacing) as usize;
    land.rise[..lit].fill(config.heat);
    let hot = config.ignition - config.ambient;
    let front = |land: &Land| {
        let last = (0..n - 1).rev().find(|x| land.rise[*x] >= hot).unwrap_or(0);
        let (here, there) = (land.rise[last], land.rise[last + 1]);
        (last as f64 + (here - hot) / (here - there)) * config.spacing
    };
    let mut begun = None;
    for time in 1..5000 {
        land.go_on(1.0).unwrap();
        let (time, at) = (f64::from(time), front(&land));
        match begun {
            None if at > 0.4 * length => begun = Some((time, at)),
            Some((then, there)) if at > 0.8 * length => return (at - there) / (time - then),
            _ => {}
        }
    }
    0.0
}

#[test]
fn the_closed_form_without_wind_and_cooling() {
    let config = Fire { cooling: 1e9, ..Fire::default() };
    let Fire { diffusivity, heat, burning, ignition, ambient, .. } = config;
    let plain = (diffusivity / burning * (heat / (ignition - ambient) - 1.0)).sqrt();
    assert!((speed(&config, 0.0) - plain).abs() < 1e-4 * plain, "{}", speed(&config, 0.0));
}

#[test]
fn fronts_are_as_fast_as_theory_says() {
    for (wind, cooling) in [(0.0, 1e9), (0.0, 120.0), (0.3, 120.0), (-0.1, 120.0)] {
        let theory = speed(&Fire { cooling, ..Fire::default() }, wind);
        let error = |spacing: f64| {
            let config = Fire { cooling, spacing, ..Fire::default() };
            (measured(&config, wind) / theory - 1.0).abs()
        };
        // Fuel ignites cell by cell, so the error falls with the first power of the grid.
        let errors = [2.0, 1.0].map(error);
        assert!(errors[1] < 0.04 && errors[0] > 1.8 * errors[1], "{wind} {cooling} {errors:?}");
    }
}

#[test]
fn heat_and_fuel_together_are_conserved() {
    let config = Fire { size: 48, cooling: 1e12, ..Fire::default() };
    let mut land = Land::cold(&config, [48, 40], [0.0, 0.0], 0.9);
    (16..28).for_each(|row| land.rise[40 * row + 10..40 * row + 25].fill(900.0));
    let total =
        |land: &Land| land.rise.iter().sum::<f64>() + config.heat * land.fuel.iter().sum::<f64>();
    let before = total(&land);
    (0..12).for_each(|_| land.advance().unwrap());
    assert!((total(&land) / before - 1.0).abs() < 1e-9, "{} {before}", total(&land));
    let burnt = 0.9 * 48.0 * 40.0 - land.fuel.iter().sum::<f64>();
    assert!(burnt > 100.0, "{burnt}");
}

#[test]
fn warm_air_goes_with_the_wind() {
    // Too cool to ignite, and nothing spreads: the centre moves by wind times time.
    let config = Fire { diffusivity: 1e-6, cooling: 1e12, ..Fire::default() };
    let mut land = Land::cold(&config, [64, 80], [0.5, -0.25], 1.0);
    let place = |at: usize| [(at % 80) as f64 * 2.0, (at / 80) as f64 * 2.0];
    for at in 0..64 * 80 {
        let [x, y] = place(at);
        land.rise[at] = 200.0 * (-((x - 50.0).powi(2) + (y - 80.0).powi(2)) / 200.0).exp();
    }
    let centre = |land: &Land| {
        let sum: f64 = land.rise.iter().sum();
        [0, 1].map(|k| {
            land.rise.iter().enumerate().map(|(at, rise)| rise * place(at)[k]).sum::<f64>() / sum
        })
    };
    let (before, highest) = (centre(&land), land.rise.iter().copied().fold(0.0, f64::max));
    (0..8).for_each(|_| land.advance().unwrap());
    let after = centre(&land);
    let moved = [after[0] - before[0], after[1] - before[1]];
    assert!((moved[0] - 40.0).abs() < 0.2 && (moved[1] + 20.0).abs() < 0.2, "{moved:?}");
    // No new extremes, and a second-order scheme keeps most of the old one.
    let now = land.rise.iter().copied().fold(0.0, f64::max);
    assert!(now <= highest && now > 0.9 * highest, "{now} of {highest}");
    assert!(land.rise.iter().all(|rise| *rise >= 0.0));
}

#[test]
fn nothing_is_colder_than_the_air_and_fuel_only_burns() {
    let load = |frame: &[f32]| frame[..48 * 48].iter().sum::<f32>() / (48.0 * 48.0);
    for seed in 0..4 {
        let config = Fire { size: 48, wind: [0.0, 1.0], ..Fire::default() };
        let mut land = config.begin(&[seed]).unwrap();
        let first = land.render().unwrap();
        let mut before = first.clone();
        let mut hottest = 0.0_f32;
        for _ in 0..30 {
            land.advance().unwrap();
            let now = land.render().unwrap();
            let ((fuel, warm), (old, _)) = (now.split_at(48 * 48), before.split_at(48 * 48));
            assert!(warm.iter().all(|t| *t >= 300.0));
            assert!(fuel.iter().zip(old).all(|(now, old)| (0.0..=*old).contains(now)));
            hottest = warm.iter().copied().fold(hottest, f32::max);
            before = now;
        }
        assert!((1000.0..2500.0).contains(&hottest), "{hottest}");
        assert!(load(&before) < 0.8 * load(&first), "{}", load(&before));
    }
}
