//! The five nets put together.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::cropping::View;
use crate::encoding::{Encoder, Features};
use crate::experts::{Experts, Known, Sources, flow, recall, sources};
use crate::fusion::Fusion;
use crate::layers::join;
use crate::model::{ModelConfig, Precision, Quantization};
use crate::quantization::{Codebook, Usage};

/// PhysicNet (arXiv 2402.05970): one value holds every stage's weights.
pub struct PhysicNet {
    /// The id of its checkpoint; `none` for weights that were never stored.
    pub id: Arc<str>,
    /// How its codes are used on its training data, where that was measured.
    pub usage: Option<Usage>,
    /// What it is made of.
    pub config: ModelConfig,
    /// Where its weights are.
    pub device: Device,
    /// In what it multiplies there.
    pub precision: Precision,
    /// Stage 2.
    pub encoder: Option<Encoder>,
    /// Stage 3.
    pub codebook: Option<Codebook>,
    /// Stage 4.
    pub experts: Experts,
    /// Stage 5.
    pub fusion: Fusion,
}

/// A batch of whole windows, as training sees them; the stream holds their latents instead.
pub struct Batch {
    /// Transformed values, missing pixels filled by the newest older measurement, else 0:
    /// `(B, T, H, W, C)`, sides multiples of [`ModelConfig::stride`].
    pub frames: Tensor,
    /// 1 where measured, 0 where missing: `(B, T, H, W, C)`.
    pub mask: Tensor,
    /// The classical backward flow of the newest frame, pixels (dx, dy): `(B, H, W, 2)`.
    pub flow: Tensor,
    /// The local view, where the local level is to see no more than that.
    pub view: Option<View>,
}

impl Batch {
    /// The same on a device; what is there already is not copied.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn on(&self, device: &Device) -> Result<Self> {
        let there = |tensor: &Tensor| tensor.to_device(device);
        let Self { frames, mask, flow, view } = self;
        Ok(Self { frames: there(frames)?, mask: there(mask)?, flow: there(flow)?, view: *view })
    }
}

/// What the network says of a batch; fields are transformed, `(B, H, W, lead * C)`.
pub struct Outputs {
    /// The head of least expected error.
    pub mean: Tensor,
    /// The mean head before the local level, where there is one: gradients reach the global
    /// level through this alone.
    pub global: Option<Tensor>,
    /// The sharp head, where there is one.
    pub sharp: Option<Tensor>,
    /// The newest frame carried along the corrected flow.
    pub warped: Tensor,
    /// The chosen expert's own forecast.
    pub chosen: Tensor,
    /// The learned correction of the displacement, pixels, `(B, h, w, 2 * lead)`.
    pub correction: Option<Tensor>,
    /// The displacement with its correction, pixels (dx, dy), `(B, H, W, 2 * lead)`.
    pub displacement: Tensor,
    /// Mean squared distance of latents from their codes, in `hard` mode.
    pub commitment: Option<Tensor>,
    /// Latents of the newest frames, `(B, h, w, latent)`, cut off from the gradient.
    pub latent: Option<Tensor>,
}

impl PhysicNet {
    /// Builds or loads the weights that `vb` holds; its type is in what a GPU multiplies.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let encoder =
            config.encodes().then(|| Encoder::new(config, vb.pp("encoding"))).transpose()?;
        let codebook = (config.quantization != Quantization::None)
            .then(|| Codebook::new(config, vb.pp("quantization")))
            .transpose()?;
        Ok(Self {
            id: "none".into(),
            usage: None,
            config: config.clone(),
            device: vb.device().clone(),
            precision: Precision::default(),
            encoder,
            codebook,
            experts: Experts::new(config, vb.pp("experts"))?,
            fusion: Fusion::new(config, vb.pp("fusion"))?,
        })
    }

    /// Forecasts whole windows, which are brought to its device: the same nets as the stream's, on
    /// frames instead of latents.
    ///
    /// # Errors
    /// When the shapes do not fit the weights.
    pub fn forward(&self, batch: &Batch) -> Result<Outputs> {
        let (b, history, rows, columns, channels) = batch.frames.dims5()?;
        let prior = self.prior(&batch.flow)?;
        let sources = match &self.encoder {
            Some(_) => self.recalled(batch)?,
            None => Vec::new(),
        };
        let batch = &batch.on(&self.device)?;
        let newest = batch.frames.narrow(1, history - 1, 1)?.squeeze(1)?.contiguous()?;
        let mut features = None;
        if let Some(encoder) = &self.encoder {
            // A frame's encoding must not depend on the frames before it: filled pixels are 0.
            let values = (&batch.frames * &batch.mask)?;
            let input = join(&[&values, &batch.mask])?;
            let input = input.reshape((b * history, rows, columns, 2 * channels))?;
            features = Some(encoder.forward(&input, batch.view)?);
        }
        let mut commitment = None;
        if let (Some(codebook), Some(Features { latent, .. }), Quantization::Hard) =
            (&self.codebook, &mut features, self.config.quantization)
        {
            let map = codebook.codes(latent)?;
            commitment = Some(codebook.commitment(latent, &map)?);
            *latent = codebook.pass(latent, &map)?;
        }
        let over_time = |all: &Tensor| -> Result<Vec<Tensor>> {
            let (_, h, w, d) = all.dims4()?;
            let split = all.reshape((b, history, h, w, d))?;
            (0..history).map(|t| split.narrow(1, t, 1)?.squeeze(1)?.contiguous()).collect()
        };
        let latents = features.as_ref().map(|f| over_time(&f.latent)).transpose()?;
        let latents = latents.unwrap_or_default();
        // What a frame itself says has a code, not what it recalls.
        let latent = latents.last().map(Tensor::detach);
        let latents = recall(latents, &sources)?;
        let locals = features.as_ref().and_then(|f| f.local.as_ref()).map(over_time).transpose()?;
        let skip = match features.as_ref() {
            Some(f) => {
                let all = over_time(&f.skip)?;
                Some(join(&all[history - self.config.skips..])?)
            }
            None => None,
        };
        let past = self.past(batch)?;
        let known = Known {
            latents: &latents,
            newest: &newest,
            past: &past,
            flow: &batch.flow,
            prior: &prior,
        };
        let carried = self.experts.forward(&known)?;
        let chosen = self.experts.chosen(&known)?;
        let locals = locals.unwrap_or_default();
        let fused = self.fusion.forward(&carried, skip.as_ref(), &newest, &locals, batch.view)?;
        Ok(Outputs {
            mean: fused.mean,
            global: fused.global,
            sharp: fused.sharp,
            warped: carried.warped,
            chosen,
            correction: carried.correction,
            displacement: carried.displacement,
            commitment,
            latent,
        })
    }

    /// Where the latents of each window are taken from.
    fn recalled(&self, batch: &Batch) -> Result<Vec<Option<Sources>>> {
        let (b, history, rows, columns, channels) = batch.mask.dims5()?;
        let mask: Vec<f32> = batch.mask.flatten_all()?.to_vec1()?;
        let (size, stride) = (rows * columns * channels, self.config.stride());
        if size == 0 || mask.iter().all(|&known| known > 0.0) {
            return Ok(vec![None; b]);
        }
        let of = |window: &[f32]| {
            let frames: Vec<&[f32]> = window.chunks_exact(size).collect();
            let cells = [rows / stride, columns / stride];
            let measured = |known: f32| known > 0.0;
            sources(&frames, measured, [columns, channels], stride, cells, self.config.boundary)
        };
        Ok(mask.chunks_exact(history * size).map(of).collect())
    }

    /// The frames before the newest, newest first, as far as the tendency looks back.
    ///
    /// # Errors
    /// When the window is shorter than that.
    pub fn past(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        let newest = batch.frames.dim(1)? - 1;
        let before = |step| batch.frames.narrow(1, newest - step, 1)?.squeeze(1)?.contiguous();
        (1..=self.config.tendency).map(before).collect()
    }

    /// The displacement of every lead along a classical flow `(B, H, W, 2)`, as
    /// `(B, H, W, 2 * lead)`.
    ///
    /// # Errors
    /// When the flow has another rank.
    pub fn prior(&self, flow: &Tensor) -> Result<Tensor> {
        let (b, rows, columns, _) = flow.dims4()?;
        let leads = self.config.horizon;
        let values: Vec<f32> = flow.flatten_all()?.to_vec1()?;
        let mut composed = values
            .chunks_exact(rows * columns * 2)
            .map(|v| flow::displacements(v, rows, columns, leads, self.config.boundary));
        let mut all = composed.next().unwrap_or_default();
        composed.for_each(|next| all.extend(next));
        Tensor::from_vec(all, (b, rows, columns, 2 * leads), &self.device)
    }
}
