//! The local flow expert: refines the global forecast from full-resolution local latents.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::cropping::View;
use crate::encoding::LOCAL;
use crate::layers::{
    Boundary, Conv, Start, join, per_lead, pixel_shuffle, pixel_unshuffle, upsample_bilinear, warp,
};
use crate::model::ModelConfig;

/// Channels of the local trunk.
const WIDTH: usize = 32;

/// Local latents and the global forecast in, a correction of motion and a residual out. Its
/// heads start at zero, so untrained it changes nothing.
pub struct LocalExpert {
    scale: usize,
    boundary: Boundary,
    mix: Conv,
    blocks: [(Conv, Conv); 2],
    flow: Conv,
    residual: Conv,
    blend: Conv,
}

/// The global level's word on a batch of windows, which the local level refines.
pub struct Global<'a> {
    /// The fusion's features, `(B, H / scale / 2, W / scale / 2, decoder)`.
    pub features: &'a Tensor,
    /// The newest frame, filled, `(B, H, W, C)`.
    pub newest: &'a Tensor,
    /// The global displacement, `(B, H, W, 2 * lead)`.
    pub displacement: &'a Tensor,
    /// The newest frame carried along it, `(B, H, W, lead * C)`.
    pub warped: &'a Tensor,
    /// The global forecast, `(B, H, W, lead * C)`.
    pub forecast: &'a Tensor,
}

impl LocalExpert {
    /// Builds or loads the weights below `vb`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let (leads, channels) = (config.horizon, config.variables.len());
        let conv = |cin, cout, k, start, name: &str| {
            Conv::new(cin, cout, k, config.boundary, start, vb.pp(name))
        };
        let block = |i: usize| -> Result<(Conv, Conv)> {
            let inner = conv(WIDTH, WIDTH, 3, Start::He, &format!("block{i}.inner"))?;
            Ok((inner, conv(WIDTH, WIDTH, 3, Start::Zero, &format!("block{i}.outer"))?))
        };
        let input = config.history * LOCAL + config.decoder + 4 * leads * channels;
        Ok(Self {
            scale: config.global_scale,
            boundary: config.boundary,
            mix: conv(input, WIDTH, 1, Start::He, "mix")?,
            blocks: [block(0)?, block(1)?],
            flow: conv(WIDTH, 2 * leads, 1, Start::Zero, "flow")?,
            residual: conv(WIDTH, 4 * leads * channels, 3, Start::Zero, "residual")?,
            blend: conv(WIDTH, leads, 1, Start::Zero, "blend")?,
        })
    }

    /// The refined forecast, `(B, H, W, lead * C)`, from local latents (oldest first, each
    /// `(B, H / 2, W / 2, local)`) and the global word. No gradient reaches the global level.
    ///
    /// Where the latents are those of a `view`, the forecast is refined in it, but for its halo,
    /// to the same values as by latents of the whole frame; outside it stays the global one.
    ///
    /// # Errors
    /// When the shapes do not fit the weights.
    pub fn refine(
        &self,
        latents: &[Tensor],
        global: &Global,
        view: Option<View>,
    ) -> Result<Tensor> {
        let features = match self.scale {
            1 => global.features.detach(),
            scale => upsample_bilinear(&global.features.detach(), scale, self.boundary)?,
        };
        let forecast = global.forecast.detach();
        let (_, rows, columns, _) = forecast.dims4()?;
        let cut = |plane: Tensor| view.map_or(Ok(plane.clone()), |view| view.cut(&plane, 2));
        let place = |inside: Tensor| match view {
            Some(view) => view.place(&inside, (rows, columns), self.boundary),
            None => Ok(inside),
        };
        let mut parts = latents.to_vec();
        parts.extend([cut(features)?, cut(pixel_unshuffle(&forecast, 2)?)?]);
        let mut x = self.mix.forward(&join(&parts)?)?;
        for (inner, outer) in &self.blocks {
            x = (&x + outer.forward(&inner.forward_relu(&x)?)?)?;
        }
        let x = x.relu()?;
        let finer = upsample_bilinear(&(self.flow.forward(&x)? * 2.0)?, 2, self.boundary)?;
        let finer = place(finer)?;
        let displacement = (global.displacement.detach() + finer)?;
        let moved = (warp(global.newest, &displacement, self.boundary)? - global.warped.detach())?;
        let residual = place(pixel_shuffle(&self.residual.forward(&x)?, 2)?)?;
        let blend = candle_nn::ops::sigmoid(&self.blend.forward(&x)?)?;
        let blend = place((upsample_bilinear(&blend, 2, self.boundary)? * 2.0)?)?;
        forecast + per_lead(&blend, &(residual + moved)?)?
    }
}
