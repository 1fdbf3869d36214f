//! The codebook: running means of the latents nearest to each entry (van den Oord et al. 2017,
//! appendix A.1), with dead entries brought back.

use anyhow::Result;
use candle_core::{Device, Tensor};
use physicnet_operators::layers::nearest_code;

use super::rng::Rng;
use super::weights::Weights;

/// Name of the entries among the weights.
pub(crate) const NAME: &str = "quantization.codebook";

/// How much of the past a step keeps.
const DECAY: f32 = 0.98;

/// An entry used less than this is dead.
const DEAD: f32 = 0.05;

/// Running counts `n` and sums of latents; entry = sum / (n + 1e-5).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Means {
    /// `(K)`.
    pub(crate) counts: Vec<f32>,
    /// `(K, latent)`; empty before the first batch.
    pub(crate) sums: Vec<f32>,
}

impl Means {
    /// Before the first batch.
    pub(crate) fn new(codes: usize) -> Self {
        Self { counts: vec![0.0; codes], sums: Vec::new() }
    }

    /// Moves the entries towards a batch of latents, each `(1, h, w, latent)`.
    pub(crate) fn update(
        &mut self,
        weights: &mut Weights,
        average: &mut Weights,
        latents: &[Tensor],
        seed: u64,
        step: u64,
    ) -> Result<()> {
        let Some(entries) = weights.0.get_mut(NAME) else { return Ok(()) };
        let mut all: Vec<f32> = Vec::new();
        for latent in latents {
            all.extend(latent.flatten_all()?.to_vec1::<f32>()?);
        }
        let (codes, depth) = (entries.shape[0], entries.shape[1]);
        let rows = all.len() / depth;
        if rows == 0 {
            return Ok(());
        }
        let mut rng = Rng::keyed(&[seed, step, 0xc0de]);
        let mut any = || &all[rng.below(rows) * depth..][..depth];
        if self.sums.is_empty() {
            self.counts = vec![1.0; codes];
            self.sums = (0..codes).flat_map(|_| any().to_vec()).collect();
        } else {
            let flat = Tensor::from_slice(&all, (rows, depth), &Device::Cpu)?;
            let book = Tensor::from_slice(&entries.values, (codes, depth), &Device::Cpu)?;
            let nearest = nearest_code(&flat, &book)?.to_vec1::<u32>()?;
            let (mut uses, mut total) = (vec![0.0_f32; codes], vec![0.0_f32; codes * depth]);
            for (row, &code) in all.chunks_exact(depth).zip(&nearest) {
                let code = code as usize;
                uses[code] += 1.0;
                let sum = &mut total[code * depth..][..depth];
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            let blend = |old: &mut f32, new: f32| *old = DECAY * *old + (1.0 - DECAY) * new;
            self.counts.iter_mut().zip(uses).for_each(|(n, used)| blend(n, used));
            self.sums.iter_mut().zip(total).for_each(|(m, sum)| blend(m, sum));
            for code in 0..codes {
                if self.counts[code] < DEAD {
                    self.counts[code] = 1.0;
                    self.sums[code * depth..][..depth].copy_from_slice(any());
                }
            }
        }
        for (i, value) in entries.values.iter_mut().enumerate() {
            *value = self.sums[i] / (self.counts[i / depth] + 1e-5);
        }
        if let Some(average) = average.0.get_mut(NAME) {
            average.values.clone_from(&entries.values);
        }
        Ok(())
    }

    /// How often each entry was used over about the last 50 batches.
    pub(crate) fn usage(&self) -> Vec<u64> {
        self.counts.iter().map(|n| (n / (1.0 - DECAY)).round() as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::train::weights::Weight;

    #[test]
    fn entries_find_the_clusters() {
        let entries = Weight { shape: vec![8, 2], values: vec![0.0; 16] };
        let mut weights = Weights(BTreeMap::from([(NAME.to_owned(), entries)]));
        let (mut average, mut means) = (weights.clone(), Means::new(8));
        let centres = [[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]];
        for step in 0..200 {
            let mut rng = Rng::keyed(&[step]);
            let mut near = |i: usize| centres[i % 4].map(|c| c + 0.05 * rng.normal() as f32);
            let values: Vec<f32> = (0..64).flat_map(&mut near).collect();
            let latent = Tensor::from_vec(values, (1, 8, 8, 2), &Device::Cpu).unwrap();
            means.update(&mut weights, &mut average, &[latent], 1, step).unwrap();
        }
        let book = &weights.0[NAME].values;
        for centre in centres {
            let off = |e: &[f32]| (e[0] - centre[0]).hypot(e[1] - centre[1]);
            let least = book.chunks_exact(2).map(off).fold(f32::INFINITY, f32::min);
            assert!(least < 0.2, "{centre:?} {least}");
        }
        assert_eq!(average, weights);
    }
}
