//! Frames and the networks that are to see them, changing between two epochs.

use std::collections::BTreeMap;
use std::rc::Rc;

use physicnet_stream::{Error, Failure, Result};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

use crate::admission::Admitted;
use crate::model::PhysicNet;

/// Who computes.
#[derive(Clone)]
pub struct Seat {
    /// The network.
    pub net: Rc<PhysicNet>,
    /// Whether it is on trial: its forecasts go nowhere but beside those that are served.
    pub candidate: bool,
}

impl Seat {
    /// The seat of a network that serves.
    pub fn serving(net: &Rc<PhysicNet>) -> Self {
        Self { net: Rc::clone(net), candidate: false }
    }

    /// Tells the frames of one network from those of another, in a batch.
    pub(crate) fn mark(&self) -> *const PhysicNet {
        Rc::as_ptr(&self.net)
    }
}

/// A frame, and the network that is to see it.
pub struct Appointed {
    /// The frame.
    pub frame: Admitted,
    /// Who is to see it.
    pub seat: Seat,
}

/// What happens to the networks at the epoch under which it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A checkpoint, the bytes of its file, is on trial from now on.
    Try(Vec<u8>),
    /// The candidate serves from now on.
    Take,
    /// The candidate goes.
    Drop,
}

/// Extension trait: says which network sees a frame.
pub trait Appoint<'scope>: Sized {
    /// One network sees every frame.
    fn appoint(self, net: &Rc<PhysicNet>) -> StreamVec<'scope, u64, Appointed>;

    /// A frame goes to the network that serves in its epoch and to the one on trial then: an
    /// epoch's frames to the first and then to the second, so that batches hold what has one
    /// network. `changes` are told anywhere; all workers obey them from the same epoch on, so frames
    /// wait until it is known what changes in theirs. `load` makes a network of a checkpoint.
    fn appoint_by(
        self,
        net: &Rc<PhysicNet>,
        changes: StreamVec<'scope, u64, Change>,
        load: impl Fn(&[u8]) -> Result<PhysicNet> + 'static,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Appointed>;
}

impl<'scope> Appoint<'scope> for StreamVec<'scope, u64, Admitted> {
    fn appoint(self, net: &Rc<PhysicNet>) -> StreamVec<'scope, u64, Appointed> {
        let seat = Seat::serving(net);
        self.map(move |frame| Appointed { frame, seat: seat.clone() })
    }

    fn appoint_by(
        self,
        net: &Rc<PhysicNet>,
        changes: StreamVec<'scope, u64, Change>,
        load: impl Fn(&[u8]) -> Result<PhysicNet> + 'static,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Appointed> {
        let mut seats = Seats::new(net);
        let failure = failure.clone();
        self.binary_frontier(
            changes.broadcast(),
            Pipeline,
            Pipeline,
            "Appoint",
            move |_cap, _info| {
                let mut waiting = BTreeMap::new();
                move |(frames, frames_frontier), (changes, changes_frontier), output| {
                    let port = output.output_index();
                    frames.for_each_stamp(|cap, batches| {
                        let Some(cap) = cap.retain_least(port) else { return };
                        let (_, waiting) =
                            waiting.entry(*cap.time()).or_insert_with(|| (cap, Vec::new()));
                        waiting.extend(batches.flat_map(|batch| batch.drain(..)));
                    });
                    changes.for_each_stamp(|cap, batches| {
                        let Some(cap) = cap.retain_least(port) else { return };
                        for change in batches.flat_map(|batch| batch.drain(..)) {
                            let told = seats.change(*cap.time(), change, &load);
                            told.unwrap_or_else(|error| failure.report(error));
                        }
                    });
                    // What does not know its network must not be taken for done.
                    while !failure.failed()
                        && let Some(epoch) = waiting.first_entry()
                        && !changes_frontier.less_equal(epoch.key())
                    {
                        let (time, (cap, frames)) = epoch.remove_entry();
                        let mut session = output.session(&cap);
                        for seat in seats.at(time) {
                            let seen = frames.iter().map(|frame: &Admitted| Appointed {
                                frame: frame.clone(),
                                seat: seat.clone(),
                            });
                            session.give_iterator(seen);
                        }
                    }
                    let coming = frames_frontier.frontier().first().copied();
                    seats.forget(waiting.keys().next().copied().into_iter().chain(coming).min());
                }
            },
        )
    }
}

/// Who sits when: by the first epoch of each line-up.
struct Seats(BTreeMap<u64, Vec<Seat>>);

impl Seats {
    fn new(net: &Rc<PhysicNet>) -> Self {
        Self(BTreeMap::from([(0, vec![Seat::serving(net)])]))
    }

    /// The seats of an epoch, the one that serves first.
    fn at(&self, epoch: u64) -> &[Seat] {
        self.0.range(..=epoch).next_back().map_or(&[], |(_, seats)| seats)
    }

    /// Changes come in the order of their epochs.
    fn change(
        &mut self,
        epoch: u64,
        change: Change,
        load: impl Fn(&[u8]) -> Result<PhysicNet>,
    ) -> Result<()> {
        let seats = self.at(epoch);
        let serving = seats.iter().find(|seat| !seat.candidate).cloned();
        let candidate = seats.iter().find(|seat| seat.candidate).cloned();
        let next = match change {
            Change::Try(bytes) => {
                let net = Rc::new(load(&bytes)?);
                serving.into_iter().chain([Seat { net, candidate: true }]).collect()
            }
            Change::Take => {
                let nobody = || Error::new("swap", "no candidate to take over");
                let net = candidate.ok_or_else(nobody)?.net;
                vec![Seat { net, candidate: false }]
            }
            Change::Drop => serving.into_iter().collect(),
        };
        self.0.insert(epoch, next);
        Ok(())
    }

    /// Lets go of the line-ups that no frame from epoch `first` on meets.
    fn forget(&mut self, first: Option<u64>) {
        let Some(first) = first else { return };
        if let Some((&current, _)) = self.0.range(..=first).next_back() {
            self.0 = self.0.split_off(&current);
        }
    }
}
