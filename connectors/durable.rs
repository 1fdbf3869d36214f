//! A sink whose frontier is what is durable: writing happens on a thread of its own.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::{self, JoinHandle};

use physicnet_stream::{Error, Failure, Pile, Result};
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::scheduling::SyncActivator;

/// What builds the containers of a stream that only carries progress.
pub(crate) type Empty = CapacityContainerBuilder<Vec<()>>;

/// Writes a stream with `write`, on the worker that `route` names, oldest epoch first.
///
/// What arrives while a batch is being written waits and becomes the next batch. The capability
/// of an item is held until its batch is written: the frontier of the (empty) output is what is
/// durable. The worker never waits for the disk, but at the end: what `write` holds (a store's lock,
/// a lease) is given back when the operator is dropped. A failure is reported; then nothing more is
/// written and the capabilities stay, so nothing after it is ever called durable.
pub(crate) fn durable<'scope, D: ExchangeData>(
    stream: StreamVec<'scope, u64, D>,
    name: &'static str,
    route: impl Fn(&D) -> u64 + 'static,
    write: impl FnMut(Vec<D>) -> Result<()> + Send + 'static,
    failure: Failure,
) -> StreamVec<'scope, u64, ()> {
    let scope = stream.scope();
    stream.unary_frontier::<Empty, _, _, _>(Exchange::new(route), name, move |_cap, info| {
        let wake = scope.worker().sync_activator_for(info.address.to_vec());
        let writer = Joined(writer(name, write, wake, &failure));
        let mut pile = Pile::default();
        let mut writing: Option<Vec<Capability<u64>>> = None;
        let mut lost = Vec::new();
        move |(input, _frontier), output| {
            input.for_each_stamp(|cap, batches| {
                let Some(cap) = cap.retain_least(output.output_index()) else { return };
                batches.flat_map(|batch| batch.drain(..)).for_each(|d| pile.push(cap.clone(), d));
            });
            match writer.0.results.try_recv() {
                Ok(Ok(())) => writing = None,
                Ok(Err(error)) => {
                    failure.report(error);
                    lost.extend(writing.take());
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) if writing.is_some() || !pile.is_empty() => {
                    failure.report(Error::new(name, "the thread that writes has ended"));
                    lost.extend(writing.take());
                }
                Err(TryRecvError::Disconnected) => {}
            }
            if writing.is_none() && lost.is_empty() && !pile.is_empty() {
                let (caps, batch): (Vec<_>, Vec<_>) = pile.take().into_iter().unzip();
                // The thread is idle: there is room for one batch.
                match writer.0.jobs.as_ref().map(|jobs| jobs.try_send(batch)) {
                    Some(Ok(())) => writing = Some(caps),
                    Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                        failure.report(Error::new(name, "the thread that writes has ended"));
                        lost.push(caps);
                    }
                }
            }
        }
    })
}

/// A thread that writes batches.
pub(crate) struct Writer<D> {
    /// Takes one batch while it is idle; absent where the system refused the thread.
    pub(crate) jobs: Option<SyncSender<Vec<D>>>,
    /// What became of each.
    pub(crate) results: Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<D> Writer<D> {
    /// Waits until it has written what it was given and let go of what it holds.
    pub(crate) fn end(&mut self) {
        self.jobs = None;
        // One that has panicked has been told of by its silence.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A writer that has ended when this is dropped.
struct Joined<D>(Writer<D>);

impl<D> Drop for Joined<D> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Starts the thread, which answers each batch and then wakes the operator. It ends when its jobs do.
pub(crate) fn writer<D: Send + 'static>(
    name: &'static str,
    mut write: impl FnMut(Vec<D>) -> Result<()> + Send + 'static,
    wake: SyncActivator,
    failure: &Failure,
) -> Writer<D> {
    let (jobs, batches) = sync_channel::<Vec<D>>(1);
    let (answer, results) = channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        for batch in batches {
            // Either fails only where the worker has gone, and then nobody waits.
            if answer.send(write(batch)).is_err() || wake.activate().is_err() {
                break;
            }
        }
    });
    match started {
        Ok(thread) => Writer { jobs: Some(jobs), results, thread: Some(thread) },
        Err(error) => {
            failure.report(Error::new(name, format!("cannot start its thread: {error}")));
            Writer { jobs: None, results, thread: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use timely::dataflow::operators::{Input, Probe};

    use super::*;

    /// Feeds 0..`count`, an epoch each; what was written, and the error if one was reported.
    fn run(count: u64, fail_at: Option<u64>) -> (Vec<u64>, Option<Error>, bool) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (log, failure) = (Arc::clone(&written), Failure::default());
        let report = failure.clone();
        let done = timely::execute_directly(move |worker| {
            let mut input = timely::dataflow::InputHandle::new();
            let probe = worker.dataflow(|scope| {
                let numbers = scope.input_from(&mut input).container::<Vec<u64>>();
                let write = move |batch: Vec<u64>| {
                    if fail_at.is_some_and(|at| batch.contains(&at)) {
                        return Err(Error::new("disk", "full"));
                    }
                    log.lock().unwrap().extend(batch);
                    Ok(())
                };
                durable(numbers, "numbers", |_| 0, write, report.clone()).probe().0
            });
            for number in 0..count {
                input.send(number);
                input.advance_to(number + 1);
                worker.step();
            }
            input.close();
            worker.step_while(|| !probe.done() && !report.failed());
            let done = probe.done();
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
            done
        });
        let written = written.lock().unwrap().clone();
        (written, failure.take(), done)
    }

    #[test]
    fn what_is_held_to_write_is_given_back_with_the_operator() {
        struct Held(Arc<Mutex<bool>>);
        impl Drop for Held {
            fn drop(&mut self) {
                thread::sleep(std::time::Duration::from_millis(100));
                *self.0.lock().unwrap() = true;
            }
        }
        let over = Arc::new(Mutex::new(false));
        let held = Held(Arc::clone(&over));
        timely::execute_directly(move |worker| {
            let mut input = timely::dataflow::InputHandle::new();
            worker.dataflow(|scope| {
                let numbers = scope.input_from(&mut input).container::<Vec<u64>>();
                let write = move |_: Vec<u64>| {
                    let _ = &held;
                    Ok(())
                };
                durable(numbers, "numbers", |_| 0, write, Failure::default());
            });
            input.send(1);
        });
        assert!(*over.lock().unwrap());
    }

    #[test]
    fn the_frontier_passes_what_is_written() {
        let (written, error, done) = run(100, None);
        assert_eq!(written, (0..100).collect::<Vec<_>>());
        assert!(error.is_none() && done);
    }

    #[test]
    fn a_failure_is_reported_and_nothing_after_it_is_durable() {
        let (written, error, done) = run(100, Some(50));
        assert_eq!(error.unwrap().to_string(), "disk: full");
        assert!(
            !done && written.len() <= 50 && written.iter().copied().eq(0..written.len() as u64)
        );
    }
}
