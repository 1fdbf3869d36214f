//! An order between two outputs of a dataflow that otherwise know nothing of each other.

use std::collections::BTreeMap;

use physicnet_stream::Forecast;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

/// Hands on the forecasts of an epoch once the frontier of `first` has passed it: whatever `first`
/// makes durable, of that epoch and those before, is so before these forecasts can be.
pub fn behind<'scope>(
    forecasts: StreamVec<'scope, u64, Forecast>,
    first: StreamVec<'scope, u64, ()>,
) -> StreamVec<'scope, u64, Forecast> {
    type Builder = CapacityContainerBuilder<Vec<Forecast>>;
    forecasts.binary_frontier::<_, Builder, _, _, _, _>(
        first,
        Pipeline,
        Pipeline,
        "Behind",
        |_cap, _info| {
            let mut waiting = BTreeMap::new();
            move |(forecasts, _), (_, passed), output| {
                forecasts.for_each_stamp(|cap, batches| {
                    let Some(cap) = cap.retain_least(output.output_index()) else { return };
                    let (_, all) = waiting.entry(*cap.time()).or_insert((cap, Vec::new()));
                    all.extend(batches.flat_map(|batch| batch.drain(..)));
                });
                while let Some(epoch) = waiting.first_entry() {
                    if passed.less_equal(epoch.key()) {
                        break;
                    }
                    let (cap, all) = epoch.remove();
                    output.session(&cap).give_iterator(all.into_iter());
                }
            }
        },
    )
}
