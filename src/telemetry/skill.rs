//! The scores of the job so far, as they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_operators::scoring::{Key, Scores, Span, Sums, Totals};
use physicnet_stream::SensorId;

/// How good one product is for one channel at one lead.
#[derive(Clone, Debug, PartialEq)]
pub struct Skill {
    /// `physicnet`, `persistence`, `advection`, ...
    pub product: Arc<str>,
    /// The channel, counted from 0.
    pub channel: usize,
    /// The lead, counted from 1.
    pub lead: usize,
    /// How many pairs of fields it comes from.
    pub pairs: i64,
    /// The root of the mean squared error, in the units of the channel.
    pub rmse: f64,
    /// The mean error, forecast minus observation.
    pub bias: f64,
}

/// The scores over a span of `sensor`, or pooled over all of them: by channel, product and lead.
pub fn skill(totals: &Totals, sensor: Option<&SensorId>, span: Span) -> Vec<Skill> {
    let place = |key: &Key| (key.channel, Arc::clone(&key.product), key.lead);
    let pooled: BTreeMap<_, Sums> = match sensor {
        Some(sensor) => {
            let own = totals.now().of(sensor, span);
            own.into_iter().map(|(key, sums)| (place(&key), sums)).collect()
        }
        None => totals.pooled(span, place),
    };
    let score = |((channel, product, lead), sums): ((u32, Arc<str>, u32), Sums)| {
        let Scores { pairs, rmse, bias, .. } = Scores::from(&sums);
        Skill { product, channel: channel as usize, lead: lead as usize, pairs, rmse, bias }
    };
    pooled.into_iter().map(score).collect()
}
