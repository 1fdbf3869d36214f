//! The scores of the job so far, as they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_operators::scoring::{Key, Scores, Span, Sums, Totals};
use physicnet_stream::SensorId;
use serde_json::{Value, json};

use super::job::Job;
use crate::evaluate::named;

/// A lead says something of the skill from so many pairs on.
pub(super) const ENOUGH: i64 = 30;
/// What is served: what everything else is held against.
const OURS: &str = "physicnet";
/// What it is held against.
const BASELINES: [&str; 3] = ["persistence", "advection", "trend"];

/// The scores of one channel.
pub(super) struct Skill {
    /// The channel, counted from 0.
    pub(super) channel: usize,
    /// By product (`physicnet`, `persistence`, ...) and lead, from 1; none where nothing was verified.
    pub(super) products: BTreeMap<Arc<str>, Vec<Option<Scores>>>,
}

/// The scores over a span of `sensor`, or pooled over all of them, by channel.
pub(super) fn skill(totals: &Totals, sensor: Option<&SensorId>, span: Span) -> Vec<Skill> {
    let place = |key: &Key| (key.channel, Arc::clone(&key.product), key.lead);
    let pooled: BTreeMap<_, Sums> = match sensor {
        Some(sensor) => {
            let own = totals.now().of(sensor, span);
            own.into_iter().map(|(key, sums)| (place(&key), sums)).collect()
        }
        None => totals.pooled(span, place),
    };
    let mut channels = BTreeMap::<u32, BTreeMap<_, Vec<_>>>::new();
    for ((channel, product, lead), sums) in pooled {
        let leads = channels.entry(channel).or_default().entry(product).or_default();
        // Leads come in their order, counted from 1; some may lack.
        leads.resize((lead as usize).saturating_sub(1), None);
        leads.push(Some(Scores::from(&sums)));
    }
    let skill = |(channel, products)| Skill { channel: channel as usize, products };
    channels.into_iter().map(skill).collect()
}

impl Skill {
    /// By how much the mean RMSE lies below that of `other`: 0.2 for a fifth less. Over the leads
    /// at which both were verified by `least` pairs.
    pub(super) fn over(&self, other: &str, least: i64) -> Option<f64> {
        let (ours, theirs) = (self.products.get(OURS)?, self.products.get(other)?);
        let both = ours.iter().zip(theirs).filter_map(|(a, b)| a.as_ref().zip(b.as_ref()));
        let enough = both.filter(|(a, b)| a.pairs.min(b.pairs) >= least);
        let (a, b) = enough
            .filter(|(a, b)| (a.rmse + b.rmse).is_finite())
            .fold((0.0, 0.0), |(a, b), (ours, theirs)| (a + ours.rmse, b + theirs.rmse));
        (b > 0.0).then(|| 1.0 - a / b)
    }

    /// The same over each baseline that there is.
    fn gains(&self, least: i64) -> BTreeMap<&'static str, f64> {
        BASELINES.into_iter().filter_map(|name| Some((name, self.over(name, least)?))).collect()
    }

    /// `pairs` by lead, and `scores` by score, product and lead, named as `evaluate` names them.
    pub(super) fn json(&self, job: &Job) -> Value {
        let (variable, units) = job.about.variables.get(self.channel).cloned().unwrap_or_default();
        let asked = job.about.scoring.as_ref().and_then(|channels| channels.get(self.channel));
        let asked = asked.cloned().unwrap_or_default();
        let mut scores = BTreeMap::<String, BTreeMap<&str, Vec<Value>>>::new();
        for (product, leads) in &self.products {
            for (at, lead) in leads.iter().enumerate() {
                for (name, value) in lead.iter().flat_map(|lead| named(lead.clone(), &asked)) {
                    let of_product = scores.entry(name).or_default().entry(product).or_default();
                    of_product.resize(at, Value::Null);
                    of_product.push(json!(value));
                }
            }
        }
        // They are the same for all products.
        scores.remove("pairs");
        let ours = self.products.get(OURS).into_iter().flatten();
        let pairs: Vec<i64> = ours.map(|lead| lead.as_ref().map_or(0, |lead| lead.pairs)).collect();
        json!({"channel": self.channel, "variable": variable, "units": units, "pairs": pairs,
               "scores": scores})
    }
}

/// By how much the error of what is served lies below that of each baseline just now, by channel:
/// over the last `day` where that has enough pairs, else over `all`. A model that was good for a
/// year and is bad today is bad.
pub(super) fn lately(day: &[Skill], all: &[Skill]) -> Value {
    let of = |all: &Skill| {
        let day = day.iter().find(|day| day.channel == all.channel);
        let lately = day.map(|day| day.gains(ENOUGH)).filter(|gains| !gains.is_empty());
        let (span, gain) = match lately {
            Some(gain) => (Span::Day, gain),
            None => (Span::All, all.gains(1)),
        };
        json!({"channel": all.channel, "span": span, "gain": gain})
    };
    all.iter().map(of).collect()
}
