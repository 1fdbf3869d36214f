//! The flow experts: a trunk over a window's latents corrects the classical motion.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::experts::{Member, Tendency};
use crate::layers::{Conv, Start, avg_pool, join, onto, sum, sum_relu, warp};
use crate::model::{Expert, ModelConfig};

/// What the experts know of a batch of windows.
pub struct Known<'a> {
    /// Latents of the window, oldest first, each `(B, h, w, latent)`; empty without an encoder.
    pub latents: &'a [Tensor],
    /// The newest frame, missing pixels filled: `(B, H, W, C)`.
    pub newest: &'a Tensor,
    /// The frames before it, filled alike, newest first: as many as the tendency looks back, or
    /// all of the window for experts of one's own.
    pub past: &'a [Tensor],
    /// The classical backward flow of one cadence, pixels, `(B, H, W, 2)`.
    pub flow: &'a Tensor,
    /// Its composition over the leads, pixels, `(B, H, W, 2 * lead)`.
    pub prior: &'a Tensor,
}

/// What the experts say of a batch of windows.
pub struct Carried {
    /// The trunk's features, `(B, h, w, hidden)`; `None` where nothing is learned.
    pub trunk: Option<Tensor>,
    /// The learned correction of the displacement at latent resolution, in pixels of the frame,
    /// `(B, h, w, 2 * lead)`.
    pub correction: Option<Tensor>,
    /// The displacement of every lead, pixels, `(B, H, W, 2 * lead)`.
    pub displacement: Tensor,
    /// The newest frame carried along it, `(B, H, W, lead * C)`.
    pub warped: Tensor,
    /// How it changes on the way, `(B, H, W, lead * C)`, where the model has a tendency.
    pub tendency: Option<Tensor>,
}

impl Carried {
    /// The carried frame with its change.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn field(&self) -> Result<Tensor> {
        match &self.tendency {
            Some(tendency) => &self.warped + tendency,
            None => Ok(self.warped.clone()),
        }
    }
}

/// The bank: persistence or advection, corrected by learned flow.
pub struct Experts {
    config: ModelConfig,
    trunk: Option<Trunk>,
    flow: Option<Conv>,
    tendency: Option<Tendency>,
}

struct Trunk {
    mix: Conv,
    blocks: Vec<(Conv, Conv)>,
}

impl Experts {
    /// Builds or loads the weights below `vb`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let (border, hidden) = (config.boundary, config.hidden);
        let conv =
            |cin, cout, k, start, name: String| Conv::new(cin, cout, k, border, start, vb.pp(name));
        let trunk = if config.learns() {
            // Latents, where it is (if it may know), and the classical flow.
            let input = config.history * config.latent + if config.position { 4 } else { 0 } + 2;
            let block = |i: usize| {
                let inner = conv(hidden, hidden, 3, Start::He, format!("block{i}.inner"))?;
                Ok((inner, conv(hidden, hidden, 3, Start::Zero, format!("block{i}.outer"))?))
            };
            let mix = conv(input, hidden, 1, Start::He, "mix".to_owned())?;
            let blocks = (0..config.rounds).map(block).collect::<Result<_>>()?;
            Some(Trunk { mix, blocks })
        } else {
            None
        };
        let flow = match config.learned_flow {
            true => Some(conv(hidden, 2 * config.horizon, 1, Start::Zero, "flow".to_owned())?),
            false => None,
        };
        let tendency = match config.tendency {
            0 => None,
            _ => Some(Tendency::new(config, vb.pp("tendency"))?),
        };
        Ok(Self { config: config.clone(), trunk, flow, tendency })
    }

    /// The chosen expert's own forecast, `(B, H, W, lead * C)`: what an untrained network says.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn chosen(&self, known: &Known) -> Result<Tensor> {
        self.config.expert.forecast(known, &self.config)
    }

    /// The tendency expert, where the model has one.
    pub fn tendency(&self) -> Option<&Tendency> {
        self.tendency.as_ref()
    }

    /// Corrects the chosen expert's displacement, carries the newest frame along it and says how
    /// it changes on the way.
    ///
    /// # Errors
    /// When the shapes do not fit the weights.
    pub fn forward(&self, known: &Known) -> Result<Carried> {
        let mut carried = self.carry(known)?;
        if let Some(tendency) = &self.tendency {
            // The motion is judged by what it carries, not by how that changes.
            let displacement = carried.displacement.detach();
            carried.tendency = Some(tendency.forward(known, &displacement)?);
        }
        Ok(carried)
    }

    fn carry(&self, known: &Known) -> Result<Carried> {
        let tendency = None;
        let (stride, boundary) = (self.config.stride(), self.config.boundary);
        let start = match self.config.expert {
            Expert::Persistence => known.prior.zeros_like()?,
            Expert::Advection => known.prior.clone(),
        };
        let Some(trunk) = &self.trunk else {
            let warped = self.chosen(known)?;
            return Ok(Carried {
                trunk: None,
                correction: None,
                displacement: start,
                warped,
                tendency,
            });
        };
        let features = trunk.forward(&self.stack(known)?)?;
        let Some(flow) = &self.flow else {
            let warped = self.chosen(known)?;
            let trunk = Some(features);
            return Ok(Carried { trunk, correction: None, displacement: start, warped, tendency });
        };
        // A unit of the head is one latent cell.
        let correction = (flow.forward(&features)? * stride as f64)?;
        let displacement = onto(&start, &correction, stride, boundary)?;
        let warped = warp(known.newest, &displacement, boundary)?;
        let (trunk, correction) = (Some(features), Some(correction));
        Ok(Carried { trunk, correction, displacement, warped, tendency })
    }

    /// The trunk's input, `(B, h, w, history * latent [+ 4] + 2)`.
    fn stack(&self, known: &Known) -> Result<Tensor> {
        let mut parts: Vec<Tensor> = known.latents.to_vec();
        let (b, h, w, _) = known.latents[0].dims4()?;
        if self.config.position {
            parts.push(position(h, w, known.newest.device())?.broadcast_as((b, h, w, 4))?);
        }
        let stride = self.config.stride();
        parts.push((avg_pool(known.flow, stride)? / stride as f64)?);
        join(&parts)
    }
}

impl Trunk {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.mix.forward(x)?;
        for (at, (inner, outer)) in (1..).zip(&self.blocks) {
            let change = outer.forward(&inner.forward_relu(&x)?)?;
            // The last sum is rectified as it is made.
            x = if at < self.blocks.len() { sum(&x, &change)? } else { sum_relu(&x, &change)? };
        }
        if self.blocks.is_empty() { x.relu() } else { Ok(x) }
    }
}

/// Where each latent cell lies on the domain, as sines and cosines of one period,
/// `(1, h, w, 4)`: sin x, cos x, sin y, cos y.
fn position(h: usize, w: usize, device: &Device) -> Result<Tensor> {
    let turn = |i: usize, n: usize| std::f32::consts::TAU * (i as f32 + 0.5) / n as f32;
    let cell = |i: usize| {
        let (x, y) = (turn(i % w, w), turn(i / w, h));
        [x.sin(), x.cos(), y.sin(), y.cos()]
    };
    let values: Vec<f32> = (0..h * w).flat_map(cell).collect();
    Tensor::from_vec(values, (1, h, w, 4), device)
}
