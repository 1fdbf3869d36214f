//! The picture: everything that happens to a frame, in order.
//!
//! ```text
//! source ─► admission ─► cropping ─► encoding ─► quantization ─► windowing ─► experts ─► fusion ─► sinks ─► durable
//!   ▲           │                                                                          │                  │
//!   │           ├─► rejects, marks ─► durable                                              ▼                  │
//!   │           └──────────────────────────── observations ─────────────────────────► scoring                 │
//!   └───────────────────────── pace: at most `in_flight` epochs ahead ────────────────────────────────────────┘
//! ```

use std::rc::Rc;

use physicnet_connectors::kafka::{Claim, Said};
use physicnet_operators::admission::{Admit, Admitted, Judged};
use physicnet_operators::cropping::Crop;
use physicnet_operators::encoding::Encode;
use physicnet_operators::experts::Consult;
use physicnet_operators::fusion::Fuse;
use physicnet_operators::model::PhysicNet;
use physicnet_operators::quantization::Quantize;
use physicnet_operators::scoring::Score;
use physicnet_operators::windowing::Windowed;
use physicnet_stream::{Frame, Pace, Reason, Resume};
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Concatenate, Enter, Inspect, Leave, Probe};
use timely::dataflow::{Scope, StreamVec};

use crate::engine::Parts;

/// Builds this worker's share of the job's dataflow; `pace.durable` is behind all sinks.
///
/// Sources go on where `resume` says; `claim` is of the one worker that writes the ledger.
pub fn forecast<'scope>(
    scope: Scope<'scope, u64>,
    parts: &Parts,
    net: Rc<PhysicNet>,
    resume: &Resume,
    claim: Option<Claim>,
    pace: &Pace,
) {
    let (history, batch, failure) = (net.config.history, parts.batch, &pace.failure);
    let (counts, watch) = (parts.counts.clone(), &parts.telemetry);

    let sources = parts.sources.iter().map(|source| source.open(scope, resume, pace.clone()));
    let frames = scope.concatenate(sources.collect::<Vec<_>>());
    let frames = frames.inspect_core(watch.frames()).inspect(counts.frame());

    let Judged { admitted, rejected, marks } =
        frames.admit(&parts.admission, &parts.catalogue, history);
    // An exact repeat says nothing new: it is counted, not kept.
    let rejected = rejected
        .inspect(counts.reject())
        .inspect(watch.rejects())
        .filter(|reject| reject.reason != Reason::Duplicate);
    let observed = admitted.clone().inspect(counts.admitted()).inspect(watch.admitted());

    let views = room(scope, "cropping", admitted, |s| s.crop(&net, &parts.catalogue, failure));
    let encoded = room(scope, "encoding", views, |s| s.encode(&net, batch, failure));
    let coded = room(scope, "quantization", encoded, |s| s.quantize(&net, batch, failure))
        .inspect(watch.coded());
    let windows = room(scope, "windowing", coded, |s| s.windows(history, failure));
    let consulted = room(scope, "experts", windows, |s| s.consult(&net, batch, failure))
        .inspect(watch.consulted());
    let forecasts = room(scope, "fusion", consulted, |s| s.fuse(&net, &parts.fuse, batch, failure))
        .inspect(counts.forecast())
        .inspect(watch.forecasts());

    let mut durable = Vec::new();
    for sink in &parts.sinks {
        durable.push(sink.write(forecasts.clone(), &parts.catalogue, pace.clone()));
    }
    durable.push(parts.rejects.write(rejected.clone(), pace.clone()));
    if let Some(scoring) = &parts.scoring {
        let observed = observed.flat_map(observation);
        durable.push(forecasts.clone().score(observed, scoring, &parts.totals));
    }
    let stored = scope.concatenate(durable);
    let durable = match &parts.ledger {
        Some(ledger) => {
            let said = Said { forecasts, rejected, marks, stored };
            ledger.write(said, &parts.catalogue, claim, pace)
        }
        // Without a sink of its own a forecast counts as durable once it is made.
        None => scope.concatenate([stored, forecasts.flat_map(|_| None)]),
    };
    durable.probe_with(&pace.durable);
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
    let Admitted { sensor, valid_time, offset, shape, data, filled, .. } = admitted;
    (!filled).then_some(Frame {
        sensor,
        valid_time,
        offset,
        shape,
        data: Rc::unwrap_or_clone(data),
        replay: false,
        record: None,
    })
}
