//! Forecasts with all that came of them, once nothing can change it any more.

use std::sync::Arc;

use physicnet_stream::{Forecast, Frame};
use timely::dataflow::StreamVec;

use super::ScoringConfig;
use super::memory::{Meeting, Observations, lead, meet};

/// A forecast, and what its scores were taken of.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The forecast, the last of its reference time.
    pub forecast: Forecast,
    /// What was observed at leads 1, 2, ...; `None` where nothing was, or of another shape.
    pub observed: Vec<Option<Arc<Frame>>>,
    /// What was observed up to the reference time, oldest first.
    pub past: Vec<Arc<Frame>>,
}

/// Extension trait: waits for what comes of forecasts.
pub trait Settle<'scope>: Sized {
    /// Shows each forecast to `look` once, behind its last observation and what may still correct
    /// it, in the order of a sensor's reference times (a stream would not keep it). It is held
    /// against the frames that [`verify`](super::Score::verify) holds it against under the same
    /// `config`: the scores are sums over exactly these pairs. With it go the frames of `past`
    /// cadences up to its reference time. Kept are, per sensor, the forecasts of `horizon +
    /// correct_within` cadences, and the observations of `past` more.
    fn settle(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        past: usize,
        config: &ScoringConfig,
        look: impl FnMut(&Settled) + 'static,
    ) -> StreamVec<'scope, u64, ()>;
}

impl<'scope> Settle<'scope> for StreamVec<'scope, u64, Forecast> {
    fn settle(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        past: usize,
        config: &ScoringConfig,
        look: impl FnMut(&Settled) + 'static,
    ) -> StreamVec<'scope, u64, ()> {
        meet("Settle", self, observations, config, Wait { past, look })
    }
}

struct Wait<L> {
    past: usize,
    look: L,
}

impl<L: FnMut(&Settled) + 'static> Meeting for Wait<L> {
    type Out = ();
    const WAITS: bool = true;

    fn past(&self) -> usize {
        self.past
    }

    fn settled(
        &mut self,
        forecast: Forecast,
        before: &Observations,
        met: &Observations,
        _: &mut Vec<()>,
    ) {
        let [leads, channels, height, width] = forecast.shape;
        let fits = |frame: &&Arc<Frame>| frame.shape == [channels, height, width];
        let mut observed = vec![None; leads];
        for frame in met.values().filter(fits) {
            let lead = lead(&forecast, frame.valid_time);
            if (1..=leads as i64).contains(&lead) {
                observed[lead as usize - 1] = Some(Arc::clone(frame));
            }
        }
        let up_to = |frame: &&Arc<Frame>| {
            let lead = lead(&forecast, frame.valid_time);
            lead <= 0 && lead > -(self.past as i64)
        };
        let past = before.values().chain(met.values()).filter(fits).filter(up_to);
        let past = past.map(Arc::clone).collect();
        (self.look)(&Settled { forecast, observed, past });
    }
}
