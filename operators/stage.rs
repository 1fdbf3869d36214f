//! The shape that all neural stages share: the pile is the batch.

use physicnet_stream::{Error, Failure, Pile};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::cropping::Extent;

/// Runs `logic` on all that has arrived, in batches of items of one `kind`, at most `most` of them
/// by the first, oldest epoch first. Within an epoch nothing is said of their order.
///
/// `logic` yields one output per input, in order; an item's result must not depend on its
/// batch. A failure is reported, and the capabilities of its items are kept: nothing after
/// them is ever called durable.
pub(crate) fn stage<'scope, A, B, K>(
    stream: StreamVec<'scope, u64, A>,
    name: &'static str,
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
    stream.unary(Pipeline, name, move |_cap, _info| {
        let mut pile = Pile::default();
        let mut kept = Vec::new();
        move |input, output| {
            input.for_each_stamp(|cap, batches| {
                let Some(cap) = cap.retain_least(output.output_index()) else { return };
                batches.flat_map(|batch| batch.drain(..)).for_each(|a| pile.push(cap.clone(), a));
            });
            let mut rest = pile.take().into_iter().peekable();
            while let Some((cap, first)) = rest.next() {
                let most = most(&first);
                let (mut caps, mut items) = (vec![cap], vec![first]);
                while items.len() < most
                    && rest.peek().is_some_and(|(_, next)| kind(next) == kind(&items[0]))
                {
                    let (cap, next) = rest.next().expect("peeked");
                    caps.push(cap);
                    items.push(next);
                }
                if failure.failed() {
                    kept.append(&mut caps);
                    continue;
                }
                match logic(items) {
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
            }
        }
    })
}

/// Pixels of a batch on a CPU: more than a frame of this size only drives a batch's tensors out
/// of the cache, while small frames share what every call costs.
const PIXELS: usize = 64 * 64;

/// How many items are computed as one batch: `batch` on an accelerator, on a CPU fewer of large
/// frames.
pub(crate) fn most<A>(
    on_cpu: bool,
    batch: usize,
    extent: impl Fn(&A) -> Extent,
) -> impl Fn(&A) -> usize {
    move |item| {
        let Extent { rows, columns, .. } = extent(item);
        if on_cpu { (PIXELS / (rows * columns)).clamp(1, batch.max(1)) } else { batch }
    }
}
