//! Reproducible random numbers: one independent sequence for every key.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea and Flood 2014): small, fast and good enough for fields and storms.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of `key`; keys that differ anywhere have unrelated sequences.
    pub(super) fn new(key: &[u64]) -> Self {
        key.iter().fold(Self(0x6a09_e667_f3bc_c908), |state, word| {
            // Mixed after every word, so that neither order nor length may be confused.
            Self(Self(state.0 ^ word.wrapping_mul(0xd6e8_feb8_6659_fd93)).bits())
        })
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high)`; `low` itself where they are equal.
    pub(super) fn between(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Two independent standard normals (Box and Muller).
    pub(super) fn normals(&mut self) -> [f64; 2] {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (TAU * self.unit()).sin_cos();
        [radius * cos, radius * sin]
    }

    /// A count with the given mean, which should be small (Knuth's product of uniforms).
    pub(super) fn poisson(&mut self, mean: f64) -> usize {
        let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_right_and_keys_are_apart() {
        let n = 20_000;
        let mut random = Random::new(&[7]);
        let normals: Vec<f64> = (0..n).flat_map(|_| random.normals()).collect();
        let mean = normals.iter().sum::<f64>() / normals.len() as f64;
        let square = normals.iter().map(|z| z * z).sum::<f64>() / normals.len() as f64;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03, "{mean} {square}");
        let counts = (0..n).map(|_| random.poisson(0.7)).sum::<usize>() as f64 / n as f64;
        assert!((counts - 0.7).abs() < 0.03, "{counts}");

        let keys: [&[u64]; 6] = [&[], &[0], &[0, 0], &[0, 1], &[1, 0], &[1]];
        let mut first: Vec<u64> = keys.iter().map(|key| Random::new(key).bits()).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), keys.len());
    }
}
