use super::*;

fn flow(config: &NavierStokes, field: impl Fn(f64, f64) -> f64) -> Flow {
    let mut flow = Flow::at_rest(config);
    let n = config.size;
    for (i, value) in flow.plane.iter_mut().enumerate() {
        *value = field((i % n) as f64 / n as f64, (i / n) as f64 / n as f64).into();
    }
    flow.fourier.forward(&mut flow.plane);
    let scale = ((n * n) as f64).recip();
    for (mode, value) in flow.modes.iter().zip(&mut flow.vorticity) {
        *value = flow.plane[mode.at[0]] * scale;
    }
    flow
}

/// Mean of u²/2 and of ω²/2: modes with kx > 0 stand for two.
fn energy_and_enstrophy(flow: &Flow) -> [f64; 2] {
    let sum = |weight: fn(&Mode) -> f64| {
        let pairs = flow.modes.iter().zip(&flow.vorticity);
        pairs
            .map(|(k, w)| w.norm_sqr() * weight(k) * if k.x > 0.0 { 1.0 } else { 0.5 })
            .sum::<f64>()
    };
    [sum(|k| k.over), sum(|_| 1.0)]
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let error = square(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (error / square(&mut b.iter().copied())).sqrt()
}

#[test]
fn waves_without_advection_decay_as_they_must() {
    let viscosity = 1e-2;
    let config =
        NavierStokes { size: 24, viscosity, forcing: 0.0, drag: 0.1, ..Default::default() };
    // Taylor and Green's vortices, a shear flow, and an oblique one.
    type Wave = fn(f64, f64) -> f64;
    let waves: [(Wave, f64); 3] = [
        (|x, y| (TAU * x).cos() * (TAU * 2.0 * y).sin(), 5.0),
        (|_, y| (TAU * 3.0 * y + 0.3).sin(), 9.0),
        (|x, y| (TAU * (2.0 * x - y)).cos(), 5.0),
    ];
    for (wave, square) in waves {
        let mut flow = flow(&config, wave);
        let start = flow.render().unwrap();
        (0..3).for_each(|_| flow.advance().unwrap());
        let left = (-1.5 * (viscosity * TAU * TAU * square + 0.1)).exp() as f32;
        let expected: Vec<f32> = start.iter().map(|value| value * left).collect();
        assert!(distance(&flow.render().unwrap(), &expected) < 1e-6);
    }
}

#[test]
fn advection_is_what_finite_differences_say() {
    // Smooth enough that fourth-order differences on 96 points are nearly exact.
    let config = NavierStokes { size: 96, viscosity: 0.0, forcing: 0.1, ..Default::default() };
    let wave = |x: f64, y: f64| {
        (TAU * (x + 2.0 * y)).sin() + 0.5 * (TAU * (2.0 * x - y) + 0.4).cos() + (TAU * x).sin()
    };
    let mut flow = flow(&config, wave);
    let n = config.size;
    let vorticity = flow.vorticity.clone();
    flow.velocity(&vorticity);
    let velocity = flow.plane.clone();
    let mut slope = vorticity.clone();
    flow.push(&vorticity, &mut slope);
    flow.vorticity = slope;
    let slope = flow.render().unwrap();
    let h = 1.0 / n as f64;
    for (i, slope) in slope.iter().enumerate().step_by(7) {
        let (x, y) = ((i % n) as f64 * h, (i / n) as f64 * h);
        let dx = (8.0 * (wave(x + h, y) - wave(x - h, y)) - wave(x + 2.0 * h, y)
            + wave(x - 2.0 * h, y))
            / (12.0 * h);
        let dy = (8.0 * (wave(x, y + h) - wave(x, y - h)) - wave(x, y + 2.0 * h)
            + wave(x, y - 2.0 * h))
            / (12.0 * h);
        let theta = TAU * (x + y);
        let expected =
            -velocity[i].re * dx - velocity[i].im * dy + 0.1 * (theta.sin() + theta.cos());
        assert!((f64::from(*slope) - expected).abs() < 1e-4, "{slope} {expected}");
    }
}

#[test]
fn energy_and_enstrophy_are_conserved_but_for_viscosity() {
    let config = NavierStokes { size: 32, viscosity: 0.0, forcing: 0.0, ..Default::default() };
    let mut still = Flow::new(&config, &[5]).unwrap();
    let before = energy_and_enstrophy(&still);
    (0..4).for_each(|_| still.advance().unwrap());
    let after = energy_and_enstrophy(&still);
    for (before, after) in before.iter().zip(after) {
        assert!((after / before - 1.0).abs() < 1e-4, "{before} {after}");
    }
    assert_eq!(still.vorticity[0], Complex64::default(), "the mean vorticity");

    // dE/dt = -2 ν Z, integrated by Simpson's rule.
    let config = NavierStokes { viscosity: 1e-3, interval: 0.05, ..config };
    let mut viscous = Flow::new(&config, &[5]).unwrap();
    let [first, z0] = energy_and_enstrophy(&viscous);
    viscous.advance().unwrap();
    let [_, z1] = energy_and_enstrophy(&viscous);
    viscous.advance().unwrap();
    let [last, z2] = energy_and_enstrophy(&viscous);
    let lost = 2.0 * 1e-3 * 0.1 * (z0 + 4.0 * z1 + z2) / 6.0;
    assert!(((first - last) / lost - 1.0).abs() < 1e-4, "{} {lost}", first - last);
}

#[test]
fn half_the_step_leaves_a_sixteenth_of_the_error() {
    let config = NavierStokes { size: 32, viscosity: 1e-3, ..Default::default() };
    let at = |steps: usize| {
        let mut flow = Flow::new(&config, &[2]).unwrap();
        flow.march(0.5 / steps as f64, steps);
        flow.vorticity
    };
    let exact = at(256);
    let error =
        |steps| at(steps).iter().zip(&exact).map(|(a, b)| (a - b).norm_sqr()).sum::<f64>().sqrt();
    let order = (error(8) / error(16)).log2();
    assert!((3.7..4.3).contains(&order), "{order}");
    // And what the flow chooses for itself is exact for every purpose of a forecast.
    let mut flow = Flow::new(&config, &[2]).unwrap();
    let mut reference = Flow::new(&config, &[2]).unwrap();
    flow.advance().unwrap();
    reference.vorticity = exact;
    assert!(distance(&flow.render().unwrap(), &reference.render().unwrap()) < 1e-4);
}

#[test]
fn the_field_changes_as_fast_as_in_the_literature() {
    // Relative L2 of persistence over 1 and 10 frames, after windows of ten frames from 1, 8, 16
    // and 24. An independent simulation (Crank–Nicolson and Adams–Bashforth, 1/128) of 80 windows
    // gave 0.127 and 0.735.
    let mut sums = [0.0; 2];
    for seed in 0..4 {
        let mut flow = Flow::new(&NavierStokes::default(), &[seed]).unwrap();
        let mut frames = Vec::new();
        for _ in 0..=43 {
            frames.push(flow.render().unwrap());
            flow.advance().unwrap();
        }
        for newest in [10, 17, 25, 33] {
            for (sum, lead) in sums.iter_mut().zip([1, 10]) {
                *sum += distance(&frames[newest], &frames[newest + lead]) / 16.0;
            }
        }
    }
    assert!((0.10..0.15).contains(&sums[0]) && (0.60..0.87).contains(&sums[1]), "{sums:?}");
}

#[test]
fn strong_flows_stay_finite_and_hopeless_ones_say_so() {
    let config = NavierStokes { size: 32, viscosity: 1e-5, forcing: 20.0, ..Default::default() };
    let mut strong = Flow::new(&config, &[1]).unwrap();
    (0..4).for_each(|_| strong.advance().unwrap());
    assert!(strong.render().is_ok());
    let mut hopeless = Flow::new(&NavierStokes { forcing: 1e200, ..config }, &[1]).unwrap();
    let error = (0..4).find_map(|_| hopeless.advance().err()).unwrap();
    assert!(error.what.contains("viscosity 0.00001"), "{error}");
}
