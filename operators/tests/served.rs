//! What is served of a network's forecast: bounded by the flow, and on the carried side of thresholds.

use super::*;

#[test]
fn the_served_product_is_not_above_what_is_carried_from_around() {
    let (mut config, reach, side) = (small(1), 2, 24);
    config.variables[0].ceiling = Some(65);
    let refused = config.check().unwrap_err().to_string();
    assert!(
        refused.contains("model.variables.ceiling") && refused.contains("0 to 64"),
        "{refused}"
    );
    config.variables[0].ceiling = Some(reach);
    let checkpoint = shaken(&config);
    let catalogue = catalogue(&[("a", side, side)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let frames = (0..3).map(|step| frame(sensor, step)).collect();
    let forecasts = stream(&checkpoint, &catalogue, frames, 1, 4, 1);
    let (served, mean) = (&**forecasts[0].served().data, product(&forecasts[0], "mean"));
    let carried = product(&forecasts[0], "advection");
    let around = |at: usize| {
        let (lead, y, x) = (at / side / side, at / side % side, at % side);
        let span = |c: usize| c.saturating_sub(reach)..(c + reach + 1).min(side);
        let line = |y: usize| span(x).map(move |x| (lead * side + y) * side + x);
        span(y).flat_map(line).map(|at| carried[at]).fold(f32::MIN, f32::max)
    };
    let mut lowered = 0;
    for (at, (&s, &m)) in served.iter().zip(&mean).enumerate() {
        assert_eq!(s, m.min(around(at)), "{at}");
        lowered += usize::from(s < m);
    }
    assert!((1..served.len() / 2).contains(&lowered), "{lowered} of {}", served.len());
}

#[test]
fn the_served_product_keeps_the_carried_areas() {
    let mut config = small(1);
    // As f32 they round to either side: what is held must not count on the wrong one.
    let thresholds = [-0.3, 0.0, 0.1, 0.6];
    config.variables[0].keep = thresholds.to_vec();
    let checkpoint = shaken(&config);
    let catalogue = catalogue(&[("a", 24, 24)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    // Two pixels are never measured: they are kept between no thresholds.
    let blind = |mut frame: Frame| {
        frame.data[100..102].fill(f32::NAN);
        frame
    };
    let frames = (0..3).map(|step| blind(frame(sensor, step))).collect();
    let forecasts = stream(&checkpoint, &catalogue, frames, 1, 4, 1);
    let (served, mean) = (&**forecasts[0].served().data, product(&forecasts[0], "mean"));
    assert_ne!(served, mean);
    let class = |v: f32| thresholds.iter().filter(|&&t| f64::from(v) > t).count();
    let at_or_above = |v: f32| thresholds.iter().filter(|&&t| v >= t as f32).count();
    let near = |v: f32| thresholds.iter().any(|&t| (f64::from(v) - t).abs() < 1.1e-6 * t.abs());
    let mut held = 0;
    let carried = product(&forecasts[0], "advection");
    for (at, ((&s, &m), &d)) in served.iter().zip(&mean).zip(&carried).enumerate() {
        if (100..102).contains(&(at % (24 * 24))) {
            assert!(s.is_nan() && m.is_nan() && d.is_nan());
            continue;
        }
        assert_eq!(class(s), class(d));
        assert_eq!(at_or_above(s), class(s), "{s} lies on a threshold");
        held += usize::from(near(s));
        assert!(class(m) != class(d) || s == m);
    }
    assert!(held > 20, "{held} pixels were held at a threshold");
}
