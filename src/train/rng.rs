//! Randomness that is a function of its keys: what makes resuming exact.

/// SplitMix64 (Steele et al. 2014), started from a hash of its keys.
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator of these keys: the same numbers in every run.
    pub(crate) fn keyed(keys: &[u64]) -> Self {
        let mut rng = Self(0x243f_6a88_85a3_08d3);
        for &key in keys {
            rng.0 ^= key;
            rng.0 = rng.bits();
        }
        rng
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..n; 0 where n is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Standard normal, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// FNV-1a of a name, as a key.
pub(crate) fn key_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_decide_and_moments_hold() {
        assert_eq!(Rng::keyed(&[1, 2]).bits(), Rng::keyed(&[1, 2]).bits());
        assert_ne!(Rng::keyed(&[1, 2]).bits(), Rng::keyed(&[2, 1]).bits());
        let mut rng = Rng::keyed(&[7]);
        let all: Vec<f64> = (0..20_000).map(|_| rng.normal()).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let var = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
        assert!((0..1000).all(|_| rng.below(3) < 3));
    }
}
