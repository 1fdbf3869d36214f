//! The fusion of both levels into the forecast.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;

use crate::cropping::View;
use crate::experts::{Carried, Global, LocalExpert};
use crate::layers::{
    Boundary, Conv, Start, avg_pool, gated, join, per_lead, pixel_shuffle, pixel_unshuffle,
    upsample_bilinear,
};
use crate::model::ModelConfig;

/// The two forecasts of a batch of windows, each `(B, H, W, lead * C)`, transformed units.
pub struct Fused {
    /// The head of least expected error.
    pub mean: Tensor,
    /// The same before the local level refined it, where there is one: what the global level
    /// learns from.
    pub global: Option<Tensor>,
    /// The head that keeps area and intensity, where the model has one.
    pub sharp: Option<Tensor>,
}

/// `mean = gate * field + residual`, `sharp = mean + share * (field - mean) + residual2`; the
/// field is what the experts carried, with its tendency.
pub struct Fusion {
    scale: usize,
    stride: usize,
    boundary: Boundary,
    gate: Option<Conv>,
    features: Option<(Conv, Conv)>,
    residual: Option<Conv>,
    sharp: Option<(Conv, Conv)>,
    local: Option<LocalExpert>,
}

impl Fusion {
    /// Builds or loads the weights below `vb`. Every head starts at zero: untrained, both
    /// forecasts equal the carried field.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let (channels, leads) = (config.variables.len(), config.horizon);
        let (hidden, decoder) = (config.hidden, config.decoder);
        let fields = 4 * leads * channels;
        let conv = |cin, cout, k, start, name: &str| {
            Conv::new(cin, cout, k, config.boundary, start, vb.pp(name))
        };
        let head = |cin, cout, k, name: &str| conv(cin, cout, k, Start::Zero, name);
        let features = match config.residual {
            true => Some((
                conv(hidden, 4 * decoder, 1, Start::He, "widen")?,
                conv(decoder + config.skips * config.skip + fields, decoder, 3, Start::He, "mix")?,
            )),
            false => None,
        };
        let when = |yes: bool, make: &dyn Fn() -> Result<Conv>| yes.then(make).transpose();
        let sharp = match config.sharp {
            true => Some((
                head(decoder, fields, 3, "sharp.residual")?,
                head(hidden, leads, 1, "sharp.share")?,
            )),
            false => None,
        };
        let local = match config.local {
            true => Some(LocalExpert::new(config, vb.pp("local"))?),
            false => None,
        };
        Ok(Self {
            scale: config.global_scale,
            stride: config.stride(),
            boundary: config.boundary,
            gate: when(config.gate, &|| head(hidden, leads, 1, "gate"))?,
            features,
            residual: when(config.residual, &|| head(decoder, fields, 3, "residual"))?,
            sharp,
            local,
        })
    }

    /// Fuses what the experts carried with the newest frames' skips, oldest first,
    /// `(B, H/scale/2, W/scale/2, skips * skip)`; `locals` are the window's local latents, of the
    /// `view` alone where there is one, `newest` the filled frame.
    ///
    /// # Errors
    /// When the shapes do not fit the weights.
    pub fn forward(
        &self,
        carried: &Carried,
        skip: Option<&Tensor>,
        newest: &Tensor,
        locals: &[Tensor],
        view: Option<View>,
    ) -> Result<Fused> {
        let field = &carried.field()?;
        let Some(trunk) = &carried.trunk else {
            return Ok(Fused { mean: field.clone(), global: None, sharp: None });
        };
        let features = match (&self.features, skip) {
            (Some((widen, mix)), Some(skip)) => {
                let wide = pixel_shuffle(&widen.forward_relu(trunk)?, 2)?;
                let seen = match self.scale {
                    1 => pixel_unshuffle(field, 2)?,
                    scale => pixel_unshuffle(&avg_pool(field, scale)?, 2)?,
                };
                Some(mix.forward_relu(&join(&[&wide, skip, &seen])?)?)
            }
            _ => None,
        };
        let gate = self.gate.as_ref().map(|gate| sigmoid(&gate.forward(trunk)?)? * 2.0);
        let residual = match (&self.residual, &features) {
            (Some(residual), Some(features)) => Some(self.to_pixels(&residual.forward(features)?)?),
            _ => None,
        };
        let mut mean = match (gate.transpose()?, residual) {
            (Some(gate), Some(residual)) => {
                gated(&gate, field, &residual, self.stride, self.boundary)?
            }
            (Some(gate), None) => {
                per_lead(&upsample_bilinear(&gate, self.stride, self.boundary)?, field)?
            }
            (None, Some(residual)) => (field + residual)?,
            (None, None) => field.clone(),
        };
        let mut alone = None;
        if let (Some(local), Some(features)) = (&self.local, &features) {
            let Carried { displacement, warped, .. } = carried;
            let global = Global { features, newest, displacement, warped, forecast: &mean };
            let refined = local.refine(locals, &global, view)?;
            alone = Some(std::mem::replace(&mut mean, refined));
        }
        let sharp = match (&self.sharp, &features) {
            (Some((residual, share)), Some(features)) => {
                let share = sigmoid(&share.forward(trunk)?)?;
                let share = upsample_bilinear(&share, self.stride, self.boundary)?;
                let toward = per_lead(&share, &(field - &mean)?)?;
                Some(((&mean + toward)? + self.to_pixels(&residual.forward(features)?)?)?)
            }
            _ => None,
        };
        Ok(Fused { mean, global: alone, sharp })
    }

    fn to_pixels(&self, folded: &Tensor) -> Result<Tensor> {
        let fields = pixel_shuffle(folded, 2)?;
        if self.scale == 1 {
            Ok(fields)
        } else {
            upsample_bilinear(&fields, self.scale, self.boundary)
        }
    }
}
