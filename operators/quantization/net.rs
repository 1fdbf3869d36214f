//! The codebook: nearest entry by Euclidean distance.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::layers::nearest_code;
use crate::model::{ModelConfig, Quantization};

/// `K` prior vectors that latents are compared with (van den Oord et al. 2017, arXiv 1711.00937).
pub struct Codebook {
    /// `(K, latent)`; moved by training's running means, not by gradients.
    pub entries: Tensor,
    mode: Quantization,
}

impl Codebook {
    /// Builds or loads the entries below `vb`.
    ///
    /// # Errors
    /// When the entries are missing or have another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let start = Init::Randn { mean: 0.0, stdev: 1.0 };
        let shape = (config.codes, config.latent);
        let entries = vb.get_with_hints_dtype(shape, "codebook", start, DType::F32)?;
        Ok(Self { entries, mode: config.quantization })
    }

    /// The codes of latents `(B, h, w, latent)`, as u32 `(B, h, w)`.
    ///
    /// # Errors
    /// When the latents have another depth than the entries.
    pub fn codes(&self, latent: &Tensor) -> Result<Tensor> {
        let (b, h, w, d) = latent.dims4()?;
        let flat = latent.detach().reshape((b * h * w, d))?;
        nearest_code(&flat, &self.entries.detach())?.reshape((b, h, w))
    }

    /// How far each latent lies from its prior, row-major.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn apart(&self, latent: &Tensor, codes: &Tensor) -> Result<Vec<f32>> {
        let prior = self.entries.detach().index_select(&codes.flatten_all()?, 0)?;
        let step = (latent.detach().reshape(prior.dims())? - prior)?;
        step.sqr()?.sum(1)?.sqrt()?.to_vec1()
    }

    /// What the experts see of a latent: itself, or in `hard` mode its prior, with the gradient
    /// passed straight through.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn pass(&self, latent: &Tensor, codes: &Tensor) -> Result<Tensor> {
        if self.mode != Quantization::Hard {
            return Ok(latent.clone());
        }
        let prior = self.entries.detach().index_select(&codes.flatten_all()?, 0)?;
        let step = (prior.reshape(latent.dims())? - latent.detach())?.detach();
        latent + step
    }

    /// The mean squared distance of latents from their priors, which training lowers in `hard`
    /// mode.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn commitment(&self, latent: &Tensor, codes: &Tensor) -> Result<Tensor> {
        let prior = self.entries.detach().index_select(&codes.flatten_all()?, 0)?;
        (latent - prior.reshape(latent.dims())?.detach())?.sqr()?.mean_all()
    }
}
