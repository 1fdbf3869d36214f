//! The gates of a worker's sensors, behind one exchange.

use std::collections::HashMap;

use physicnet_stream::{Catalogue, Frame, Pile, Reason, Reject, SensorId, route};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::admission::{AdmissionConfig, Admitted, Gate};

/// Extension trait: brings each sensor's frames to its worker and judges them there.
pub trait Admit<'scope> {
    /// The frames to use, in order per sensor, and the frames that were refused.
    ///
    /// `remember` is how many frames back a duplicate is told from a late frame: `history`.
    fn admit(
        self,
        config: &AdmissionConfig,
        catalogue: &Catalogue,
        remember: usize,
    ) -> (StreamVec<'scope, u64, Admitted>, StreamVec<'scope, u64, Reject>);
}

impl<'scope> Admit<'scope> for StreamVec<'scope, u64, Frame> {
    fn admit(
        self,
        config: &AdmissionConfig,
        catalogue: &Catalogue,
        remember: usize,
    ) -> (StreamVec<'scope, u64, Admitted>, StreamVec<'scope, u64, Reject>) {
        let mut builder = OperatorBuilder::new("Admit".to_owned(), self.scope());
        let mut input =
            builder.new_input(self, Exchange::new(|frame: &Frame| route(&frame.sensor)));
        let (admitted, admitted_stream) = builder.new_output();
        let (rejected, rejected_stream) = builder.new_output();
        let mut admitted =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<Admitted>>>::from(admitted);
        let mut rejected =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<Reject>>>::from(rejected);
        let (config, catalogue) = (config.clone(), catalogue.clone());

        builder.build(move |_caps| {
            let mut gates = HashMap::<SensorId, Gate>::new();
            let mut pile = Pile::default();
            move |_frontiers| {
                // A frame is judged under the capabilities of both outputs: it takes one way.
                input.for_each_stamp(|cap, batches| {
                    let (Some(use_cap), Some(reject_cap)) =
                        (cap.retain_least(0), cap.retain_least(1))
                    else {
                        return;
                    };
                    for frame in batches.flat_map(|batch| batch.drain(..)) {
                        pile.push(use_cap.clone(), (reject_cap.clone(), frame));
                    }
                });
                if pile.is_empty() {
                    return;
                }
                let (mut admitted, mut rejected) = (admitted.activate(), rejected.activate());
                for (use_cap, (reject_cap, frame)) in pile.take() {
                    let told = match gate_of(&mut gates, &frame, &config, &catalogue, remember) {
                        Some(gate) => gate.judge(frame),
                        None => Err(Box::new(Reject { frame, reason: Reason::UnknownSensor })),
                    };
                    match told {
                        Ok(frames) => {
                            admitted.session(&use_cap).give_iterator(frames.into_iter());
                        }
                        Err(reject) => {
                            tracing::warn!(target: "physicnet::admission", "{reject}");
                            rejected.session(&reject_cap).give(*reject);
                        }
                    }
                }
            }
        });
        (admitted_stream, rejected_stream)
    }
}

fn gate_of<'a>(
    gates: &'a mut HashMap<SensorId, Gate>,
    frame: &Frame,
    config: &AdmissionConfig,
    catalogue: &Catalogue,
    remember: usize,
) -> Option<&'a mut Gate> {
    if !gates.contains_key(&frame.sensor) {
        let sensor = catalogue.get(&frame.sensor)?;
        let gate = Gate::new(config.clone(), sensor.cadence, sensor.grid.shape(), remember);
        gates.insert(frame.sensor.clone(), gate);
    }
    gates.get_mut(&frame.sensor)
}
