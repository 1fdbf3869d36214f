//! The gates of a worker's sensors, behind one exchange.

use std::collections::HashMap;

use physicnet_stream::{Catalogue, Frame, Mark, Pile, Reason, Reject, SensorId, route};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::admission::gate::unfit;
use crate::admission::{AdmissionConfig, Admitted, Gate, Memory};

/// How many refusals for one reason the log has one by one.
const SINGLY: u64 = 16;

/// What admission makes of frames.
pub struct Judged<'scope> {
    /// The frames to use, in order per sensor.
    pub admitted: StreamVec<'scope, u64, Admitted>,
    /// The frames that were refused.
    pub rejected: StreamVec<'scope, u64, Reject>,
    /// For every frame what it changes in the progress of the job.
    pub marks: StreamVec<'scope, u64, Mark>,
}

/// Extension trait: brings each sensor's frames to its worker and judges them there.
pub trait Admit<'scope> {
    /// Every frame is admitted or rejected, and marked. One that is read again after a restart is
    /// judged again: what it says of itself tells what has been done about it before.
    fn admit(
        self,
        config: &AdmissionConfig,
        catalogue: &Catalogue,
        memory: Memory,
    ) -> Judged<'scope>;
}

impl<'scope> Admit<'scope> for StreamVec<'scope, u64, Frame> {
    fn admit(
        self,
        config: &AdmissionConfig,
        catalogue: &Catalogue,
        memory: Memory,
    ) -> Judged<'scope> {
        let mut builder = OperatorBuilder::new("Admit".to_owned(), self.scope());
        let mut input =
            builder.new_input(self, Exchange::new(|frame: &Frame| route(&frame.sensor)));
        let (admitted, admitted_stream) = builder.new_output();
        let (rejected, rejected_stream) = builder.new_output();
        let (marks, mark_stream) = builder.new_output();
        let mut admitted =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<Admitted>>>::from(admitted);
        let mut rejected =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<Reject>>>::from(rejected);
        let mut marks = OutputBuilder::<_, CapacityContainerBuilder<Vec<Mark>>>::from(marks);
        let (config, catalogue) = (config.clone(), catalogue.clone());

        builder.build(move |_caps| {
            let mut gates = HashMap::<SensorId, Gate>::new();
            let (mut pile, mut given) = (Pile::default(), Given::default());
            move |_frontiers| {
                // A frame is judged under the capabilities of all outputs.
                input.for_each_stamp(|cap, batches| {
                    let caps = [0, 1, 2].map(|output| cap.retain_least(output));
                    let [Some(use_cap), Some(reject_cap), Some(mark_cap)] = caps else { return };
                    for frame in batches.flat_map(|batch| batch.drain(..)) {
                        let others = (reject_cap.clone(), mark_cap.clone());
                        pile.push(use_cap.clone(), (others, frame));
                    }
                });
                if pile.is_empty() {
                    return;
                }
                let (mut admitted, mut rejected) = (admitted.activate(), rejected.activate());
                let mut marks = marks.activate();
                for (use_cap, ((reject_cap, mark_cap), frame)) in pile.take() {
                    let (read, sensor) = (frame.position(), frame.sensor.clone());
                    let (replay, scored) = (frame.replay, frame.scored);
                    let gate = gate_of(&mut gates, &frame, &config, &catalogue, memory);
                    let told = match (unfit(&frame), gate) {
                        (Some(reason), _) => Err(reason),
                        (None, None) => Err(Reason::UnknownSensor),
                        (None, Some(gate)) => Ok(gate),
                    };
                    let told = match told {
                        Ok(gate) => gate.judge(frame),
                        Err(reason) => Err(Box::new(Reject { frame, reason })),
                    };
                    match told {
                        Ok(frames) => {
                            admitted.session(&use_cap).give_iterator(frames.into_iter());
                        }
                        Err(reject) => {
                            if !replay {
                                given.tell(&reject);
                            }
                            rejected.session(&reject_cap).give(*reject);
                        }
                    }
                    if !(replay && scored) {
                        let window = gates.get(&sensor).map(Gate::window).unwrap_or_default();
                        let mark = Mark { sensor, read, window, replay, scored };
                        marks.session(&mark_cap).give(mark);
                    }
                }
            }
        });
        Judged { admitted: admitted_stream, rejected: rejected_stream, marks: mark_stream }
    }
}

/// How often this worker has given each reason.
#[derive(Default)]
struct Given(HashMap<&'static str, u64>);

impl Given {
    /// Tells of a refusal, unless many were told: a sender gone wrong would fill the disk with it.
    fn tell(&mut self, reject: &Reject) {
        match self.count(&reject.reason) {
            Some(times) if times < SINGLY => {
                tracing::warn!(target: "physicnet::admission", "{reject}");
            }
            Some(times) => tracing::warn!(
                target: "physicnet::admission",
                "{reject}; {times} for this reason by now, and the next is told when they are twice \
                 as many"
            ),
            None => tracing::debug!(target: "physicnet::admission", "{reject}"),
        }
    }

    /// How often the reason has been given by now, if that is to be told.
    fn count(&mut self, reason: &Reason) -> Option<u64> {
        let times = self.0.entry(reason.label()).or_default();
        *times += 1;
        (*times <= SINGLY || times.is_power_of_two()).then_some(*times)
    }
}

fn gate_of<'a>(
    gates: &'a mut HashMap<SensorId, Gate>,
    frame: &Frame,
    config: &AdmissionConfig,
    catalogue: &Catalogue,
    memory: Memory,
) -> Option<&'a mut Gate> {
    if !gates.contains_key(&frame.sensor) {
        // What is no frame may bear any name: it makes no state.
        let sensor = catalogue.get(&frame.sensor).filter(|_| frame.shape != [0; 3])?;
        let gate = Gate::new(config.clone(), sensor.cadence, sensor.grid.shape(), memory);
        gates.insert(frame.sensor.clone(), gate);
    }
    gates.get_mut(&frame.sensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_are_told_in_few_words() {
        let mut given = Given::default();
        let undecodable = Reason::Undecodable { why: String::new() };
        let told: Vec<_> = (0..10_000).filter_map(|_| given.count(&undecodable)).collect();
        let expected: Vec<_> = (1..=16).chain((5..=13).map(|power| 1 << power)).collect();
        assert_eq!(told, expected);
        assert_eq!(given.count(&Reason::Duplicate), Some(1), "another reason is news");
    }
}
