//! The expert bank over a stream of windows.

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use physicnet_stream::Failure;
use timely::dataflow::StreamVec;

use crate::cropping::{Extent, Transform, fill_missing};
use crate::experts::{Bank, Carried, Known, Sources, between, recall, sources};
use crate::layers::warp;
use crate::model::{Expert, ModelConfig, PhysicNet, VariableConfig};
use crate::stage::{Turn, most, stage};
use crate::windowing::Window;

/// A window and what each expert says of it; the batch dimension of the tensors is 1.
pub struct Consulted {
    /// The window.
    pub window: Window,
    /// The newest frame, missing pixels filled, `(1, H, W, C)`.
    pub newest: Tensor,
    /// The displacement of every lead along the classical flow, `(1, H, W, 2 * lead)`.
    pub prior: Tensor,
    /// What the corrected flow carries.
    pub carried: Carried,
    /// What each expert of one's own forecasts, `(1, H, W, lead * C)`, under its name.
    pub own: Vec<(Arc<str>, Tensor)>,
    /// Who these experts are: a roll-out asks them again.
    pub bank: Bank,
}

impl Consulted {
    /// How far the forecast of `lead`, counted from 1, moves what arrives at each pixel, with the
    /// network's correction, pixels: planes of dx and of dy, each `(height, width)`.
    ///
    /// # Errors
    /// When there is no such lead.
    pub fn motion(&self, lead: usize) -> Result<Vec<f32>> {
        let Extent { height, width, columns, .. } = self.window.newest().coded.frame.extent;
        let back = self.carried.displacement.narrow(3, 2 * (lead - 1), 2)?;
        // It leads back to where a value sets out from.
        let back = back.flatten_all()?.to_vec1::<f32>()?;
        let component = |c: usize| {
            let pixels = (0..height).flat_map(move |y| (0..width).map(move |x| y * columns + x));
            pixels.map(|at| -back[at * 2 + c]).collect::<Vec<_>>()
        };
        Ok([component(0), component(1)].concat())
    }

    /// The newest frame carried along the classical flow, `(1, H, W, lead * C)`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn advection(&self, config: &ModelConfig) -> Result<Tensor> {
        match self.advected(config) {
            Some(known) => Ok(known.clone()),
            None => warp(&self.newest, &self.prior, config.boundary),
        }
    }

    /// The same, where the network has made it for itself.
    pub fn advected(&self, config: &ModelConfig) -> Option<&Tensor> {
        let own = config.expert == Expert::Advection && self.carried.correction.is_none();
        own.then_some(&self.carried.warped)
    }
}

/// Extension trait: asks every expert about each window.
pub trait Consult<'scope> {
    /// The experts' answers, those in the `bank` too, in batches of at most `batch` windows of
    /// one size and network.
    fn consult(
        self,
        bank: &Bank,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Consulted>;
}

impl<'scope> Consult<'scope> for StreamVec<'scope, u64, Window> {
    fn consult(
        self,
        bank: &Bank,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Consulted> {
        let bank = bank.clone();
        let most = most(batch, |window: &Window| (&window.seat, window.extent()));
        let kind = |window: &Window| (window.extent(), window.seat.mark());
        stage(self, "Consult", Turn::Batch, most, failure.clone(), kind, move |all| {
            consult(all, &bank)
        })
    }
}

/// What the experts say of windows of one size and network.
pub(crate) fn consult(windows: Vec<Window>, bank: &Bank) -> Result<Vec<Consulted>> {
    let net = Rc::clone(&windows[0].seat.net);
    // The network sees as much of the past as its tendency needs; who is asked beside it, all.
    let (needed, all) = (net.config.tendency, net.config.history - 1);
    let seen = if bank.is_empty() { needed } else { all };
    let planes: Vec<_> = windows.iter().map(|window| Planes::of(&net, window, seen)).collect();
    let extent = windows[0].extent();
    let (rows, columns, b) = (extent.rows, extent.columns, windows.len());
    let channels = net.config.variables.len();
    let stack = |part: &dyn Fn(&Planes) -> &Vec<f32>, depth: usize| {
        let all: Vec<&[f32]> = planes.iter().map(|planes| part(planes).as_slice()).collect();
        Tensor::from_vec(all.concat(), (b, rows, columns, depth), &Device::Cpu)
    };
    let field = |part: &dyn Fn(&Planes) -> &Vec<f32>| stack(part, channels)?.to_device(&net.device);
    let newest = field(&|planes| &planes.newest)?;
    // Composed here, where it was estimated.
    let flow = stack(&|planes| &planes.flow, 2)?;
    let prior = net.prior(&flow)?;
    let flow = flow.to_device(&net.device)?;
    let before = |step: usize| field(&|planes| &planes.past[step]);
    let past = (0..seen).map(before).collect::<Result<Vec<_>>>()?;

    let latent = |t: usize| {
        let of = |window: &Window| {
            let features = window.slots[t].coded.features.as_ref();
            features.map(|features| features.latent.clone())
        };
        windows.iter().filter_map(of).collect::<Vec<_>>()
    };
    let latents: Vec<_> = (0..net.config.history).map(latent).collect();
    let latents = match net.encoder {
        Some(_) => {
            let latents = latents.iter().map(|all| Tensor::cat(all, 0)).collect::<Result<_>>()?;
            let sources: Vec<_> = windows.iter().map(|window| recalled(&net, window)).collect();
            recall(latents, &sources)?
        }
        None => Vec::new(),
    };
    let known =
        Known { latents: &latents, newest: &newest, past: &past, flow: &flow, prior: &prior };
    let carried = net.experts.forward(&known)?;
    let own = bank.ask(&known, &net.config)?;

    let one = |tensor: &Tensor, i: usize| tensor.narrow(0, i, 1)?.contiguous();
    let split = |(i, window)| {
        let optional = |tensor: &Option<Tensor>| tensor.as_ref().map(|t| one(t, i)).transpose();
        Ok(Consulted {
            window,
            newest: one(&newest, i)?,
            prior: one(&prior, i)?,
            carried: Carried {
                trunk: optional(&carried.trunk)?,
                correction: optional(&carried.correction)?,
                displacement: one(&carried.displacement, i)?,
                warped: one(&carried.warped, i)?,
                tendency: optional(&carried.tendency)?,
            },
            own: (own.iter())
                .map(|(name, field)| Ok((Arc::clone(name), one(field, i)?)))
                .collect::<Result<_>>()?,
            bank: bank.clone(),
        })
    };
    windows.into_iter().enumerate().map(split).collect()
}

/// Where the latents of a window are taken from.
fn recalled(net: &PhysicNet, window: &Window) -> Option<Sources> {
    let frames = || window.slots.iter().map(|slot| &slot.coded.frame);
    if frames().all(|frame| frame.missing == 0.0) {
        return None;
    }
    let extent = window.extent();
    let values: Vec<&[f32]> = frames().map(|frame| frame.values.as_slice()).collect();
    let (channels, stride) = (net.config.variables.len(), net.config.stride());
    let cells = [extent.rows / stride, extent.columns / stride];
    let measured = |value: f32| !value.is_nan();
    sources(&values, measured, [extent.width, channels], stride, cells, net.config.boundary)
}

/// What the experts need of a window beside its latents, as padded planes.
struct Planes {
    newest: Vec<f32>,
    past: Vec<Vec<f32>>,
    flow: Vec<f32>,
}

impl Planes {
    /// With `seen` frames before the newest.
    fn of(net: &PhysicNet, window: &Window, seen: usize) -> Self {
        let extent = window.newest().coded.frame.extent;
        let values: Vec<_> =
            window.slots.iter().map(|slot| Rc::clone(&slot.coded.frame.values)).collect();
        let channels = net.config.variables.len();
        // Without a network nothing says what the mean is.
        let natural = |v: &VariableConfig| {
            let bare = matches!(
                v.transform,
                Transform::Identity | Transform::Standardise { mean: None, .. }
            );
            net.config.learns() || !bare
        };
        let natural: Vec<bool> = net.config.variables.iter().map(natural).collect();
        let fill = |planes: &[Rc<Vec<f32>>]| fill_missing(planes, extent.width, &natural);
        let newest = fill(&values);
        let flow = window.newest().flow.get_or_init(|| {
            let previous = fill(&values[..values.len() - 1]);
            extent.pad(&classical_flow(net, &newest, &previous, extent), 2)
        });
        let before = |step| extent.pad(&fill(&values[..values.len() - step]), channels);
        let past = (1..=seen).map(before).collect();
        Self { newest: extent.pad(&newest, channels), past, flow: flow.clone() }
    }
}

/// The backward flow from the newest filled plane to the one before it, estimated on the
/// first channel, `(height, width, 2)`.
fn classical_flow(net: &PhysicNet, newest: &[f32], previous: &[f32], extent: Extent) -> Vec<f32> {
    let channels = net.config.variables.len();
    let transform = net.config.variables[0].transform;
    let first = |plane: &[f32]| -> Vec<f32> { plane.iter().step_by(channels).copied().collect() };
    between(
        &first(newest),
        &first(previous),
        extent.height,
        extent.width,
        &transform,
        net.config.boundary,
    )
}
