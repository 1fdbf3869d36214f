//! The evaluation as JSON: the scores, and what a study has found beside them.

use serde_json::{Map, Value, json};

use super::contests::verdicts;
use crate::evaluate::Report;
use crate::study::{About, Case, Findings, wavelength};
use physicnet_stream::format_time;

/// The scores' JSON (see [`Report::json`]) and beside it
///
/// ```text
/// {"forecasts": n, "period": [first, last reference time],
///  "spectra": [{"variable", "wavelengths": pixels, "leads": [{"lead", "pairs", "truth": variances, "products": {...},
///    "beside": {product: variances of the truth over the same fields}}]}],
///  "contests": [{"variable", "against", "lead", "count", "ours", "theirs", "difference", "margin", "statistic", "p", "lags"}],
///  "gains": [{"variable", "product", "lead", "gain"}],
///  "cases": [{"variable", "best": [{"sensor", "reference_time", "mse", "persistence"}], "worst": [...]}],
///  "codes": {"counts", "perplexity"}}
/// ```
pub fn document(report: &Report, about: &About, findings: &Findings) -> Value {
    let mut all = report.json();
    let names: Vec<&str> = report.variables.iter().map(|v| v.name.as_str()).collect();
    let named = |channel: usize| names.get(channel).copied().unwrap_or_default();
    let period = findings.period.map(|(first, last)| [first, last].map(format_time));
    let mut contests = Vec::new();
    for (channel, variable) in report.variables.iter().enumerate() {
        for product in variable.ordered().into_iter().skip(1) {
            for (lead, v) in verdicts(findings, about, channel, product) {
                contests.push(json!({
                    "variable": variable.name, "against": product, "lead": lead,
                    "count": v.count, "ours": v.ours, "theirs": v.theirs,
                    "difference": v.difference, "margin": v.margin, "statistic": v.statistic,
                    "p": v.p, "lags": v.bandwidth,
                }));
            }
        }
    }
    let gains = findings.gains.iter().map(|((channel, product, lead), gain)| {
        json!({"variable": named(*channel), "product": product, "lead": lead, "gain": gain.share()})
    });
    let case = |case: &Case| {
        json!({"sensor": case.sensor, "reference_time": format_time(case.reference_time),
               "mse": case.loss, "persistence": case.reference})
    };
    let cases = findings.cases.iter().enumerate().map(|(channel, cases)| {
        let all = |cases: &[Case]| cases.iter().map(case).collect::<Vec<_>>();
        json!({"variable": named(channel), "best": all(&cases.best), "worst": all(&cases.worst)})
    });
    let spectra = findings.main().map(|on| {
        let [_, height, width] = on.grid.shape();
        let of = |(channel, spectra): (usize, &crate::study::Spectra)| {
            let leads = spectra.leads().into_iter().map(|lead| {
                let products =
                    report.variables.get(channel).map(|v| v.ordered()).unwrap_or_default();
                let each = |of: &dyn Fn(&str) -> Vec<f64>| {
                    let all = products.iter().map(|name| ((*name).to_owned(), json!(of(name))));
                    all.collect::<Map<String, Value>>()
                };
                json!({"lead": lead, "pairs": spectra.pairs(lead),
                       "truth": spectra.observed(lead),
                       "products": each(&|name| spectra.product(lead, name)),
                       "beside": each(&|name| spectra.beside(lead, name))})
            });
            let lengths: Vec<f64> =
                (1..=height.max(width) / 2).map(|bin| wavelength(bin, [height, width])).collect();
            json!({"variable": named(channel), "wavelengths": lengths,
                   "leads": leads.collect::<Vec<_>>()})
        };
        on.spectra.iter().enumerate().map(of).collect::<Vec<_>>()
    });
    let codes = findings.atlas.as_ref().map(|atlas| {
        let counts: Vec<u64> = atlas.codes.iter().map(|code| code.count).collect();
        json!({"counts": counts, "perplexity": atlas.perplexity()})
    });
    for (key, value) in [
        ("forecasts", json!(findings.forecasts)),
        ("period", json!(period)),
        ("spectra", json!(spectra)),
        ("contests", json!(contests)),
        ("gains", json!(gains.collect::<Vec<_>>())),
        ("cases", json!(cases.collect::<Vec<_>>())),
        ("codes", json!(codes)),
    ] {
        all[key] = value;
    }
    all
}
