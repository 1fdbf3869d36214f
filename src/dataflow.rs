//! The picture: everything that happens to a frame, in order.
//!
//! ```text
//! source ─► admission ─► cropping ─► encoding ─► quantization ─► windowing ─► experts ─► fusion ─► learning ─► sinks ─► durable
//!   ▲           │                                                                                  ▲ │                     │
//!   │           ├─► rejects, marks ─► durable                                                      │ ▼                     │
//!   │           ├──────────────────────────── observations ────────────────────────────────────────┴─► scoring             │
//!   │           └─► health ◄── drift ◄── quantization                                                                      │
//!   └───────────────────────── pace: at most `in_flight` epochs ahead ─────────────────────────────────────────────────────┘
//! ```
//!
//! Between admission and cropping every frame is given the network that is to see it. Where an ensemble
//! is asked for, served forecasts learn how sure they are on their way to the sinks.

use std::rc::Rc;

use physicnet_connectors::behind;
use physicnet_connectors::kafka::{Claim, Said};
use physicnet_operators::admission::{Admit, Admitted, Judged, Memory};
use physicnet_operators::cropping::Crop;
use physicnet_operators::encoding::Encode;
use physicnet_operators::ensemble::Dress;
use physicnet_operators::experts::Consult;
use physicnet_operators::fusion::Fuse;
use physicnet_operators::learning::{Learn, Learning, Taught};
use physicnet_operators::model::PhysicNet;
use physicnet_operators::quantization::{Quantize, Watch};
use physicnet_operators::scoring::{Score, Settle, total_into};
use physicnet_operators::swapping::Appoint;
use physicnet_operators::windowing::Windowed;
use physicnet_stream::{Frame, Pace, Reason, Reject};
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Concat, Concatenate, Enter, Inspect, Leave, Probe};
use timely::dataflow::{ProbeHandle, Scope, StreamVec};

use crate::engine::{Parts, Start};
use crate::scores::{self, Note};

/// Builds this worker's share of the job's dataflow; `pace.durable` is behind all sinks.
///
/// Sources and forecasts go on from where `start` says; `claim` is of the one worker that writes the ledger.
pub fn forecast<'scope>(
    scope: Scope<'scope, u64>,
    parts: &Parts,
    net: Rc<PhysicNet>,
    start: &Start,
    claim: Option<Claim>,
    pace: &Pace,
) {
    let resume = &start.resume;
    let (history, batch, failure) = (net.config.history, parts.batch, &pace.failure);
    let (counts, watch, study) = (parts.counts.clone(), &parts.telemetry, &parts.study);

    let sources = parts.sources.iter().map(|source| source.open(scope, resume, pace.clone()));
    let frames = scope.concatenate(sources.collect::<Vec<_>>());
    let frames = frames.inspect_core(watch.frames()).inspect(counts.frame());

    let memory = Memory { history, pending: parts.pending() };
    let Judged { admitted, rejected, marks } =
        frames.admit(&parts.admission, &parts.catalogue, memory);
    let (observed, late) =
        (admitted.clone().inspect(counts.admitted()).inspect(watch.admitted()), rejected.clone());
    let observed = observed.inspect(parts.health.frames(watch.events()));
    // What was rejected before a restart is not again. An exact repeat says nothing new: it is
    // counted, not kept.
    let rejected = rejected
        .inspect(watch.refused())
        .filter(|reject| !reject.frame.replay)
        .inspect(counts.reject())
        .inspect(parts.health.reject())
        .inspect(watch.rejects())
        .filter(|reject| reject.reason != Reason::Duplicate);

    let swap = parts.swap.as_ref();
    let appointed = match swap {
        Some(swap) => {
            let changes = swap.changes(&admitted, parts.in_flight);
            let (swap, device, precision) = (swap.clone(), net.device.clone(), net.precision);
            let load = move |bytes: &[u8]| swap.read(bytes)?.network_in(&device, precision);
            admitted.appoint_by(&net, changes, load, failure)
        }
        None => admitted.appoint(&net),
    };
    let (catalogue, swaps) = (&parts.catalogue, swap.is_some());
    let views = room(scope, "cropping", appointed, |s| s.crop(catalogue, swaps, failure));
    let encoded = room(scope, "encoding", views, |s| s.encode(batch, failure));
    let coded = room(scope, "quantization", encoded, |s| s.quantize(batch, failure))
        .inspect(watch.coded())
        .inspect(study.coded());
    let drift = coded.clone().drift(parts.drift, failure);
    let drift = drift.inspect(parts.health.drift()).inspect(watch.drift());
    let windows = room(scope, "windowing", coded, |s| s.windows(parts.scores.is_some(), failure));
    let consulted = room(scope, "experts", windows, |s| s.consult(&parts.bank, batch, failure))
        .inspect(watch.consulted())
        .inspect(study.consulted());
    let mut forecasts = room(scope, "fusion", consulted, |s| s.fuse(&parts.fuse, batch, failure));
    let mut tried = None;
    if let Some(swap) = swap {
        let served = forecasts.clone().filter(|forecast| !forecast.candidate);
        let candidates = forecasts.filter(|forecast| forecast.candidate);
        let measured = observed.clone().flat_map(observation);
        tried = Some(swap.judge(served.clone(), candidates, measured).flat_map(|_| None));
        forecasts = served;
    }
    let forecasts = forecasts.inspect(counts.forecast());
    let (forecasts, learnt) = match parts.learn {
        Some(learn) => {
            let observed = observed.clone();
            let Learning { forecasts, learnt } =
                forecasts.learn(observed, learn, &start.lessons.learnt);
            let learnt = learnt.inspect(parts.health.serving(&start.lessons.learnt, watch));
            (forecasts.inspect(parts.health.served()), Some(learnt))
        }
        None => (forecasts, None),
    };
    let (forecasts, errors) = match &parts.ensemble {
        Some(ensemble) => {
            let Taught { forecasts, learnt } =
                forecasts.dress(observed.clone(), ensemble, &start.lessons.errors);
            (forecasts, Some(learnt))
        }
        None => (forecasts, None),
    };
    let made = forecasts.clone();
    // What is durable since before a restart is made again for its verification alone.
    let forecasts = forecasts.filter(|forecast| !forecast.replay).inspect(watch.forecasts());

    // Watching ends with the rest: the last frames' drift is known when the job is done.
    let mut durable = vec![drift.flat_map(|_| None)];
    durable.extend(learnt.clone().map(|learnt| learnt.flat_map(|_| None)));
    durable.extend(errors.clone().map(|errors| errors.flat_map(|_| None)));
    durable.extend(tried);
    // A start goes on behind the newest stored forecast: what was rejected before it is kept by then.
    let kept = parts.rejects.write(rejected.clone(), pace.clone());
    if !parts.sinks.is_empty() {
        let stored = behind(forecasts.clone(), kept.clone());
        for sink in &parts.sinks {
            durable.push(sink.write(stored.clone(), &parts.catalogue, pace.clone()));
        }
    }
    durable.push(kept);
    let (sunk, mut kept) = (ProbeHandle::new(), None);
    if let Some(scoring) = &parts.scoring {
        let observed = observed.flat_map(observation).concat(late.flat_map(belated));
        let made = parts.rivals.beside(made, failure);
        if let Some(past) = study.past() {
            let look = study.settled();
            durable.push(made.clone().settle(observed.clone(), past, scoring, look));
        }
        if let Some(look) = parts.ensembles.settled(parts, &scoring.channels, failure) {
            durable.push(made.clone().settle(observed.clone(), 0, scoring, look));
        }
        let verified = made.verify(observed, scoring);
        match &parts.scores {
            Some(file) => {
                let mut notes = marks.clone().map(Note::Mark);
                if let Some(learnt) = learnt {
                    let learnt =
                        learnt.map(|(sensor, learnt)| Note::Learnt(sensor, Box::new(learnt)));
                    notes = notes.concat(learnt);
                }
                if let Some(errors) = errors {
                    let errors =
                        errors.map(|(sensor, known)| Note::Errors(sensor, Box::new(known)));
                    notes = notes.concat(errors);
                }
                let totals = &parts.totals;
                kept = Some(scores::keep(verified, notes, totals, file, resume, &sunk, failure));
            }
            None => durable.push(total_into(verified, &parts.totals)),
        }
    }
    let marks = marks.filter(|mark| !mark.replay);
    let stored = scope.concatenate(durable);
    let durable = match &parts.ledger {
        Some(ledger) => {
            let said = Said { forecasts, rejected, marks, stored };
            ledger.write(said, &parts.catalogue, claim, pace)
        }
        // Without a sink of its own a forecast counts as durable once it is made.
        None => scope.concatenate([stored, forecasts.flat_map(|_| None)]),
    };
    let durable = durable.probe_with(&sunk);
    // The file of the scores follows the sinks.
    scope.concatenate([durable].into_iter().chain(kept)).probe_with(&pace.durable);
}

/// One stage in a region that has its folder's name, as timely's own logs and drawings show it.
fn room<'scope, A: 'static, B: 'static>(
    scope: Scope<'scope, u64>,
    name: &str,
    stream: StreamVec<'scope, u64, A>,
    stage: impl for<'inner> FnOnce(StreamVec<'inner, u64, A>) -> StreamVec<'inner, u64, B>,
) -> StreamVec<'scope, u64, B> {
    scope.region_named(name, |inner| stage(stream.enter(inner)).leave(scope))
}

/// What scoring may hold a forecast against: measured frames, not those made up for a gap.
fn observation(admitted: Admitted) -> Option<Frame> {
    let measured = !admitted.filled();
    let Admitted { sensor, valid_time, offset, shape, data, replay, scored, .. } = admitted;
    measured.then_some(Frame {
        sensor,
        valid_time,
        offset,
        shape,
        data: Rc::unwrap_or_clone(data),
        replay,
        scored,
        record: None,
    })
}

/// What came too late for any window, but was measured.
fn belated(reject: Reject) -> Option<Frame> {
    reject.reason.measured().then_some(reject.frame)
}
