//! Ensembles against the definitions, written out.

use super::super::EnsembleSums;

/// Members and observations of rain: half of the pixels are dry, and some are missing.
fn case(members: usize, pixels: usize, salt: usize) -> (Vec<Vec<f32>>, Vec<f32>) {
    let value = |k: usize, at: usize| {
        let x = ((at * 7919 + k * 104_729 + salt * 31) % 1009) as f32;
        if x < 500.0 { 0.0 } else { (x - 500.0) / 100.0 }
    };
    let fields = (1..=members).map(|k| {
        let missing = |at: usize| k == 1 && at % 41 == 3;
        (0..pixels).map(|at| if missing(at) { f32::NAN } else { value(k, at) }).collect()
    });
    let observed = (0..pixels).map(|at| if at % 37 == 5 { f32::NAN } else { value(0, at) });
    (fields.collect(), observed.collect())
}

#[test]
fn scores_are_what_their_definitions_say() {
    for count in [1, 2, 7, 20] {
        let (members, observed) = case(count, 900, count);
        let sums = EnsembleSums::of(&members, &observed, &[0.5, 2.0], 9);
        let whole = |at: &usize| {
            observed[*at].is_finite() && members.iter().all(|member| member[*at].is_finite())
        };
        let at: Vec<usize> = (0..900).filter(whole).collect();
        let (n, m) = (at.len() as f64, count as f64);
        assert_eq!(sums.scored, at.len() as i64);
        let x = |k: usize, at: usize| f64::from(members[k][at]);
        let o = |at: usize| f64::from(observed[at]);
        let near = |value: f64, expected: f64, what: &str| {
            assert!(
                (value - expected).abs() < 1e-9 * expected.abs().max(1.0),
                "{what} of {count}: {value} {expected}"
            );
        };
        let crps = at.iter().map(|&p| {
            let away = (0..count).map(|k| (x(k, p) - o(p)).abs()).sum::<f64>() / m;
            let pairs = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
            away - pairs.map(|(i, j)| (x(i, p) - x(j, p)).abs()).sum::<f64>() / (2.0 * m * m)
        });
        near(sums.crps(), crps.sum::<f64>() / n, "crps");
        let mean = |p: usize| (0..count).map(|k| x(k, p)).sum::<f64>() / m;
        let rmse = (at.iter().map(|&p| (mean(p) - o(p)).powi(2)).sum::<f64>() / n).sqrt();
        near(sums.rmse(), rmse, "rmse");
        if count > 1 {
            let variance =
                |p: usize| (0..count).map(|k| (x(k, p) - mean(p)).powi(2)).sum::<f64>() / (m - 1.0);
            let spread = (at.iter().map(|&p| variance(p)).sum::<f64>() / n * (m + 1.0) / m).sqrt();
            near(sums.spread(), spread, "spread");
        } else {
            assert_eq!(sums.spread(), 0.0);
            near(sums.crps(), at.iter().map(|&p| (x(0, p) - o(p)).abs()).sum::<f64>() / n, "mae");
        }
        for (place, threshold) in [0.5, 2.0].into_iter().enumerate() {
            let share = |p: usize| (0..count).filter(|k| x(*k, p) > threshold).count() as f64 / m;
            let brier =
                at.iter().map(|&p| (share(p) - f64::from(u8::from(o(p) > threshold))).powi(2));
            near(sums.brier(place), brier.sum::<f64>() / n, "brier");
            let points = sums.reliability(place);
            assert_eq!(points.iter().map(|point| point.count).sum::<i64>(), sums.scored);
            for point in points {
                let here: Vec<_> =
                    at.iter().filter(|p| (share(**p) - point.forecast).abs() < 1e-9).collect();
                assert_eq!(point.count, here.len() as i64);
                let came = here.iter().filter(|p| o(***p) > threshold).count() as f64;
                near(point.observed, came / here.len() as f64, "reliability");
            }
        }
        // Between as many as are surely below and as many as are not surely above.
        let mut bounds = vec![[0_i64; 2]; count + 1];
        for &p in &at {
            let below = (0..count).filter(|k| x(*k, p) < o(p)).count();
            let equal = (0..count).filter(|k| x(*k, p) == o(p)).count();
            if equal < count {
                bounds[below][0] += i64::from(equal == 0);
                (below..=below + equal).for_each(|rank| bounds[rank][1] += 1);
            }
        }
        let untied = at.iter().filter(|p| (0..count).any(|k| x(k, **p) != o(**p))).count();
        assert_eq!(sums.ranks().iter().sum::<i64>(), untied as i64);
        for (rank, [least, most]) in bounds.into_iter().enumerate() {
            assert!((least..=most).contains(&sums.ranks()[rank]), "rank {rank} of {count}");
        }
    }
}

#[test]
fn sums_add_up_in_any_order_and_lots_are_even() {
    let parts: Vec<EnsembleSums> = (0..6)
        .map(|k| {
            let (members, observed) = case(5, 400, k);
            EnsembleSums::of(&members, &observed, &[1.0], k as u64)
        })
        .collect();
    let sum = |order: [usize; 6]| {
        let mut sum = EnsembleSums::default();
        order.into_iter().for_each(|k| sum.add(&parts[k]));
        sum
    };
    let forward = sum([0, 1, 2, 3, 4, 5]);
    assert_eq!(forward, sum([4, 2, 0, 5, 1, 3]));
    assert_eq!(forward.pairs, 6);
    // All but one member equal what came: each rank is as likely.
    let mut members = vec![vec![1.0; 60_000]; 4];
    members.push(vec![2.0; 60_000]);
    let ranks = EnsembleSums::of(&members, &vec![1.0; 60_000], &[], 3);
    assert_eq!(ranks.ranks()[5], 0);
    for count in &ranks.ranks()[..5] {
        assert!((11_500..12_500).contains(count), "{:?}", ranks.ranks());
    }
    let nothing = EnsembleSums::of(&members[..1], &vec![f32::NAN; 60_000], &[1.0], 0);
    assert!((nothing.pairs, nothing.scored) == (0, 0) && nothing.crps().is_nan());
}
