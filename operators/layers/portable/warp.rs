//! The warp by look-ups of the four pixels around each place.
//!
//! Its gradient for the image is one thread's work for each channel; that for the flow is not.

use candle_core::{DType, Device, Result, Tensor};

use crate::layers::Boundary;
use crate::layers::warp::Sizes;

/// As [`warp`](crate::layers::warp()) says. A displacement that is not finite has no gradient.
pub(in crate::layers) fn warp(image: &Tensor, flow: &Tensor, boundary: Boundary) -> Result<Tensor> {
    let Sizes { batch, rows, columns, channels, leads } = Sizes::new(image.dims(), flow.dims())?;
    let device = image.device();
    let steps = flow.reshape((batch, rows, columns, leads, 2))?;
    let at = count(columns, device)?.reshape((1, 1, columns, 1, 1))?;
    let x = Axis::new(&at, &steps.narrow(4, 0, 1)?, columns, boundary)?;
    let at = count(rows, device)?.reshape((1, rows, 1, 1, 1))?;
    let y = Axis::new(&at, &steps.narrow(4, 1, 1)?, rows, boundary)?;
    // Whole numbers: in f32 the pixels of large batches could not be told apart.
    let first = (count(batch, device)?.to_dtype(DType::U32)? * (rows * columns) as f64)?;
    let first = first.reshape((batch, 1, 1, 1, 1))?;
    let pixels = image.reshape((batch * rows * columns, channels))?.contiguous()?;
    let corner = |y: &Tensor, x: &Tensor| -> Result<Tensor> {
        let at = ((y * columns as f64)? + x)?.broadcast_add(&first)?;
        let found = pixels.index_select(&at.flatten_all()?, 0)?;
        found.reshape((batch, rows, columns, leads, channels))
    };
    let mixed = |y: &Tensor| -> Result<Tensor> {
        let (left, right) = (corner(y, &x.low)?, corner(y, &x.high)?);
        &left + (right - &left)?.broadcast_mul(&x.share)?
    };
    let (upper, lower) = (mixed(&y.low)?, mixed(&y.high)?);
    let all = (&upper + (lower - &upper)?.broadcast_mul(&y.share)?)?;
    all.reshape((batch, rows, columns, leads * channels))
}

fn count(len: usize, device: &Device) -> Result<Tensor> {
    Tensor::arange(0.0, len as f32, device)
}

/// Where one axis of the places lies, `(B, H, W, L, 1)`: the two indices around each, u32, and the
/// share of the second.
struct Axis {
    low: Tensor,
    high: Tensor,
    share: Tensor,
}

impl Axis {
    /// As the kernel's, which says why.
    fn new(at: &Tensor, step: &Tensor, len: usize, boundary: Boundary) -> Result<Self> {
        let (size, last) = (len as f64, (len - 1) as f64);
        let none = step.zeros_like()?;
        let finite = (step * 0.0)?.eq(&none)?;
        let to = finite.where_cond(step, &none)?.broadcast_add(at)?;
        // What rounds has no gradient, and is kept out of it.
        let place = to.detach();
        let (low, high, share, free) = match boundary {
            Boundary::Open => {
                let inside = place.clamp(0.0, last)?;
                let low = inside.floor()?;
                let free = inside.eq(&place)?.to_dtype(DType::F32)?;
                let free = if last > 0.0 { free } else { none };
                let high = (&low + 1.0)?.minimum(last)?;
                let share = (inside - &low)?;
                (low, high, share, free)
            }
            Boundary::Periodic => {
                let floor = place.floor()?;
                // Not by a number: candle multiplies by its inverse, and 49 / 49 is below 1.
                let turns = (&floor / (&none + size)?)?.floor()?;
                let low = (&floor - (turns * size)?)?.clamp(0.0, last)?;
                let high = (low.lt(last)?.to_dtype(DType::F32)? * (&low + 1.0)?)?;
                let share = (&place - floor)?;
                (low, high, share, none.ones_like()?)
            }
        };
        // The same number, which moves with the step where it is free to.
        let share = if to.track_op() { (share + ((&to - place)? * free)?)? } else { share };
        Ok(Self { low: low.to_dtype(DType::U32)?, high: high.to_dtype(DType::U32)?, share })
    }
}
