//! The same layers where a GPU computes: kernels of our own and cuBLAS's products of matrices.
//!
//! A kernel (kernels.cu) is a call on some tensors with some numbers ([`call`]). The tests make the
//! same calls on the CPU, where a C compiler's form of the kernels answers ([`host`]), and hold
//! each layer against its other form, values and gradients; on a GPU a sum's order differs.
//! None of candle's convolutions, up-samplings and pools is in a gradient: some of those are
//! wrong, missing or one thread's work.

mod call;
mod code;
mod conv;
#[cfg(test)]
mod host;
mod linear;
#[cfg(test)]
pub(crate) mod tests;
mod warp;

use call::Call;

pub(super) use code::nearest_code;
pub(super) use conv::{conv, matrix};
pub(super) use linear::{fold, pool, unfold, upsample};
pub(super) use warp::warp;

use candle_core::Tensor;

/// Whether a layer over this tensor is computed here.
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

/// What `work` makes where every layer on this thread takes its form for a GPU.
#[cfg(test)]
pub(crate) fn everywhere<T>(work: impl FnOnce() -> T) -> T {
    EVERYWHERE.set(true);
    let made = work();
    EVERYWHERE.set(false);
    made
}
