//! The same layers of candle's tensor operations, which run on any device: what is used off the
//! CPU, where our kernels cannot.
//!
//! They look values up by constant indices, so that both borders are [`Boundary::index`](super::Boundary)
//! here too, and multiply matrices. None of candle's convolutions, up-samplings and pools is in a
//! gradient: some of those are wrong, missing or one thread's work. The tests hold each form
//! against its kernel, on the CPU; on a GPU only a sum's order differs.

mod code;
mod conv;
mod linear;
#[cfg(test)]
pub(crate) mod tests;
mod warp;

pub(super) use code::nearest_code;
pub(super) use conv::conv;
pub(super) use linear::{fold, pool, unfold, upsample};
pub(super) use warp::warp;

use candle_core::{Device, Result, Tensor};

/// Whether a layer over this tensor is computed by its portable form.
pub(super) fn wanted(x: &Tensor) -> bool {
    #[cfg(test)]
    if EVERYWHERE.get() {
        return true;
    }
    !x.device().is_cpu()
}

#[cfg(test)]
thread_local! {
    static EVERYWHERE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What `work` makes where every layer on this thread takes its portable form.
#[cfg(test)]
pub(crate) fn everywhere<T>(work: impl FnOnce() -> T) -> T {
    EVERYWHERE.set(true);
    let made = work();
    EVERYWHERE.set(false);
    made
}

/// The slices of `x` along `dim` that stand at `ids`, as `shape`.
///
/// The shape is given here for the gradient: it passes a reshape, which lays it out as the
/// gradient of a look-up must lie.
fn look_up(x: &Tensor, ids: Vec<u32>, dim: usize, shape: &[usize]) -> Result<Tensor> {
    let ids = numbers(ids, x.device())?;
    x.contiguous()?.index_select(&ids, dim)?.reshape(shape)
}

fn numbers<T: candle_core::WithDType>(values: Vec<T>, device: &Device) -> Result<Tensor> {
    let count = values.len();
    Tensor::from_vec(values, count, device)
}
