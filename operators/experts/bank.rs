//! The bank: what an expert is, those of the house, and those of one's own beside them.

use std::fmt;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use physicnet_stream::Error;

use crate::experts::Known;
use crate::fusion::PRODUCTS;
use crate::layers::warp;
use crate::model::{Expert, ModelConfig};

/// An expert: a forecast of its own from what is known of a batch of windows.
///
/// A function is one as well: `|known, config| config.expert.forecast(known, config)`.
pub trait Member: Send + Sync {
    /// The field of every lead, `(B, H, W, lead * C)`, in the units that the network sees. What
    /// it says of a window must not depend on the other windows of the batch.
    ///
    /// # Errors
    /// When the shapes do not fit.
    fn forecast(&self, known: &Known, config: &ModelConfig) -> Result<Tensor>;
}

impl<F> Member for F
where
    F: Fn(&Known, &ModelConfig) -> Result<Tensor> + Send + Sync,
{
    fn forecast(&self, known: &Known, config: &ModelConfig) -> Result<Tensor> {
        self(known, config)
    }
}

impl Member for Expert {
    fn forecast(&self, known: &Known, config: &ModelConfig) -> Result<Tensor> {
        match self {
            Self::Persistence => Tensor::cat(&vec![known.newest; config.horizon], 3),
            Self::Advection => warp(known.newest, known.prior, config.boundary),
        }
    }
}

/// Experts of one's own. What they say goes out with every forecast, under their names.
#[derive(Clone, Default)]
pub struct Bank(Vec<(Arc<str>, Arc<dyn Member>)>);

impl Bank {
    /// Takes `expert` in under `name`.
    ///
    /// # Errors
    /// When the name is one of the house's, or taken.
    pub fn add(
        &mut self,
        name: &str,
        expert: impl Member + 'static,
    ) -> physicnet_stream::Result<()> {
        let ours = PRODUCTS.contains(&name) || matches!(name, "" | "physicnet" | "network");
        if ours || self.0.iter().any(|(known, _)| **known == *name) {
            let why = "the name of another product; give the expert one of its own";
            return Err(Error::new(format!("expert {name:?}"), why));
        }
        self.0.push((name.into(), Arc::new(expert)));
        Ok(())
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What each says.
    pub(crate) fn ask(
        &self,
        known: &Known,
        config: &ModelConfig,
    ) -> Result<Vec<(Arc<str>, Tensor)>> {
        let (b, h, w, channels) = known.newest.dims4()?;
        let wanted = [b, h, w, config.horizon * channels];
        let one = |(name, expert): &(Arc<str>, Arc<dyn Member>)| {
            let field = expert.forecast(known, config)?;
            if field.dims() != wanted {
                let found = field.dims();
                candle_core::bail!("expert {name}: its forecast is {found:?}; give {wanted:?}");
            }
            Ok((Arc::clone(name), field))
        };
        self.0.iter().map(one).collect()
    }
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
