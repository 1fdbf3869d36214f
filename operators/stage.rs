//! The shape that all neural stages share: the pile is the batch.

use physicnet_stream::{Error, Failure, Pile};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::cropping::Extent;
use crate::layers::helped;
use crate::swapping::Seat;

/// What a stage does in one turn.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Turn {
    /// All that has arrived: what belongs to an epoch goes on together, so that windowing can put
    /// it in order.
    All,
    /// One batch, then the stages behind have theirs: a forecast is on its way while the next one
    /// is made, and no more lies between two stages.
    Batch,
}

/// Runs `logic` on what has arrived, in batches of items of one `kind`, at most `most` of them
/// by the first, oldest epoch first. Within an epoch nothing is said of their order.
///
/// `logic` yields one output per input, in order; an item's result must not depend on its
/// batch. A failure is reported, and the capabilities of its items are kept: nothing after
/// them is ever called durable.
pub(crate) fn stage<'scope, A, B, K>(
    stream: StreamVec<'scope, u64, A>,
    name: &'static str,
    turn: Turn,
    most: impl Fn(&A) -> usize + 'static,
    failure: Failure,
    kind: impl Fn(&A) -> K + 'static,
    mut logic: impl FnMut(Vec<A>) -> candle_core::Result<Vec<B>> + 'static,
) -> StreamVec<'scope, u64, B>
where
    A: 'static,
    B: 'static,
    K: PartialEq,
{
    let scope = stream.scope();
    stream.unary(Pipeline, name, move |_cap, info| {
        let again = scope.activator_for(info.address);
        let mut pile = Pile::default();
        let mut kept = Vec::new();
        move |input, output| {
            input.for_each_stamp(|cap, batches| {
                let Some(cap) = cap.retain_least(output.output_index()) else { return };
                batches.flat_map(|batch| batch.drain(..)).for_each(|a| pile.push(cap.clone(), a));
            });
            while !pile.is_empty() {
                let mut begun = None;
                let batch = pile.take_while(|next| {
                    let (first, left) =
                        begun.get_or_insert_with(|| (kind(next), most(next).max(1)));
                    let fits = *left > 0 && kind(next) == *first;
                    *left = left.saturating_sub(1);
                    fits
                });
                let (mut caps, items): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                if failure.failed() {
                    kept.append(&mut caps);
                    continue;
                }
                match helped(|| logic(items)) {
                    Ok(outputs) => {
                        for (cap, result) in caps.iter().zip(outputs) {
                            output.session(cap).give(result);
                        }
                    }
                    Err(error) => {
                        failure.report(Error::new(name, error));
                        kept.append(&mut caps);
                    }
                }
                if turn == Turn::Batch && !pile.is_empty() {
                    return again.activate();
                }
            }
        }
    })
}

/// Pixels of a batch on a CPU: more than a frame of this size only drives a batch's tensors out
/// of the cache, while small frames share what every call costs.
const PIXELS: usize = 64 * 64;

/// How many items are computed as one batch: `batch` on an accelerator, on a CPU fewer of large
/// frames. `of` says who computes an item, and how large it is.
pub(crate) fn most<A>(batch: usize, of: impl Fn(&A) -> (&Seat, Extent)) -> impl Fn(&A) -> usize {
    move |item| {
        let (seat, Extent { rows, columns, .. }) = of(item);
        let on_cpu = seat.net.device.is_cpu();
        if on_cpu { (PIXELS / (rows * columns)).clamp(1, batch.max(1)) } else { batch }
    }
}
