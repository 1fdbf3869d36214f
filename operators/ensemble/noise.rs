//! Gaussian noise that neighbours in space and in lead time share.

use std::f32::consts::TAU;

/// Pixels between the nodes of each octave.
const OCTAVES: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Leads between two nodes.
const LEADS: usize = 2;
/// Octaves with less of the variance are left out.
const LEAST: f32 = 0.02;

/// The share of the variance that each octave has at a lead. Errors of rain forecasts are as like
/// those some pixels away as this makes them: on KNMI's radar half as like at 2, 3, 5 and 9 pixels after 1, 3, 6 and
/// 12 leads.
fn shares(lead: usize) -> [f32; OCTAVES.len()] {
    let middle = (2.2 * (lead as f32).powf(0.7)).log2();
    let raw = OCTAVES.map(|spacing| (-0.8 * ((spacing as f32).log2() - middle).powi(2)).exp());
    let whole = raw.iter().sum::<f32>();
    let kept = raw.map(|share| if share > LEAST * whole { share } else { 0.0 });
    let whole = kept.iter().sum::<f32>();
    kept.map(|share| share / whole)
}

/// A field `[y, x]` of numbers with mean 0 and variance 1 for lead `lead`: the same for the same
/// `seed` and lead, unlike for another seed. Between the nodes of a lattice it is interpolated, and
/// divided by what that takes away from the variance.
pub(super) fn noise(seed: u64, lead: usize, [height, width]: [usize; 2], out: &mut Vec<f32>) {
    out.clear();
    out.resize(height * width, 0.0);
    let (level, along) = (lead / LEADS, weights(lead % LEADS, LEADS));
    let octaves = OCTAVES.into_iter().zip(shares(lead)).enumerate();
    for (octave, (spacing, share)) in octaves.filter(|(_, (_, share))| *share > 0.0) {
        let (rows, columns) = (height / spacing + 2, width / spacing + 2);
        let node = |level: usize, at: usize| {
            let place = (octave as u64) << 60 | (level as u64) << 40 | at as u64;
            normal(seed ^ mixed(place))
        };
        let amplitude = share.sqrt();
        let nodes: Vec<f32> = (0..rows * columns)
            .map(|at| amplitude * (along[0] * node(level, at) + along[1] * node(level + 1, at)))
            .collect();
        let across: Vec<[f32; 2]> = (0..spacing).map(|step| weights(step, spacing)).collect();
        let mut line = vec![0.0; columns];
        for (y, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let [upper, lower] = weights(y % spacing, spacing);
            let above = &nodes[y / spacing * columns..][..columns];
            let below = &nodes[(y / spacing + 1) * columns..][..columns];
            for ((to, above), below) in line.iter_mut().zip(above).zip(below) {
                *to = upper * above + lower * below;
            }
            for (out, pair) in out.chunks_mut(spacing).zip(line.windows(2)) {
                for (out, [left, right]) in out.iter_mut().zip(&across) {
                    *out += left * pair[0] + right * pair[1];
                }
            }
        }
    }
}

/// How two nodes count `step` of `spacing` steps behind the first, so that the variance stays 1.
fn weights(step: usize, spacing: usize) -> [f32; 2] {
    let share = step as f32 / spacing as f32;
    let size = (1.0 - share).hypot(share);
    [(1.0 - share) / size, share / size]
}

/// A standard normal number of a key (Box and Muller).
fn normal(key: u64) -> f32 {
    let bits = mixed(key);
    let unit = |bits: u64| (bits >> 8) as f32 / (1_u32 << 24) as f32;
    let (radius, angle) = (1.0 - unit(bits >> 32), unit(bits & 0xffff_ffff));
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

/// The bits of a number, well mixed (SplitMix64; Steele, Lea and Flood 2014).
pub(crate) fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(seed: u64, lead: usize) -> Vec<f32> {
        let mut out = Vec::new();
        noise(seed, lead, [150, 170], &mut out);
        out
    }

    fn correlation(a: &[f32], b: &[f32]) -> f64 {
        let sum = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        sum / a.len().min(b.len()) as f64
    }

    #[test]
    fn noise_has_variance_one_everywhere_and_neighbours_share_it() {
        let all: Vec<Vec<f32>> = (0..200).map(|seed| field(seed, 4)).collect();
        // At and between nodes.
        for at in [0, 1, 16, 17, 170 * 16 + 16, 170 * 33 + 5, 170 * 149 + 169] {
            let square = all.iter().map(|field| f64::from(field[at]).powi(2)).sum::<f64>() / 200.0;
            let mean = all.iter().map(|field| f64::from(field[at])).sum::<f64>() / 200.0;
            assert!((square - 1.0).abs() < 0.35 && mean.abs() < 0.25, "{at}: {square} {mean}");
        }
        let whole = all.iter().flatten().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        assert!((whole / (200.0 * 150.0 * 170.0) - 1.0).abs() < 0.02, "{whole}");
        let shifted = |by: usize| {
            all.iter().map(|f| correlation(&f[by..], f)).sum::<f64>() / all.len() as f64
        };
        let near = [1, 4, 16, 64].map(shifted);
        assert!(near[0] > 0.7 && near.windows(2).all(|pair| pair[0] > pair[1]), "{near:?}");
        assert!(near[3].abs() < 0.05, "{near:?}");
    }

    #[test]
    fn noise_reaches_as_far_as_errors_do() {
        for (lead, half) in [(1, 2), (3, 3), (6, 5), (12, 9)] {
            let all: Vec<Vec<f32>> = (0..60).map(|seed| field(seed, lead)).collect();
            let alike = all.iter().map(|f| correlation(&f[half..], f)).sum::<f64>() / 60.0;
            assert!((0.3..0.7).contains(&alike), "lead {lead}, {half} pixels: {alike}");
        }
    }

    #[test]
    fn noise_is_the_same_again_alike_at_the_next_lead_and_unlike_of_another_seed() {
        assert_eq!(field(7, 3), field(7, 3));
        let next = correlation(&field(7, 3), &field(7, 4));
        assert!((0.5..0.95).contains(&next), "{next}");
        assert!(correlation(&field(7, 3), &field(8, 3)).abs() < 0.3);
        assert!(correlation(&field(7, 3), &field(7, 12)).abs() < 0.3);
    }
}
