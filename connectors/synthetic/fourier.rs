//! Two-dimensional Fourier transforms of square periodic fields, skipping what is known to be zero.

use std::sync::Arc;

use rustfft::num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

/// Transforms between an n × n field in `[y][x]` and its coefficients in `[kx][ky]`, where row
/// or column j stands for the wave number j, or j − n beyond the middle.
///
/// Keeping coefficients transposed saves one of two transpositions each way.
pub(super) struct Fourier {
    n: usize,
    keep: usize,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
    turned: Vec<Complex64>,
    scratch: Vec<Complex64>,
}

impl Fourier {
    /// For fields of n × n whose coefficients vanish, or are not wanted, beyond |k| = `keep`.
    pub(super) fn new(n: usize, keep: usize) -> Self {
        let mut planner = FftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(n), planner.plan_fft_inverse(n));
        let scratch = forward.get_inplace_scratch_len().max(inverse.get_inplace_scratch_len());
        let zero = Complex64::default();
        Self {
            n,
            keep: keep.min(n / 2),
            forward,
            inverse,
            turned: vec![zero; n * n],
            scratch: vec![zero; scratch],
        }
    }

    /// The field whose coefficients `plane` holds: f(x, y) = Σ c(k) exp(2πi (kx x + ky y) / n).
    pub(super) fn inverse(&mut self, plane: &mut [Complex64]) {
        let n = self.n;
        for rows in kept(n, self.keep) {
            self.inverse.process_with_scratch(&mut plane[rows], &mut self.scratch);
        }
        transpose(plane, &mut self.turned, n);
        self.inverse.process_with_scratch(&mut self.turned, &mut self.scratch);
        plane.copy_from_slice(&self.turned);
    }

    /// The coefficients of the field that `plane` holds, times n²; rows beyond |kx| = `keep`
    /// are left meaningless.
    pub(super) fn forward(&mut self, plane: &mut [Complex64]) {
        let n = self.n;
        self.forward.process_with_scratch(plane, &mut self.scratch);
        transpose(plane, &mut self.turned, n);
        plane.copy_from_slice(&self.turned);
        for rows in kept(n, self.keep) {
            self.forward.process_with_scratch(&mut plane[rows], &mut self.scratch);
        }
    }
}

/// Where the rows of the wave numbers from -`keep` to `keep` lie.
fn kept(n: usize, keep: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let whole = 2 * keep + 1 >= n;
    let head = if whole { 0..n * n } else { 0..(keep + 1) * n };
    let tail = (!whole && keep > 0).then(|| (n - keep) * n..n * n);
    std::iter::once(head).chain(tail)
}

fn transpose(from: &[Complex64], to: &mut [Complex64], n: usize) {
    // Blocks that fit the first cache: a power of two as row length would otherwise thrash it.
    const BLOCK: usize = 8;
    for y in (0..n).step_by(BLOCK) {
        for x in (0..n).step_by(BLOCK) {
            for row in y..(y + BLOCK).min(n) {
                for column in x..(x + BLOCK).min(n) {
                    to[column * n + row] = from[row * n + column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_one_coefficient() {
        for (n, keep, kx, ky) in [(12, 3, 2, -3_i64), (9, 9, -4, 1), (8, 0, 0, 0)] {
            let at = |k: i64| k.rem_euclid(n as i64) as usize;
            let mut plane = vec![Complex64::default(); n * n];
            plane[at(kx) * n + at(ky)] = Complex64::new(0.5, -1.0);
            let coefficients = plane.clone();
            let mut fourier = Fourier::new(n, keep);
            fourier.inverse(&mut plane);
            for y in 0..n {
                for x in 0..n {
                    let phase = (kx * x as i64 + ky * y as i64) as f64 / n as f64;
                    let angle = std::f64::consts::TAU * phase;
                    let wave = Complex64::new(0.5, -1.0) * Complex64::cis(angle);
                    assert!((plane[y * n + x] - wave).norm() < 1e-12);
                }
            }
            fourier.forward(&mut plane);
            for row in kept(n, keep).flatten() {
                assert!((plane[row] / (n * n) as f64 - coefficients[row]).norm() < 1e-12);
            }
        }
    }
}
