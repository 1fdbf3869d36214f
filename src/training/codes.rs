//! The codebook's running means: each code follows the latents that it was nearest to.

use super::optimiser::Named;

/// How much of the past a step keeps.
const KEEP: f32 = 0.98;
/// A code used less than this is given to a latent of the batch.
const DEAD: f32 = 0.05;

/// Running counts and sums of a codebook of `counts.len()` codes.
#[derive(Clone, Default)]
pub(crate) struct Codes {
    /// The running count of each code.
    pub(crate) counts: Vec<f32>,
    /// The running sum of each code's latents, `(code, depth)`.
    pub(crate) sums: Vec<f32>,
}

/// The name of the codebook among the weights.
pub(crate) const CODEBOOK: &str = "quantization.codebook";

impl Codes {
    /// Follows a batch of latents `(n, depth)` and their codes; the first batch fills the book.
    /// Returns how many codes had died and were given to latents of the batch.
    pub(crate) fn follow(
        &mut self,
        latents: &[f32],
        codes: &[u32],
        depth: usize,
        weights: &mut [&mut Named],
    ) -> usize {
        let Some(size) = weights.first().and_then(|w| w.get(CODEBOOK)).map(|b| b.len() / depth)
        else {
            return 0;
        };
        let rows: Vec<&[f32]> = latents.chunks_exact(depth).collect();
        if rows.is_empty() {
            return 0;
        }
        let mut revived = 0;
        // Spread over the batch without a draw, so that a resumed run takes the same ones.
        let spare = |code: usize| rows[code.wrapping_mul(2_654_435_761) % rows.len()];
        if self.counts.len() != size {
            self.counts = vec![1.0; size];
            self.sums = (0..size).flat_map(|code| spare(code).to_vec()).collect();
        } else {
            let mut counts = vec![0.0_f32; size];
            let mut sums = vec![0.0_f32; size * depth];
            for (row, &code) in rows.iter().zip(codes) {
                let code = code as usize;
                counts[code] += 1.0;
                sums[code * depth..][..depth].iter_mut().zip(*row).for_each(|(s, v)| *s += v);
            }
            let blend = |old: &mut f32, new: f32| *old = KEEP * *old + (1.0 - KEEP) * new;
            self.counts.iter_mut().zip(counts).for_each(|(old, new)| blend(old, new));
            self.sums.iter_mut().zip(sums).for_each(|(old, new)| blend(old, new));
            for code in 0..size {
                if self.counts[code] < DEAD {
                    revived += 1;
                    self.counts[code] = 1.0;
                    self.sums[code * depth..][..depth].copy_from_slice(spare(code));
                }
            }
        }
        let entries: Vec<f32> = self
            .sums
            .chunks_exact(depth)
            .zip(&self.counts)
            .flat_map(|(sum, &count)| sum.iter().map(move |s| s / (count + 1e-5)))
            .collect();
        for named in weights {
            named.insert(CODEBOOK.to_owned(), entries.clone());
        }
        revived
    }

    /// How many codes are in use, as `exp` of the entropy of the running counts.
    pub(crate) fn perplexity(&self) -> f64 {
        let total: f64 = self.counts.iter().map(|&c| f64::from(c)).sum();
        let share = |&c: &f32| f64::from(c) / total;
        let entropy: f64 =
            self.counts.iter().map(share).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
        entropy.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_nobody_uses_come_back() {
        let mut codes = Codes::default();
        let mut weights = Named::from([(CODEBOOK.to_owned(), vec![0.0; 4])]);
        // Four codes of one number; latents far apart fill the book, then one code is used.
        let mut follow = |latents: &[f32], used: &[u32]| {
            let revived = codes.follow(latents, used, 1, &mut [&mut weights]);
            (revived, codes.perplexity())
        };
        assert_eq!(follow(&[0.0, 1.0, 2.0, 3.0], &[0; 4]), (0, 4.0));
        let mut least = f64::INFINITY;
        let mut died = None;
        for step in 0..400 {
            let (revived, perplexity) = follow(&[5.0, 6.0, 7.0, 8.0], &[2; 4]);
            least = least.min(perplexity);
            if revived > 0 {
                died.get_or_insert((step, revived));
            }
        }
        // 0.98 to the power of 149 is the first below 0.05.
        assert_eq!(died, Some((148, 3)), "the other three");
        assert!(least < 1.7, "{least}");
        let book = &weights[CODEBOOK];
        assert!(book.iter().all(|entry| (4.9..=8.0).contains(entry)), "{book:?}");
    }
}
