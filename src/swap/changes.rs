//! The changes of the model as a timely stream: told once, on worker 0, under the epoch from which
//! all workers obey them.

use std::sync::Arc;
use std::sync::mpsc::channel;

use physicnet_operators::admission::Admitted;
use physicnet_operators::swapping::Change;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::Swap;
use super::attendant::Attendant;

impl Swap {
    /// What the attendant, who begins with the dataflow, wants changed.
    ///
    /// Frames wait until it is known what changes in their epoch, so this says so early: it stays
    /// as many epochs ahead of the `frames` as may be open at once. Then it never waits itself for
    /// anyone, and no frame waits unless worker 0 has not had a turn for that long.
    pub(crate) fn changes<'scope>(
        &self,
        frames: &StreamVec<'scope, u64, Admitted>,
        in_flight: u64,
    ) -> StreamVec<'scope, u64, Change> {
        let scope = frames.scope();
        let mut builder = OperatorBuilder::new("Changes".to_owned(), scope);
        // Its frontier says how far the frames are; nothing is sent under theirs.
        let mut frames = builder.new_input_connection(frames.clone(), Pipeline, []);
        let (changes, stream) = builder.new_output_connection([]);
        let mut changes = OutputBuilder::<_, CapacityContainerBuilder<Vec<Change>>>::from(changes);
        let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
        let (send, told) = channel();
        // The attendant goes when the operator has gone.
        let here = Arc::new(());
        if scope.index() == 0 {
            // A worker that has gone needs no waking.
            let wake = move || _ = wake.activate();
            Attendant::new(self, send, wake, Arc::downgrade(&here)).begin();
        }
        builder.build(move |caps| {
            let mut cap = caps.into_iter().next().filter(|_| scope.index() == 0);
            move |frontiers| {
                let _here = &here;
                frames.for_each_stamp(|_cap, batches| batches.for_each(Vec::clear));
                let Some(&first) = frontiers[0].frontier().first() else {
                    cap = None;
                    return;
                };
                let Some(cap) = &mut cap else { return };
                let mut output = changes.activate();
                for change in told.try_iter() {
                    output.session(&*cap).give(change);
                    // Two changes are of two epochs: within one there is no order.
                    cap.downgrade(&(*cap.time() + 1));
                }
                let ahead = first + 2 * in_flight;
                if *cap.time() < ahead {
                    cap.downgrade(&ahead);
                }
            }
        });
        stream
    }
}
