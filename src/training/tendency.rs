//! Where the tendency starts: the least squares of the training part.

use anyhow::{Result, anyhow};
use candle_core::Tensor;
use physicnet_operators::experts::Known;
use physicnet_operators::model::PhysicNet;

use super::data::Data;
use super::optimiser::Named;

/// The most windows and the most pixels of each that are looked at.
const WINDOWS: usize = 400;
const PIXELS: usize = 4096;
/// What is added to the diagonal, as a share of its mean: neighbouring frames are nearly alike.
const RIDGE: f64 = 1e-5;

/// The names of the weights that are fitted.
const WEIGHT: &str = "experts.tendency.weight";
const BIAS: &str = "experts.tendency.bias";

/// Fits the tendency's weights, for every lead and channel, to what the chosen expert leaves.
///
/// # Errors
/// When a window cannot be read, or the network has no tendency.
pub(super) fn fit(net: &PhysicNet, data: &Data, weights: &mut Named) -> Result<()> {
    let tendency = net.experts.tendency().ok_or_else(|| anyhow!("no tendency to fit"))?;
    let (leads, channels) = (net.config.horizon, net.config.variables.len());
    let terms = net.config.tendency * channels;
    let mut sums = vec![Normal::new(terms + 1); leads * channels];
    for place in data.spread(WINDOWS) {
        let sample = data.whole(place, &net.config)?;
        let (sample, batch) = (sample.on(&net.device)?, &sample.batch.on(&net.device)?);
        let newest = batch.frames.narrow(1, net.config.history - 1, 1)?.squeeze(1)?.contiguous()?;
        let (past, prior) = (net.past(batch)?, net.prior(&batch.flow)?);
        let (flow, latents) = (&batch.flow, &[]);
        let known = Known { latents, newest: &newest, past: &past, flow, prior: &prior };
        let plain = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let left = plain(&(&sample.target - net.experts.chosen(&known)?)?)?;
        let counts = plain(&sample.weight)?;
        let pixels = left.len() / (leads * channels);
        for lead in 0..leads {
            let rows = plain(&tendency.terms(&known, &prior, lead)?)?;
            for pixel in (0..pixels).step_by(pixels.div_ceil(PIXELS)) {
                let at = (pixel * leads + lead) * channels;
                for (c, sums) in sums[lead * channels..][..channels].iter_mut().enumerate() {
                    if counts[at + c] > 0.0 {
                        sums.add(&rows[pixel * terms..][..terms], left[at + c]);
                    }
                }
            }
        }
    }
    let solved: Vec<Vec<f64>> = sums.into_iter().map(Normal::solve).collect();
    let weight = solved.iter().flat_map(|w| &w[..terms]).map(|&w| w as f32).collect();
    let bias = solved.iter().map(|w| w[terms] as f32).collect();
    weights.insert(WEIGHT.to_owned(), weight);
    weights.insert(BIAS.to_owned(), bias);
    Ok(())
}

/// The normal equations of one output, a constant term last.
#[derive(Clone)]
struct Normal {
    size: usize,
    matrix: Vec<f64>,
    right: Vec<f64>,
}

impl Normal {
    fn new(size: usize) -> Self {
        Self { size, matrix: vec![0.0; size * size], right: vec![0.0; size] }
    }

    fn add(&mut self, terms: &[f32], value: f32) {
        let term = |i: usize| terms.get(i).map_or(1.0, |&t| f64::from(t));
        for i in 0..self.size {
            let own = term(i);
            let row = &mut self.matrix[i * self.size..][..=i];
            row.iter_mut().enumerate().for_each(|(j, m)| *m += own * term(j));
            self.right[i] += own * f64::from(value);
        }
    }

    /// The weights of least squared error, by Cholesky's factors; zeros where nothing was seen.
    fn solve(mut self) -> Vec<f64> {
        let n = self.size;
        let mean = (0..n).map(|i| self.matrix[i * n + i]).sum::<f64>() / n as f64;
        if mean <= 0.0 {
            return vec![0.0; n];
        }
        let Self { matrix: m, right: x, .. } = &mut self;
        for i in 0..n {
            m[i * n + i] += RIDGE * mean;
            for j in 0..=i {
                let dot: f64 = (0..j).map(|k| m[i * n + k] * m[j * n + k]).sum();
                let rest = m[i * n + j] - dot;
                m[i * n + j] = if i == j { rest.sqrt() } else { rest / m[j * n + j] };
            }
        }
        for i in 0..n {
            let dot: f64 = (0..i).map(|k| m[i * n + k] * x[k]).sum();
            x[i] = (x[i] - dot) / m[i * n + i];
        }
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n).map(|k| m[k * n + i] * x[k]).sum();
            x[i] = (x[i] - dot) / m[i * n + i];
        }
        self.right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_find_what_made_the_data() {
        let mut sums = Normal::new(3);
        for at in 0..50 {
            let terms = [(at as f32 * 0.7).sin(), (at as f32 * 0.3).cos()];
            sums.add(&terms, 0.5 * terms[0] - 2.0 * terms[1] + 0.25);
        }
        let found = sums.solve();
        for (found, made) in found.iter().zip([0.5, -2.0, 0.25]) {
            assert!((found - made).abs() < 1e-3, "{found} {made}");
        }
        assert_eq!(Normal::new(2).solve(), [0.0, 0.0]);
    }
}
