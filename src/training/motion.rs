//! How far the corrected flow carries: what tells a motion that has gone astray from one that fits.

use anyhow::Result;
use candle_core::Tensor;

use super::sample::Sample;

/// Sums over the pixels and leads that count in the loss.
#[derive(Clone, Copy, Default)]
pub(super) struct Motion {
    count: f64,
    sum: f64,
    largest: f64,
    beyond: f64,
}

impl Motion {
    /// Of one sample, by its displacement `(1, H, W, 2 * lead)`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub(super) fn of(displacement: &Tensor, sample: &Sample) -> Result<Self> {
        let (_, rows, columns, depth) = displacement.dims4()?;
        let steps: Vec<f32> = displacement.flatten_all()?.to_vec1()?;
        let weights: Vec<f32> = sample.weight.flatten_all()?.to_vec1()?;
        let channels = weights.len() / (rows * columns * depth / 2).max(1);
        let (bottom, right) = (sample.extent.height as f32 - 1.0, sample.extent.width as f32 - 1.0);
        let mut motion = Self::default();
        for (at, (step, weights)) in
            steps.chunks_exact(2).zip(weights.chunks_exact(channels.max(1))).enumerate()
        {
            if weights.iter().all(|weight| *weight == 0.0) {
                continue;
            }
            let pixel = at / (depth / 2);
            let (x, y) = ((pixel % columns) as f32 + step[0], (pixel / columns) as f32 + step[1]);
            let length = f64::from(step[0].hypot(step[1]));
            motion.count += 1.0;
            motion.sum += length;
            motion.largest = motion.largest.max(length);
            motion.beyond += f64::from(!(0.0..=right).contains(&x) || !(0.0..=bottom).contains(&y));
        }
        Ok(motion)
    }

    /// Takes another sample's in.
    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.largest = self.largest.max(other.largest);
        self.beyond += other.beyond;
    }

    /// The mean and the largest displacement in pixels, and the share that comes from beyond the
    /// frame.
    pub(super) fn told(self) -> [(&'static str, f64); 3] {
        let each = self.count.max(1.0);
        [
            ("displacement", self.sum / each),
            ("displacement_largest", self.largest),
            ("beyond_frame", self.beyond / each),
        ]
    }
}
