//! The loss and its gradient with respect to the network's outputs, written out.
//!
//! Each term is a sum over pixels divided by a number that is known before the backward pass, so
//! a batch has one loss however its windows are spread over threads. `softCSI` and the recipe:
//! differentiable thresholds with p = sigmoid((y - t) / width), per lead
//! `1 - (Σ p o + 1) / (Σ (p + o - p o) + 1)`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// A pointwise error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// Absolute: the median behaviour, not upset by violent hours.
    #[default]
    Mae,
    /// Squared.
    Mse,
    /// Squared below 1 transformed unit, absolute beyond.
    Huber,
}

impl Penalty {
    /// The penalty of an error and its derivative.
    pub(crate) fn of(self, error: f32) -> (f32, f32) {
        match self {
            Self::Mae if error == 0.0 => (0.0, 0.0),
            Self::Mae => (error.abs(), error.signum()),
            Self::Mse => (error * error, 2.0 * error),
            Self::Huber if error.abs() < 1.0 => (0.5 * error * error, error),
            Self::Huber => (error.abs() - 0.5, error.signum()),
        }
    }
}

/// A weighted pointwise term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Term {
    /// Its weight; 0 leaves it out.
    pub weight: f64,
    /// Its penalty.
    pub kind: Penalty,
}

impl Default for Term {
    fn default() -> Self {
        Self { weight: 1.0, kind: Penalty::Mae }
    }
}

/// The differentiable critical success index of the sharp head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoftCsi {
    /// Its weight; 0 leaves it out.
    pub weight: f64,
    /// Thresholds in the unit of the variable.
    pub thresholds: Vec<f32>,
    /// The width of the soft threshold, in transformed units.
    pub width: f32,
    /// The variable it is about; by default the first.
    pub variable: Option<String>,
}

impl Default for SoftCsi {
    fn default() -> Self {
        Self { weight: 0.5, thresholds: vec![0.1, 1.0, 5.0], width: 0.2, variable: None }
    }
}

/// The loss: forecast errors, then what guides the flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// The mean head.
    pub mean: Term,
    /// The sharp head, where there is one.
    pub sharp: Term,
    /// Soft CSI of the sharp head, where there is one.
    pub soft_csi: SoftCsi,
    /// The carried field: photometric.
    pub warp: Term,
    /// The gradient of the flow's correction, squared, in latent cells.
    pub smooth: f64,
    /// Latents to their codes, in `hard` quantization.
    pub commitment: f64,
    /// Whether leads are weighted against the error of persistence, so that short ones count:
    /// w_k ~ 1 / (e_k / mean(e) + 0.2), scaled to keep sum w_k e_k = sum e_k.
    pub lead_weighting: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            mean: Term::default(),
            sharp: Term::default(),
            soft_csi: SoftCsi::default(),
            warp: Term { weight: 0.1, kind: Penalty::Mse },
            smooth: 0.01,
            commitment: 0.25,
            lead_weighting: false,
        }
    }
}

impl LossConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let Self { mean, sharp, soft_csi, warp, smooth, commitment, lead_weighting: _ } = self;
        for (key, weight) in [
            ("mean.weight", mean.weight),
            ("sharp.weight", sharp.weight),
            ("soft_csi.weight", soft_csi.weight),
            ("warp.weight", warp.weight),
            ("smooth", *smooth),
            ("commitment", *commitment),
        ] {
            ensure!(weight >= 0.0 && weight.is_finite(), "loss.{key}: must not be negative");
        }
        ensure!(soft_csi.width > 0.0, "loss.soft_csi.width: must be positive");
        Ok(())
    }
}

/// The truth of a window: `(H, W, lead * C)`, transformed.
pub(crate) struct Truth<'a> {
    /// Values; any finite number where the weight is 0.
    pub(crate) values: &'a [f32],
    /// The weight of each value, 0 where it was not measured.
    pub(crate) weights: &'a [f32],
    /// Channels.
    pub(crate) channels: usize,
}

/// The sum of `scale * w_lead * weight * penalty`, its gradient added to `gradient`.
pub(crate) fn pointwise(
    forecast: &[f32],
    truth: &Truth,
    leads: &[f32],
    kind: Penalty,
    scale: f64,
    gradient: &mut [f32],
) -> f64 {
    let mut sum = 0.0;
    let row = leads.len() * truth.channels;
    for (i, (&y, g)) in forecast.iter().zip(gradient).enumerate() {
        let weight = truth.weights[i] * leads[i % row / truth.channels];
        if weight > 0.0 {
            let (value, slope) = kind.of(y - truth.values[i]);
            sum += f64::from(weight) * f64::from(value);
            *g += (scale * f64::from(weight) * f64::from(slope)) as f32;
        }
    }
    sum * scale
}

/// What soft CSI looks at.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    /// Thresholds, transformed.
    pub(crate) thresholds: Vec<f32>,
    /// The width of the soft threshold.
    pub(crate) width: f32,
    /// The channel.
    pub(crate) channel: usize,
    /// Leads.
    pub(crate) leads: usize,
}

/// Hits and unions by `lead * thresholds + threshold`, summed over a batch.
pub(crate) type Counts = Vec<[f64; 2]>;

impl Events {
    /// Hits and unions of one window.
    pub(crate) fn count(&self, forecast: &[f32], truth: &Truth) -> Counts {
        let mut counts = vec![[0.0; 2]; self.leads * self.thresholds.len()];
        self.each(truth, |i, cell, t, weight, observed| {
            let p = self.soft(forecast[i], t);
            counts[cell][0] += weight * p * observed;
            counts[cell][1] += weight * (p + observed - p * observed);
        });
        counts
    }

    /// `1 - CSI`, the mean over leads and thresholds.
    pub(crate) fn value(&self, counts: &Counts) -> f64 {
        let each = counts.iter().map(|[hits, union]| 1.0 - (hits + 1.0) / (union + 1.0));
        each.sum::<f64>() / counts.len().max(1) as f64
    }

    /// The gradient of `scale * value` for one window of the batch that `counts` sums up.
    pub(crate) fn gradient(
        &self,
        forecast: &[f32],
        truth: &Truth,
        counts: &Counts,
        scale: f64,
        gradient: &mut [f32],
    ) {
        let scale = scale / counts.len().max(1) as f64;
        self.each(truth, |i, cell, t, weight, observed| {
            let [hits, union] = counts[cell];
            let p = self.soft(forecast[i], t);
            let by_hits = observed / (union + 1.0);
            let by_union = (1.0 - observed) * (hits + 1.0) / (union + 1.0).powi(2);
            let slope = p * (1.0 - p) / f64::from(self.width);
            gradient[i] += (scale * weight * (by_union - by_hits) * slope) as f32;
        });
    }

    fn soft(&self, y: f32, threshold: f32) -> f64 {
        1.0 / (1.0 + (-f64::from(y - threshold) / f64::from(self.width)).exp())
    }

    fn each(&self, truth: &Truth, mut visit: impl FnMut(usize, usize, f32, f64, f64)) {
        let row = self.leads * truth.channels;
        let (kinds, pixels) = (self.thresholds.len(), truth.values.len() / row.max(1));
        for pixel in 0..pixels {
            for lead in 0..self.leads {
                let i = pixel * row + lead * truth.channels + self.channel;
                let weight = f64::from(truth.weights[i]);
                if weight > 0.0 {
                    for (k, &t) in self.thresholds.iter().enumerate() {
                        let observed = f64::from(u8::from(truth.values[i] >= t));
                        visit(i, lead * kinds + k, t, weight, observed);
                    }
                }
            }
        }
    }
}

/// `scale *` the mean squared step between neighbours of `field` `(h, w, depth)`, its gradient
/// added to `gradient`.
pub(crate) fn roughness(
    field: &[f32],
    [h, w, depth]: [usize; 3],
    scale: f64,
    gradient: &mut [f32],
) -> f64 {
    let mut total = 0.0;
    for (down, right) in [(1, 0), (0, 1)] {
        let (rows, columns) = (h.saturating_sub(down), w.saturating_sub(right));
        let count = rows * columns * depth;
        let share = scale / count.max(1) as f64;
        for i in 0..count {
            let (y, x, d) = (i / depth / columns, i / depth % columns, i % depth);
            let here = (y * w + x) * depth + d;
            let there = ((y + down) * w + x + right) * depth + d;
            let step = f64::from(field[there] - field[here]);
            total += share * step * step;
            gradient[there] += (2.0 * share * step) as f32;
            gradient[here] -= (2.0 * share * step) as f32;
        }
    }
    total
}

/// The weights of leads whose persistence errors are `errors`.
pub(crate) fn lead_weights(errors: &[f64]) -> Vec<f32> {
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        return vec![1.0; errors.len()];
    }
    let raw: Vec<f64> = errors.iter().map(|e| 1.0 / (e / mean + 0.2)).collect();
    let kept: f64 = raw.iter().zip(errors).map(|(w, e)| w * e).sum();
    let scale = errors.iter().sum::<f64>() / kept;
    raw.iter().map(|w| (w * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::rng::Rng;

    const LEADS: usize = 3;
    const CHANNELS: usize = 2;

    fn fields() -> [Vec<f32>; 3] {
        let mut rng = Rng::keyed(&[11]);
        let n = 4 * LEADS * CHANNELS;
        let forecast = (0..n).map(|_| rng.normal() as f32).collect();
        let truth = (0..n).map(|_| rng.normal() as f32).collect();
        let weights = (0..n).map(|i| if i % 5 == 0 { 0.0 } else { 1.0 }).collect();
        [forecast, truth, weights]
    }

    fn differences(forecast: &[f32], gradient: &[f32], loss: &dyn Fn(&[f32]) -> f64) {
        for i in 0..forecast.len() {
            let (mut up, mut down) = (forecast.to_vec(), forecast.to_vec());
            up[i] += 1e-3;
            down[i] -= 1e-3;
            let slope = (loss(&up) - loss(&down)) / f64::from(up[i] - down[i]);
            assert!((slope - f64::from(gradient[i])).abs() < 1e-4, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn pointwise_is_the_plain_weighted_mean() {
        let [forecast, values, weights] = fields();
        let truth = Truth { values: &values, weights: &weights, channels: CHANNELS };
        let leads = [1.0, 0.5, 2.0];
        for kind in [Penalty::Mae, Penalty::Mse, Penalty::Huber] {
            let loss = |y: &[f32]| pointwise(y, &truth, &leads, kind, 0.1, &mut vec![0.0; y.len()]);
            let mut gradient = vec![0.0; forecast.len()];
            pointwise(&forecast, &truth, &leads, kind, 0.1, &mut gradient);
            differences(&forecast, &gradient, &loss);
            let mut plain = 0.0;
            for pixel in 0..4 {
                for lead in 0..LEADS {
                    for c in 0..CHANNELS {
                        let i = (pixel * LEADS + lead) * CHANNELS + c;
                        let e = f64::from((forecast[i] - values[i]).abs());
                        let value = match kind {
                            Penalty::Mae => e,
                            Penalty::Mse => e * e,
                            Penalty::Huber => {
                                if e < 1.0 {
                                    e * e / 2.0
                                } else {
                                    e - 0.5
                                }
                            }
                        };
                        plain += 0.1 * f64::from(weights[i] * leads[lead]) * value;
                    }
                }
            }
            assert!((loss(&forecast) - plain).abs() < 1e-5, "{kind:?}");
        }
    }

    #[test]
    fn soft_csi_agrees_with_differences_across_windows() {
        let [forecast, values, weights] = fields();
        let truth = Truth { values: &values, weights: &weights, channels: CHANNELS };
        let events = Events { thresholds: vec![-0.3, 0.4], width: 0.2, channel: 1, leads: LEADS };
        // Another window of the same batch takes part in the sums.
        let other = events.count(&values, &truth);
        let total = |y: &[f32]| -> Counts {
            let mine = events.count(y, &truth);
            mine.iter().zip(&other).map(|(a, b)| [a[0] + b[0], a[1] + b[1]]).collect()
        };
        let mut gradient = vec![0.0; forecast.len()];
        events.gradient(&forecast, &truth, &total(&forecast), 0.7, &mut gradient);
        differences(&forecast, &gradient, &|y| 0.7 * events.value(&total(y)));
        assert!(gradient.iter().zip(&weights).all(|(g, w)| *w > 0.0 || *g == 0.0));
    }

    #[test]
    fn a_perfect_forecast_has_little_soft_csi() {
        let values: Vec<f32> = (0..60).map(|i| if i % 2 == 0 { 5.0 } else { -5.0 }).collect();
        let truth = Truth { values: &values, weights: &[1.0; 60], channels: 1 };
        let events = Events { thresholds: vec![0.0], width: 0.2, channel: 0, leads: 1 };
        assert!(events.value(&events.count(&values, &truth)) < 1e-6);
        let wrong: Vec<f32> = values.iter().map(|v| -v).collect();
        assert!(events.value(&events.count(&wrong, &truth)) > 0.9);
    }

    #[test]
    fn roughness_agrees_with_differences() {
        let [field, ..] = fields();
        let mut gradient = vec![0.0; 24];
        let value = roughness(&field, [3, 4, 2], 0.5, &mut gradient);
        assert!(value > 0.0);
        differences(&field, &gradient, &|f| roughness(f, [3, 4, 2], 0.5, &mut vec![0.0; 24]));
        assert_eq!(roughness(&[3.0; 24], [3, 4, 2], 1.0, &mut vec![0.0; 24]), 0.0);
    }

    #[test]
    fn lead_weights_keep_the_total() {
        let errors = [0.1, 0.5, 1.2];
        let weights = lead_weights(&errors);
        let kept: f64 = errors.iter().zip(&weights).map(|(e, w)| e * f64::from(*w)).sum();
        assert!((kept - 1.8).abs() < 1e-6);
        assert!(weights[0] > weights[1] && weights[1] > weights[2]);
        assert_eq!(lead_weights(&[0.0, 0.0]), [1.0, 1.0]);
    }
}
