//! The join of forecasts with what then came, incrementally.

use std::sync::Arc;

use differential_dataflow::{AsCollection, VecCollection};
use physicnet_stream::{Forecast, Frame, Product, SensorId, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;

use super::memory::{Meeting, Met, lead, meet};
use super::{Metrics, Sums};
use crate::layers::moments::Observed;

/// What is verified, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoringConfig {
    /// What is scored of every channel, in order; channels beyond the list get the moments alone.
    pub channels: Vec<Metrics>,
    /// The first reference time that is scored; absent, there is no first.
    pub from: Option<Time>,
    /// The last reference time that is scored; absent, there is no last.
    pub to: Option<Time>,
    /// Of the reference times from `from` on (or from the epoch), every how manieth; 0 is 1.
    pub stride: u64,
    /// A step of more cadences than this, either way, is a clock that was set: what was held before
    /// it meets nothing any more. Absent, there is no such step.
    pub largest_jump: Option<u32>,
    /// Frames and forecasts that come late, or again, count while they are at most so many
    /// cadences behind the newest frame. As many longer all of it is kept.
    pub correct_within: u32,
}

impl ScoringConfig {
    pub(super) fn takes(&self, forecast: &Forecast) -> bool {
        let at = forecast.reference_time;
        let step = forecast.cadence.steps(self.from.unwrap_or(0), at);
        self.from.is_none_or(|from| from <= at)
            && self.to.is_none_or(|to| at <= to)
            && step.rem_euclid(self.stride.max(1) as i64) == 0
    }
}

/// Whose scores some sums are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The sensor.
    pub sensor: SensorId,
    /// The product: a model or a reference forecast.
    pub product: Arc<str>,
    /// The lead, counted from 1.
    pub lead: u32,
    /// The channel, counted from 0.
    pub channel: u32,
}

/// A verified pair: whose scores it adds to, and when it was observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// Whose scores.
    pub key: Key,
    /// The valid time of the observation.
    pub valid_time: Time,
}

/// Extension trait: verifies forecasts.
pub trait Score<'scope>: Sized {
    /// The sums of every pair of a forecast lead and the observation of its valid time, as the
    /// differences of a collection of [`Pair`]s.
    ///
    /// An observation belongs to lead k where it lies within half a cadence of its valid time; of
    /// two closer than half a cadence the first to come counts. A second observation of the same valid
    /// time, or a second forecast of the same reference time, replaces the first: its sums are
    /// taken away again, exactly. An epoch is joined once it is complete, so neither workers nor
    /// batches can be seen in the result, nor the order of arrival as far as `correct_within`
    /// reaches. Kept are, per sensor, what that needs: the forecasts of `horizon +
    /// correct_within` cadences, and as many observations.
    fn verify(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
    ) -> VecCollection<'scope, u64, Pair, Sums>;
}

impl<'scope> Score<'scope> for StreamVec<'scope, u64, Forecast> {
    fn verify(
        self,
        observations: StreamVec<'scope, u64, Frame>,
        config: &ScoringConfig,
    ) -> VecCollection<'scope, u64, Pair, Sums> {
        let channels = config.channels.clone();
        meet("Score", self, observations, config, Verify { channels }).as_collection()
    }
}

/// Turns every meeting into what it adds to the scores.
struct Verify {
    channels: Vec<Metrics>,
}

impl Meeting for Verify {
    type Out = (Pair, u64, Sums);
    const WAITS: bool = false;

    /// The sums of every product and channel of a forecast at the lead that a frame verifies.
    fn meet(&mut self, all: &[Met], epoch: u64, out: &mut Vec<Self::Out>) {
        let usual = Metrics::default();
        for with in all.chunk_by(|a, b| std::ptr::eq(a.frame, b.frame)) {
            let frame = with[0].frame;
            let [_, height, width] = frame.shape;
            let observed = frame.data.chunks_exact((height * width).max(1));
            for (channel, o) in observed.enumerate() {
                let metrics = self.channels.get(channel).unwrap_or(&usual);
                let mut fields = with.iter().flat_map(|met| fields(met, channel)).peekable();
                // Most of what is kept of the past meets nothing any more.
                let Some(_) = fields.peek() else { continue };
                let o = Observed::new(o);
                while let Some((met, product, lead, p)) = fields.next() {
                    let next = fields.peek().map_or(&[][..], |(.., next)| next);
                    let sums = Sums::beside(&o, p, next, width, metrics);
                    let sums = if met.times == 1 { sums } else { sums.times(met.times) };
                    let key = Key {
                        sensor: met.forecast.sensor.clone(),
                        product: Arc::clone(&product.name),
                        lead,
                        channel: channel as u32,
                    };
                    out.push((Pair { key, valid_time: frame.valid_time }, epoch, sums));
                }
            }
        }
    }
}

/// The fields of a channel that a frame verifies: of every product, at its lead.
fn fields<'a>(
    met: &'a Met<'a>,
    channel: usize,
) -> impl Iterator<Item = (&'a Met<'a>, &'a Product, u32, &'a [f32])> {
    let Forecast { shape, products, .. } = met.forecast;
    let [leads, rest @ ..] = *shape;
    let lead = lead(met.forecast, met.frame.valid_time);
    let fits = (1..=leads as i64).contains(&lead) && met.frame.shape == rest;
    let products = if fits { &products[..] } else { &[] };
    let field = move |product: &'a Product| {
        let field = product.field(*shape, lead as usize, channel);
        (!field.is_empty()).then_some((met, product, lead as u32, field))
    };
    products.iter().filter_map(field)
}
