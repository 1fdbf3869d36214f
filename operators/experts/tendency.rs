//! The tendency expert: how the field changes where its air goes, as a linear function of how it
//! changed on the way here.
//!
//! `change to lead l = sum over k of weight[l, k] * (newest - frame k steps before, both along the
//! motion)`, plus a constant: the autoregression of S-PROG (Seed 2003), with as many terms as the
//! window has frames. Training starts from the least squares of its data.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::experts::Known;
use crate::layers::{Boundary, Conv, Start, join, warp};
use crate::model::{Expert, ModelConfig};

/// The linear autoregression. It starts at zero: untrained, the field is carried unchanged.
pub struct Tendency {
    steps: usize,
    channels: usize,
    boundary: Boundary,
    moves: bool,
    linear: Conv,
}

impl Tendency {
    /// Builds or loads the weights below `vb`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let (steps, channels) = (config.tendency, config.variables.len());
        let (from, to) = (steps * channels, config.horizon * channels);
        Ok(Self {
            steps,
            channels,
            boundary: config.boundary,
            moves: config.expert == Expert::Advection,
            linear: Conv::new(from, to, 1, config.boundary, Start::Zero, vb)?,
        })
    }

    /// The change of every lead, where the air will be: `(B, H, W, lead * C)`.
    ///
    /// # Errors
    /// When the shapes do not fit the weights.
    pub fn forward(&self, known: &Known, displacement: &Tensor) -> Result<Tensor> {
        let change = self.linear.forward(&self.past(known)?)?;
        if !self.moves {
            return Ok(change);
        }
        let leads = displacement.dim(3)? / 2;
        let one = |lead: usize| {
            let change = change.narrow(3, lead * self.channels, self.channels)?.contiguous()?;
            self.carry(&change, displacement, lead)
        };
        join(&(0..leads).map(one).collect::<Result<Vec<_>>>()?)
    }

    /// What the weights of lead `lead` (from 0) multiply, where the air will be:
    /// `(B, H, W, steps * C)`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn terms(&self, known: &Known, displacement: &Tensor, lead: usize) -> Result<Tensor> {
        let past = self.past(known)?;
        if self.moves { self.carry(&past, displacement, lead) } else { Ok(past) }
    }

    /// The newest frame less the frames before it, each brought here along the motion.
    fn past(&self, known: &Known) -> Result<Tensor> {
        let change = |step: usize| {
            let before = &known.past[step];
            // What arrives after k steps of the classical flow was there k steps ago.
            let brought = match self.moves {
                true => self.carry(before, known.prior, step)?,
                false => before.clone(),
            };
            known.newest - brought
        };
        join(&(0..self.steps).map(change).collect::<Result<Vec<_>>>()?)
    }

    fn carry(&self, field: &Tensor, displacement: &Tensor, lead: usize) -> Result<Tensor> {
        let one = displacement.narrow(3, 2 * lead, 2)?.contiguous()?;
        warp(field, &one, self.boundary)
    }
}
