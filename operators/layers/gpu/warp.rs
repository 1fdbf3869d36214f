//! The warp, a thread for each value.

use candle_core::{Result, Tensor};

use super::Call;
use crate::layers::Boundary;
use crate::layers::warp::Sizes;

/// As [`warp`](crate::layers::warp()) says. The sum of what reaches a pixel of the image's gradient
/// has no order.
pub(in crate::layers) fn warp(image: &Tensor, flow: &Tensor, boundary: Boundary) -> Result<Tensor> {
    let Sizes { batch, rows, columns, channels, leads } = Sizes::new(image.dims(), flow.dims())?;
    let of = [batch, rows, columns, channels];
    let call = Call::new("warp", of, &[batch, rows, columns, leads * channels]);
    Call { other: leads, boundary, back: Some(back), ..call }.on(&[image, flow])
}

fn back(
    call: &Call,
    inputs: &[&Tensor],
    _: &Tensor,
    gradient: &Tensor,
) -> Result<[Option<Tensor>; 2]> {
    let &[image, flow] = inputs else { unreachable!("a warp has two inputs") };
    let samples = flow.elem_count() / 2;
    let part = |kernel, like: &Tensor, threads| {
        let call = Call { threads, back: None, out: like.dims().to_vec(), ..call.clone() };
        Call { kernel, ..call }.on(&[image, flow, gradient])
    };
    let of_image =
        image.track_op().then(|| part("warp_image", image, samples * call.of[3])).transpose()?;
    let of_flow = flow.track_op().then(|| part("warp_flow", flow, samples)).transpose()?;
    Ok([of_image, of_flow])
}
