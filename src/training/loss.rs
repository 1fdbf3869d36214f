//! What a step lowers.

use anyhow::Result;
use candle_core::{Device, Tensor};
use physicnet_operators::cropping::Transform;
use physicnet_operators::model::{ModelConfig, Outputs};

use super::config::{ErrorKind, LossConfig};
use super::sample::Sample;

/// The parts of the loss of one sample, by name; `total` is the weighted sum.
pub(crate) struct Losses {
    /// The sum that is differentiated.
    pub(crate) total: Tensor,
    /// The sum as `loss`, then each part as a number, unweighted.
    pub(crate) parts: Vec<(&'static str, f64)>,
}

/// The loss under fixed settings.
pub(crate) struct Loss {
    config: LossConfig,
    /// The weight of each `lead * C` field, averaging to 1; shape `(1, 1, 1, lead * C)`.
    leads: Tensor,
    /// Thresholds in transformed units.
    thresholds: Vec<f64>,
    /// That of the first variable.
    transform: Transform,
    channels: usize,
    /// Physical variance that the chosen expert leaves.
    variance: f64,
}

/// How far from a threshold a pixel still half counts, transformed units.
const SOFTNESS: f64 = 0.2;

impl Loss {
    /// The loss of a model; `lead_weights` has one weight per lead, `variance` is the squared
    /// error in physical units that the physical part is measured in.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub(crate) fn new(
        config: &LossConfig,
        model: &ModelConfig,
        lead_weights: &[f32],
        variance: f64,
    ) -> Result<Self> {
        let channels = model.variables.len();
        let each: Vec<f32> =
            lead_weights.iter().flat_map(|&w| std::iter::repeat_n(w, channels)).collect();
        let depth = each.len();
        let transform = model.variables[0].transform;
        let thresholds =
            config.thresholds.iter().map(|&t| f64::from(transform.forward(t as f32))).collect();
        Ok(Self {
            config: config.clone(),
            leads: Tensor::from_vec(each, (1, 1, 1, depth), &Device::Cpu)?,
            thresholds,
            transform,
            channels,
            variance: variance.max(1e-12),
        })
    }

    /// The loss of one sample.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub(crate) fn of(&self, out: &Outputs, sample: &Sample) -> Result<Losses> {
        let LossConfig { error, physical, soft_csi, warp, smooth, commitment, .. } = self.config;
        let device = out.mean.device();
        let sample = &sample.on(device)?;
        let weight = sample.weight.broadcast_mul(&self.leads.to_device(device)?)?;
        let count = sample.weight.sum_all()?.to_scalar::<f32>()?.max(1.0);
        let mean = |field: &Tensor, kind: ErrorKind| -> Result<Tensor> {
            let off = (field - &sample.target)?;
            let off = match kind {
                ErrorKind::Mae => off.abs()?,
                ErrorKind::Mse => off.sqr()?,
            };
            Ok(((off * &weight)?.sum_all()? / f64::from(count))?)
        };
        let mut parts: Vec<(&'static str, f64, Tensor)> =
            vec![("mean", 1.0, mean(&out.mean, error)?)];
        if physical > 0.0 {
            parts.push(("physical", physical, self.physical(&out.mean, sample, &weight)?));
        }
        if let Some(global) = &out.global {
            parts.push(("global", 1.0, mean(global, error)?));
        }
        if let Some(sharp) = &out.sharp {
            parts.push(("sharp", 1.0, mean(sharp, error)?));
            if soft_csi > 0.0 && !self.thresholds.is_empty() {
                parts.push(("csi", soft_csi, self.soft_csi(sharp, sample)?));
            }
        }
        if let Some(correction) = &out.correction {
            parts.push(("warp", warp, mean(&out.warped, ErrorKind::Mse)?));
            parts.push(("smooth", smooth, roughness(correction)?));
        }
        if let Some(distance) = &out.commitment {
            parts.push(("codes", commitment, distance.clone()));
        }
        let mut total = Tensor::zeros((), candle_core::DType::F32, device)?;
        let mut told = vec![("loss", 0.0)];
        for (name, weight, part) in parts {
            told.push((name, f64::from(part.to_scalar::<f32>()?)));
            total = (total + (part * weight)?)?;
        }
        told[0].1 = f64::from(total.to_scalar::<f32>()?);
        Ok(Losses { total, parts: told })
    }

    /// Squared error of the first variable in physical units, over the expert's.
    fn physical(&self, field: &Tensor, sample: &Sample, weight: &Tensor) -> Result<Tensor> {
        let (field, target) = (self.first(field)?, self.first(&sample.target)?);
        let weight = self.first(weight)?;
        let count = self.first(&sample.weight)?.sum_all()?.to_scalar::<f32>()?.max(1.0);
        let physical = |x: &Tensor| inverse(&self.transform, x);
        let (off, scale) = match (physical(&field)?, physical(&target)?) {
            (Some(field), Some(target)) => ((field - target)?, self.variance),
            // An affine transform: squared error is the same up to scale.
            _ => ((field - target)?, 1.0),
        };
        Ok(((off.sqr()? * weight)?.sum_all()? / (f64::from(count) * scale))?)
    }

    /// What is the first variable's of `(1, H, W, lead * C)`.
    fn first(&self, field: &Tensor) -> Result<Tensor> {
        if self.channels == 1 {
            return Ok(field.clone());
        }
        let (b, h, w, depth) = field.dims4()?;
        let split = field.reshape((b, h, w, depth / self.channels, self.channels))?;
        Ok(split.narrow(4, 0, 1)?.squeeze(4)?)
    }

    /// `1 - CSI`, each pixel counted by how surely it passes the threshold; the mean over leads
    /// and thresholds.
    pub(super) fn soft_csi(&self, field: &Tensor, sample: &Sample) -> Result<Tensor> {
        let (field, target) = (self.first(field)?, self.first(&sample.target)?);
        let weight = self.first(&sample.weight)?;
        let per_lead = |x: &Tensor| x.sum((0, 1, 2));
        let mut sum: Option<Tensor> = None;
        for &threshold in &self.thresholds {
            let yes = (target.ge(threshold)?.to_dtype(candle_core::DType::F32)? * &weight)?;
            let sure = candle_nn::ops::sigmoid(&((&field - threshold)? / SOFTNESS)?)?;
            let sure = (sure * &weight)?;
            let hits = (&sure * &yes)?;
            let either = ((&sure + &yes)? - &hits)?;
            let csi = ((per_lead(&hits)? + 1.0)? / (per_lead(&either)? + 1.0)?)?;
            let miss = (1.0 - csi.mean_all()?)?;
            sum = Some(match sum {
                Some(sum) => (sum + miss)?,
                None => miss,
            });
        }
        let sum = sum.expect("called with thresholds");
        Ok((sum / self.thresholds.len() as f64)?)
    }
}

/// Physical values of transformed ones; `None` where the transform is affine. Capped where one wild
/// pixel would own the step: at about 200 units above the floor's scale of rates, at a thousand scales.
fn inverse(transform: &Transform, v: &Tensor) -> Result<Option<Tensor>> {
    let odd = |size: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>| -> Result<Option<Tensor>> {
        Ok(Some((size(&v.relu()?)? - size(&v.neg()?.relu()?)?)?))
    };
    Ok(match *transform {
        Transform::Identity | Transform::Standardise { .. } => None,
        Transform::LogRate { floor } => {
            Some((((v.clamp(0f32, 3.8f32)? * 2.0)?.exp()? - 1.0)? * floor)?)
        }
        Transform::Log1p { scale } => {
            let scale = scale.unwrap_or(1.0);
            odd(&|v| (v.clamp(0f32, 7f32)?.exp()? - 1.0)? * scale)?
        }
        Transform::Sqrt { scale } => {
            let scale = scale.unwrap_or(1.0);
            odd(&|v| v.clamp(0f32, 32f32)?.sqr()? * scale)?
        }
    })
}

/// The mean absolute step, in units of four pixels, between neighbouring latent cells of a flow `(B, h, w, 2 * lead)`.
fn roughness(flow: &Tensor) -> Result<Tensor> {
    let (_, h, w, _) = flow.dims4()?;
    if h < 2 || w < 2 {
        return Ok((flow.sum_all()? * 0.0)?);
    }
    let dy = (flow.narrow(1, 1, h - 1)? - flow.narrow(1, 0, h - 1)?)?.abs()?.mean_all()?;
    let dx = (flow.narrow(2, 1, w - 1)? - flow.narrow(2, 0, w - 1)?)?.abs()?.mean_all()?;
    Ok(((dx + dy)? / 4.0)?)
}
