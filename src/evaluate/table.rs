//! The report for people: one block per score, models side by side, leads downwards.

use std::fmt::Write;

use super::report::{Report, VariableReport, fss_name};

/// Scores of which less is better: those whose skill over a reference forecast is shown.
const ERRORS: [&str; 5] = ["mse", "rmse", "mae", "rel_l2", "crps"];
/// Forecasts that skill is measured against.
const REFERENCES: [&str; 2] = ["persistence", "advection"];

/// The report as text, at most about 120 columns.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let sensors = report.sensors.len();
    for variable in &report.variables {
        let pairs = variable.ordered().first().map_or(0.0, |p| variable.score(p, 1, "pairs"));
        let units = if variable.units.is_empty() { "1" } else { &variable.units };
        let s = if sensors == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "\n{} ({units}), model {}, {sensors} sensor{s}, {pairs} forecasts verified at lead 1",
            variable.name, report.model,
        );
        let all = scores(variable);
        // Of scores at many scales the table shows those that were asked for.
        let more: Vec<_> = variable.metrics.fss.iter().skip(variable.told).map(fss_name).collect();
        for score in all.into_iter().filter(|score| !more.contains(score)) {
            block(&mut text, variable, &score);
        }
    }
    text
}

/// The scores that were taken, in the order of the table.
pub(crate) fn scores(variable: &VariableReport) -> Vec<String> {
    let mut names: Vec<String> =
        ["mse", "rmse", "mae", "bias", "corr", "rel_l2", "ssim", "crps", "spread", "dispersion"]
            .map(String::from)
            .into();
    names.extend(variable.metrics.fss.iter().map(fss_name));
    for kind in ["brier", "csi", "pod", "far"] {
        names.extend(variable.metrics.thresholds.iter().map(|t| format!("{kind}_{t}")));
    }
    let taken = |name: &String| {
        variable
            .products
            .values()
            .flatten()
            .any(|lead| lead.get(name).is_some_and(|v| v.is_finite()))
    };
    names.retain(taken);
    names
}

fn block(text: &mut String, variable: &VariableReport, score: &str) {
    let products = variable.ordered();
    let served = products.first().copied().unwrap_or_default();
    let mut columns: Vec<String> = products.iter().map(|name| (*name).to_owned()).collect();
    let mut references = Vec::new();
    if ERRORS.contains(&score) {
        references =
            REFERENCES.into_iter().filter(|r| *r != served && products.contains(r)).collect();
        columns.extend(references.iter().map(|r| format!("vs {r}")));
    }
    let _ = write!(text, "\n{score:>10}");
    for column in &columns {
        let _ = write!(text, " {column:>14}");
    }
    let values = |get: &dyn Fn(&str) -> f64| {
        let mut cells: Vec<String> = products.iter().map(|p| number(get(p))).collect();
        cells.extend(references.iter().map(|r| percent(1.0 - get(served) / get(r))));
        cells
    };
    for lead in 1..=variable.leads() {
        line(text, &format!("+{lead}"), &values(&|p| variable.score(p, lead, score)));
    }
    line(text, &variable.mean_label(score), &values(&|p| variable.mean(p, score)));
    text.push('\n');
}

fn line(text: &mut String, label: &str, cells: &[String]) {
    let _ = write!(text, "\n{label:>10}");
    for cell in cells {
        let _ = write!(text, " {cell:>14}");
    }
}

/// Five significant digits, whatever the size.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "-".to_owned()
    } else if size != 0.0 && !(1e-3..1e6).contains(&size) {
        format!("{value:.4e}")
    } else {
        let digits = if size < 1.0 { 5 } else { 4 - (size.log10() as usize).min(4) };
        format!("{value:.digits$}")
    }
}

pub(crate) fn percent(skill: f64) -> String {
    if skill.is_finite() { format!("{:+.1} %", 100.0 * skill) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use physicnet_operators::scoring::{Key, Metrics, Sums};

    use super::*;

    #[test]
    fn models_stand_side_by_side_with_their_skill() {
        let metrics = Metrics { thresholds: vec![1.0], ..Metrics::default() };
        let mut totals = BTreeMap::new();
        for (product, error) in [("physicnet", 1.0), ("persistence", 2.0), ("advection", 4.0)] {
            for lead in 1..=2 {
                let field = [1.0, 2.0 + error * lead as f32];
                let key = Key { sensor: "a".into(), product: product.into(), lead, channel: 0 };
                totals.insert(key, Sums::of(&field, &[1.0, 2.0], 2, &metrics));
            }
        }
        let report = Report::new("abc", &totals, &[("rain".into(), "mm h-1".into(), metrics)]);
        let text = table(&report);
        let mse: Vec<&str> = text.lines().skip(3).take(4).collect();
        assert_eq!(
            mse,
            [
                "       mse      physicnet      advection    persistence vs persistence   vs advection",
                "        +1        0.50000         8.0000         2.0000        +75.0 %        +93.8 %",
                "        +2         2.0000         32.000         8.0000        +75.0 %        +93.8 %",
                "      mean         1.2500         20.000         5.0000        +75.0 %        +93.8 %",
            ]
        );
        let json = report.json();
        let product = &json["variables"][0]["products"]["physicnet"];
        assert_eq!(product["leads"][1]["mse"], 2.0);
        assert_eq!(product["leads"][1]["csi_1"], 1.0);
        assert_eq!(product["mean"]["mse"], 1.25);
        assert!(product["leads"][0]["ssim"].is_null());
        assert_eq!(json["sensors"][0], "a");
    }

    #[test]
    fn means_are_over_the_leads_that_all_have() {
        let metrics = Metrics::default();
        let mut totals = BTreeMap::new();
        for (product, leads) in [("physicnet", 1..=4), ("persistence", 1..=4), ("dis", 2..=3)] {
            for lead in leads {
                let field = [1.0, 2.0 + lead as f32];
                let key = Key { sensor: "a".into(), product: product.into(), lead, channel: 0 };
                totals.insert(key, Sums::of(&field, &[1.0, 2.0], 2, &metrics));
            }
        }
        let report = Report::new("abc", &totals, &[("u".into(), "K".into(), metrics)]);
        let variable = &report.variables[0];
        assert_eq!(variable.shared("mse"), [2, 3]);
        // (4 + 9) / 2 halves: alike for all, whoever forecasts further.
        for product in ["physicnet", "persistence", "dis"] {
            assert_eq!(variable.mean(product, "mse"), 3.25);
            assert_eq!(report.json()["variables"][0]["products"][product]["mean"]["mse"], 3.25);
        }
        assert_eq!(variable.mean("physicnet", "pairs"), 4.0);
        assert!(table(&report).contains("\n  mean 2-3 "), "{}", table(&report));
        assert_eq!(variable.mean_label("pairs"), "mean");
    }

    #[test]
    fn numbers_of_any_size_fit() {
        let shown = [0.0, 1.0, 123.456, 54_321.9, 1e-9, -2.5e8, f64::NAN].map(number);
        assert_eq!(shown, ["0.00000", "1.0000", "123.46", "54322", "1.0000e-9", "-2.5000e8", "-"]);
    }
}
