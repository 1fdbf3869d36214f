//! What an evaluation found, as data: the JSON that it leaves.

use std::collections::{BTreeMap, BTreeSet};

use differential_dataflow::difference::Semigroup;
use physicnet_operators::scoring::{EnsembleSums, Fss, Key, Metrics, Reliability, Scores, Sums};
use serde_json::{Map, Value, json};

use super::ensembles::Verified;

/// The scores of one lead: `csi_0.1` and its like carry their threshold; NaN where undefined.
pub type Lead = BTreeMap<String, f64>;

/// What was found for one variable.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableReport {
    /// Its name in the data.
    pub name: String,
    /// Its unit.
    pub units: String,
    /// What was scored.
    pub metrics: Metrics,
    /// How many of the fractions skill scores the table shows, the first ones.
    pub told: usize,
    /// Per product, the scores of leads 1, 2, ... pooled over the sensors; empty where nothing
    /// was verified.
    pub products: BTreeMap<String, Vec<Lead>>,
    /// Of the products that are ensembles, the sums of leads 1, 2, ...
    pub ensembles: BTreeMap<String, Vec<EnsembleSums>>,
}

/// Everything that an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The hash of the checkpoint; `none` for experts alone.
    pub model: String,
    /// The sensors that were scored.
    pub sensors: BTreeSet<String>,
    /// One per channel.
    pub variables: Vec<VariableReport>,
}

/// The order in which people look for products; what is not named comes after, by name.
const ORDER: [&str; 6] = ["physicnet", "mean", "sharp", "advection", "persistence", "trend"];

impl Report {
    /// The report on `totals`, whose channels are `variables`: name, unit and what was scored.
    pub fn new(
        model: &str,
        totals: &BTreeMap<Key, Sums>,
        variables: &[(String, String, Metrics)],
    ) -> Self {
        let mut pooled = BTreeMap::<(u32, &str, u32), Sums>::new();
        for (key, sums) in totals {
            let at = (key.channel, &*key.product, key.lead);
            pooled.entry(at).or_default().plus_equals(sums);
        }
        let of_channel = |channel: usize, metrics: &Metrics| {
            let mut products = BTreeMap::<String, Vec<Lead>>::new();
            for (&(at, product, lead), sums) in &pooled {
                if at as usize == channel {
                    let leads = products.entry(product.to_owned()).or_default();
                    leads.resize((lead as usize).max(leads.len()), Lead::new());
                    leads[lead as usize - 1] = named(Scores::from(sums), metrics);
                }
            }
            products
        };
        let variables =
            variables.iter().enumerate().map(|(channel, (name, units, metrics))| VariableReport {
                name: name.clone(),
                units: units.clone(),
                metrics: metrics.clone(),
                told: metrics.fss.len(),
                products: of_channel(channel, metrics),
                ensembles: BTreeMap::new(),
            });
        Self {
            model: model.to_owned(),
            sensors: totals.keys().map(|key| key.sensor.to_string()).collect(),
            variables: variables.collect(),
        }
    }

    /// The same with what was verified of ensembles. Their scores stand among the others, `crps` with
    /// those of the single forecasts beside them, which are their absolute errors.
    #[must_use]
    pub fn with(mut self, ensembles: Verified) -> Self {
        for ((channel, product, lead), sums) in ensembles {
            let Some(variable) = self.variables.get_mut(channel) else { continue };
            let leads = variable.ensembles.entry(product.to_string()).or_default();
            leads.resize_with(lead.max(leads.len()), EnsembleSums::default);
            leads[lead - 1] = sums;
        }
        for variable in self.variables.iter_mut().filter(|v| !v.ensembles.is_empty()) {
            variable.add_ensembles();
        }
        self
    }

    /// The report as JSON:
    ///
    /// ```text
    /// {"model": hash, "sensors": [name], "variables": [{"name", "units", "metrics",
    ///   "products": {product: {"leads": [{"lead": 1, "mse": ..., "csi_0.1": ...}], "mean": {...},
    ///     "ensemble": {"members": 20, "leads": [{"lead": 1, "ranks": [counts],
    ///       "reliability": {"0.1": [{"forecast": share, "count", "observed": share}]}}]}}}}]}
    /// ```
    ///
    /// `ensemble` is there where the product is one.
    ///
    /// `mean` is every score averaged over the leads at which all products have it, so that means
    /// can be compared, and pairs added up over the product's own leads; an undefined score is `null`.
    pub fn json(&self) -> Value {
        let variables = self.variables.iter().map(|variable| {
            let product = |name: &String, leads: &Vec<Lead>| {
                let rows = leads.iter().enumerate().map(|(i, lead)| {
                    let mut row = object(lead);
                    row.insert("lead".to_owned(), json!(i + 1));
                    Value::Object(row)
                });
                let names: BTreeSet<&String> = leads.iter().flat_map(Lead::keys).collect();
                let mean = names.into_iter().map(|s| (s.clone(), variable.mean(name, s))).collect();
                let mut all = json!({"leads": rows.collect::<Vec<_>>(), "mean": object(&mean)});
                if let Some(sums) = variable.ensembles.get(name) {
                    all["ensemble"] = variable.ensemble(sums);
                }
                all
            };
            let products: Map<String, Value> = variable
                .products
                .iter()
                .map(|(name, leads)| (name.clone(), product(name, leads)))
                .collect();
            json!({
                "name": variable.name,
                "units": variable.units,
                "metrics": variable.metrics,
                "products": products,
            })
        });
        json!({
            "model": self.model,
            "sensors": self.sensors,
            "variables": variables.collect::<Vec<_>>(),
        })
    }
}

impl VariableReport {
    /// Puts the ensembles' scores among the others.
    fn add_ensembles(&mut self) {
        for (name, leads) in &mut self.products {
            for (at, row) in leads.iter_mut().enumerate() {
                let sums = self.ensembles.get(name).and_then(|leads| leads.get(at));
                let Some(sums) = sums.filter(|sums| sums.scored > 0) else {
                    // One forecast is an ensemble of one; of one that is an ensemble it says nothing.
                    let single = !self.ensembles.contains_key(name);
                    row.extend(
                        row.get("mae").filter(|_| single).map(|mae| ("crps".to_owned(), *mae)),
                    );
                    continue;
                };
                row.insert("crps".to_owned(), sums.crps());
                row.insert("spread".to_owned(), sums.spread());
                row.insert("dispersion".to_owned(), sums.spread() / sums.rmse());
                let briers = self.metrics.thresholds.iter().enumerate();
                row.extend(briers.map(|(at, t)| (format!("brier_{t}"), sums.brier(at))));
            }
        }
    }

    /// What there is of an ensemble beside its scores.
    fn ensemble(&self, leads: &[EnsembleSums]) -> Value {
        let of = |(at, sums): (usize, &EnsembleSums)| {
            let points = |place: usize| -> Vec<Value> {
                let point = |point: Reliability| {
                    let Reliability { forecast, count, observed } = point;
                    json!({"forecast": forecast, "count": count, "observed": observed})
                };
                sums.reliability(place).into_iter().map(point).collect()
            };
            let thresholds = self.metrics.thresholds.iter().enumerate();
            let reliability: Map<String, Value> =
                thresholds.map(|(place, t)| (t.to_string(), json!(points(place)))).collect();
            json!({"lead": at + 1, "ranks": sums.ranks(), "reliability": reliability})
        };
        let members = leads.iter().map(EnsembleSums::members).max();
        json!({"members": members, "leads": leads.iter().enumerate().map(of).collect::<Vec<_>>()})
    }

    /// The products in the order of the table.
    pub fn ordered(&self) -> Vec<&str> {
        let rank = |name: &str| ORDER.iter().position(|o| *o == name).unwrap_or(ORDER.len());
        let mut names: Vec<&str> = self.products.keys().map(String::as_str).collect();
        names.sort_by_key(|name| (rank(name), *name));
        names
    }

    /// The average of a score of a product over the leads at which all products have it: means
    /// over different leads would say who forecasts less far. Pairs are added up over its own.
    pub fn mean(&self, product: &str, score: &str) -> f64 {
        let at = |lead: usize| self.score(product, lead, score);
        if score == "pairs" {
            return (1..=self.leads()).map(at).filter(|pairs| pairs.is_finite()).sum();
        }
        let shared = self.shared(score);
        shared.iter().map(|lead| at(*lead)).sum::<f64>() / shared.len() as f64
    }

    /// The leads, counted from 1, at which every product has the score; products that have it
    /// nowhere are passed over.
    pub fn shared(&self, score: &str) -> Vec<usize> {
        let all = 1..=self.leads();
        let has = |product: &str, lead: usize| self.score(product, lead, score).is_finite();
        let taking = |product: &&String| all.clone().any(|lead| has(product, lead));
        let products: Vec<&String> = self.products.keys().filter(taking).collect();
        all.clone().filter(|lead| products.iter().all(|product| has(product, *lead))).collect()
    }

    /// What a mean of the score is called, by the leads that it is of.
    pub fn mean_label(&self, score: &str) -> String {
        let shared = self.shared(score);
        match (shared.first(), shared.last()) {
            _ if score == "pairs" || shared.len() == self.leads() => "mean".to_owned(),
            (Some(first), Some(last)) if last - first + 1 == shared.len() => {
                format!("mean {first}-{last}")
            }
            _ => format!("mean of {}", shared.len()),
        }
    }

    /// A score of a product at a lead, counted from 1.
    pub fn score(&self, product: &str, lead: usize, score: &str) -> f64 {
        let leads = self.products.get(product);
        let lead = leads.and_then(|leads| leads.get(lead.wrapping_sub(1)));
        lead.and_then(|lead| lead.get(score).copied()).unwrap_or(f64::NAN)
    }

    /// The longest lead of any product.
    pub fn leads(&self) -> usize {
        self.products.values().map(Vec::len).max().unwrap_or(0)
    }
}

/// What a fractions skill score is called: `fss_1_10` is above 1 over 10 pixels.
pub(crate) fn fss_name(Fss { threshold, scale }: &Fss) -> String {
    format!("fss_{threshold}_{scale}")
}

/// The scores that were asked for, by their names.
pub(crate) fn named(scores: Scores, metrics: &Metrics) -> Lead {
    let Scores { pairs, coverage, mse, rmse, mae, bias, corr, rel_l2, ssim, fss, categorical } =
        scores;
    let mut row: Lead = [
        ("pairs", pairs as f64),
        ("coverage", coverage),
        ("mse", mse),
        ("rmse", rmse),
        ("mae", mae),
        ("bias", bias),
        ("corr", corr),
        ("rel_l2", rel_l2),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if metrics.ssim.is_some() {
        row.insert("ssim".to_owned(), ssim);
    }
    row.extend(metrics.fss.iter().map(fss_name).zip(fss));
    for (threshold, scores) in metrics.thresholds.iter().zip(categorical) {
        row.insert(format!("csi_{threshold}"), scores.csi);
        row.insert(format!("pod_{threshold}"), scores.pod);
        row.insert(format!("far_{threshold}"), scores.far);
        row.insert(format!("fbias_{threshold}"), scores.fbias);
    }
    row
}

fn object(lead: &Lead) -> Map<String, Value> {
    // Numbers that are not finite have no JSON: they become null.
    lead.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}
