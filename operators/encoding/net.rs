//! The per-frame encoders: of the global view and of the local one.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::cropping::View;
use crate::layers::{Conv, Start, avg_pool, pixel_unshuffle, sum_relu};
use crate::model::ModelConfig;

/// What is known of a frame after encoding; the batch is the first dimension of each.
#[derive(Clone)]
pub struct Features {
    /// `(B, rows / stride, columns / stride, latent)`.
    pub latent: Tensor,
    /// `(B, rows / scale / 2, columns / scale / 2, skip)`, not negative.
    pub skip: Tensor,
    /// `(B, rows / 2, columns / 2, local)` of the local view, where the model has a local level.
    pub local: Option<Tensor>,
}

/// The frame encoder: two halvings of resolution, a residual block, a projection.
pub struct Encoder {
    scale: usize,
    stem: Conv,
    down: Conv,
    inner: Conv,
    outer: Conv,
    project: Conv,
    local: Option<(Conv, Conv)>,
}

/// Channels of a local latent.
pub(crate) const LOCAL: usize = 8;

impl Encoder {
    /// Builds or loads the weights below `vb`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let (border, wide) = (config.boundary, 2 * config.latent);
        let input = 2 * config.variables.len();
        let conv =
            |cin, cout, k, start, name: &str| Conv::new(cin, cout, k, border, start, vb.pp(name));
        let local = match config.local {
            true => Some((
                conv(4 * input, LOCAL, 3, Start::He, "local_stem")?,
                conv(LOCAL, LOCAL, 1, Start::He, "local_project")?,
            )),
            false => None,
        };
        Ok(Self {
            scale: config.global_scale,
            stem: conv(4 * input, config.skip, 3, Start::He, "stem")?,
            down: conv(4 * config.skip, wide, 1, Start::He, "down")?,
            inner: conv(wide, wide, 3, Start::He, "inner")?,
            outer: conv(wide, wide, 3, Start::Zero, "outer")?,
            project: conv(wide, config.latent, 1, Start::He, "project")?,
            local,
        })
    }

    /// Encodes frames `(B, rows, columns, 2 * channel)`: values, 0 where missing, then the mask;
    /// locally the `view` alone, else all of it.
    ///
    /// # Errors
    /// When a shape does not fit the weights.
    pub fn forward(&self, frames: &Tensor, view: Option<View>) -> Result<Features> {
        let global = if self.scale > 1 { avg_pool(frames, self.scale)? } else { frames.clone() };
        let skip = self.stem.forward_relu(&pixel_unshuffle(&global, 2)?)?;
        let wide = self.down.forward(&pixel_unshuffle(&skip, 2)?)?;
        let change = self.outer.forward(&self.inner.forward_relu(&wide)?)?;
        let latent = self.project.forward(&sum_relu(&wide, &change)?)?;
        let local = match &self.local {
            Some((stem, project)) => {
                let folded = match view {
                    Some(view) => pixel_unshuffle(&view.cut(frames, 1)?, 2)?,
                    None => pixel_unshuffle(frames, 2)?,
                };
                Some(project.forward(&stem.forward_relu(&folded)?)?)
            }
            None => None,
        };
        Ok(Features { latent, skip, local })
    }
}
