use super::*;

fn sky(config: &Rain, seed: u64) -> Sky {
    Sky::new(config, &[seed]).unwrap()
}

/// Only a steady wind along +x: nothing turns, spreads, changes or is born.
fn wind(speed: f64) -> Rain {
    Rain {
        height: 48,
        width: 64,
        speed: [speed; 2],
        direction: Some(0.0),
        rotation: 0.0,
        divergence: 0.0,
        shear: 0.0,
        evolution: [0.0; 2],
        cells: [0.0; 2],
        ..Rain::default()
    }
}

#[test]
fn pure_translation_moves_the_field_exactly() {
    let mut wet = 0;
    for seed in 0..3 {
        let mut sky = sky(&wind(3.0), seed);
        // The amplitude and the threshold follow the regime; the flow alone is under test.
        let weather = Weather { amplitude: 1.0, threshold: 0.2, ..sky.climate.at(0) };
        for _ in 0..3 {
            let before = sky.render_in(&weather);
            sky.advance().unwrap();
            let after = sky.render_in(&weather);
            for (before, after) in before.chunks(64).zip(after.chunks(64)) {
                assert_eq!(after[3..], before[..61]);
                wet += before.iter().filter(|rate| **rate > 0.0).count();
            }
        }
    }
    assert!(wet > 1000, "it hardly rained: {wet}");
}

#[test]
fn a_cell_drifts_grows_and_decays() {
    let mut sky = sky(&wind(2.5), 1);
    let weather = Weather { amplitude: 0.0, ..sky.climate.at(0) };
    let back = sky.carried(8);
    let widths = [[0.25, 0.0], [0.0, 0.25]];
    sky.cells =
        vec![Cell { back, peak: 8.0, lifetime: 6.0, centre: [0.0; 2], widths, height: 2.0 }];
    sky.noises.clear();
    let mut peaks = Vec::new();
    for frame in 0..27 {
        let rates = sky.render_in(&weather);
        let total: f32 = rates.iter().sum();
        let moment: f32 = rates.iter().enumerate().map(|(i, rate)| rate * (i % 64) as f32).sum();
        if (2..=14).contains(&frame) {
            // At its peak the cell is at the centre of the frame, and it moves 2.5 pixels a frame.
            assert!((moment / total - (31.5 + 2.5 * (frame as f32 - 8.0))).abs() < 0.1);
        }
        peaks.push(rates.into_iter().fold(0.0, f32::max));
        sky.advance().unwrap();
        sky.noises.clear();
    }
    assert!(peaks[..9].is_sorted() && peaks[8..17].is_sorted_by(|a, b| a >= b), "{peaks:?}");
    // The centre lies between four pixels, half a pixel from each in both directions.
    let highest = 2.0 * (-1.0_f32 / 64.0).exp();
    assert!((peaks[8] - 0.1 * ((2.0 * highest).exp() - 1.0)).abs() < 1e-3, "{}", peaks[8]);
    assert_eq!(peaks[26], 0.0);
}

#[test]
fn rain_stays_plausible_for_a_week() {
    let config = Rain { height: 48, width: 64, ..Rain::default() };
    let mut shares = Vec::new();
    for seed in 0..3 {
        let mut sky = sky(&config, seed);
        for frame in 0..2000 {
            if frame % 50 == 0 {
                let rates = sky.render().unwrap();
                // 0.1 (exp 6.8 - 1) = 89.7 mm/h, and the least that is not dry 0.065.
                assert!(rates.iter().all(|r| *r == 0.0 || (0.06..89.8).contains(r)));
                let wet = rates.iter().filter(|rate| **rate > 0.0).count();
                shares.push(wet as f64 / rates.len() as f64);
            }
            sky.advance().unwrap();
            assert!(sky.cells.len() < 200 && sky.noises.len() <= 2);
        }
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!((0.2..0.8).contains(&mean), "{mean}");
    // Births and deaths: the sky is neither the same nor of one kind.
    assert!(shares.iter().any(|share| *share < 0.3) && shares.iter().any(|share| *share > 0.6));
}
