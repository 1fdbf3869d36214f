//! Scores by lead, products side by side.

use std::fmt::Write;

use super::chart::{AxisOf, Chart, Line};
use super::words::{Products, class, escape, lead, lead_unit, of_unit, squared, unit};
use crate::evaluate::{VariableReport, number, scores};
use crate::study::{About, Findings, REFERENCE};

/// Marks along the leads, at most.
const MARKS: usize = 7;

pub(super) fn section(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    findings: &Findings,
) -> String {
    let Products { shown, same, far } = Products::of(variable);
    let units = unit(&variable.units);
    let mut text = "<div class=\"charts\">".to_owned();
    let draw = |title: String, label: String, score: &str, low: Option<f64>, high: Option<f64>| {
        chart(
            variable,
            about,
            &shown,
            (title, label),
            &|p, l| variable.score(p, l, score),
            (low, high),
        )
    };
    text += &draw("Error: lower is better".into(), format!("RMSE{units}"), "rmse", Some(0.0), None);
    let gain = |product: &str, lead: usize| {
        let gain = findings.gains.get(&(channel, product.into(), lead));
        gain.map_or(f64::NAN, |gain| 100.0 * gain.share())
    };
    text += &chart(
        variable,
        about,
        &shown,
        (format!("Gain over {REFERENCE}: higher is better"), "squared error less, %".into()),
        &gain,
        (None, Some(100.0)),
    );
    text += &draw("Bias: nearer to 0 is better".into(), format!("bias{units}"), "bias", None, None);
    text += &draw(
        "Correlation: higher is better".into(),
        "correlation".into(),
        "corr",
        None,
        Some(1.0),
    );
    for threshold in &variable.metrics.thresholds {
        let title = format!("CSI above {threshold}{}: higher is better", of_unit(&variable.units));
        let score = format!("csi_{threshold}");
        text += &draw(title, "CSI".into(), &score, Some(0.0), Some(1.0));
    }
    text += "</div>";
    for (name, other) in same {
        let _ = write!(
            text,
            "<p class=\"quiet\">{} is {} in every number here, and is not drawn.</p>",
            escape(name),
            escape(other)
        );
    }
    for name in far {
        let _ = write!(
            text,
            "<p class=\"quiet\">{} is far off, and is in the table alone.</p>",
            escape(name)
        );
    }
    text + &tables(variable, about)
}

/// A score by lead as lines; what is bounded is drawn within its bounds.
pub(super) fn chart(
    variable: &VariableReport,
    about: &About,
    shown: &[&str],
    (title, label): (String, String),
    value: &dyn Fn(&str, usize) -> f64,
    (low, high): (Option<f64>, Option<f64>),
) -> String {
    let (unit, each) = lead_unit(about);
    let leads = variable.leads();
    let all = |products: &[&str]| -> Vec<f64> {
        let each = products.iter().flat_map(|p| (1..=leads).map(|lead| value(p, lead)));
        each.filter(|v| v.is_finite()).collect()
    };
    let values = all(shown);
    if values.is_empty() {
        return String::new();
    }
    let (least, most) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
    let air = 0.05 * (most - least).max(1e-12 * most.abs());
    let from = low.unwrap_or((least - air).max(-200.0));
    let to = high.map_or(most + air, |high| high.min(most + air));
    let points = |product: &str| -> Vec<(f64, f64)> {
        (1..=leads).map(|lead| (lead as f64 * each, value(product, lead))).collect()
    };
    let lines = shown.iter().map(|name| Line {
        name: (*name).to_owned(),
        class: class(name, shown),
        points: points(name),
        margins: Vec::new(),
    });
    Chart {
        title,
        x: leads_axis(unit, each, leads),
        y: AxisOf::linear(label, from, to),
        lines: lines.collect(),
        zero: Some(0.0),
        marked: leads <= 24,
    }
    .figure()
}

/// The axis of leads, with marks at some of them.
pub(super) fn leads_axis(unit: &str, each: f64, leads: usize) -> AxisOf {
    let step = leads.div_ceil(MARKS).max(1);
    let ticks = (1..=leads).filter(|lead| lead % step == 0 || leads <= MARKS);
    let ticks = ticks.map(|lead| lead as f64 * each);
    AxisOf {
        ticks: ticks.map(|at| (at, super::words::short(at))).collect(),
        ..AxisOf::linear(format!("lead, {unit}"), each, (leads as f64 * each).max(each * 1.001))
    }
}

/// All scores, exactly those of the table on the terminal and of the JSON.
fn tables(variable: &VariableReport, about: &About) -> String {
    let mut names = scores(variable);
    names.extend(variable.metrics.thresholds.iter().map(|t| format!("fbias_{t}")));
    names.retain(|name| !name.starts_with("fss_"));
    names.extend(["coverage".to_owned(), "pairs".to_owned()]);
    let mut text = "<details><summary>All scores as numbers</summary>".to_owned();
    for score in names {
        let _ = write!(
            text,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{score}\"><table>\
             <caption>{}</caption><thead><tr><th scope=\"col\">product</th>",
            meaning(&score, &variable.units)
        );
        for at in 1..=variable.leads() {
            let _ = write!(text, "<th scope=\"col\">{}</th>", lead(about, at));
        }
        let mean = variable.mean_label(&score);
        let _ = write!(text, "<th scope=\"col\">{mean}</th></tr></thead><tbody>");
        for product in variable.ordered() {
            let _ = write!(
                text,
                "<tr data-score=\"{score}\" data-product=\"{0}\"><th scope=\"row\">{0}</th>",
                escape(product)
            );
            for at in 1..=variable.leads() {
                let _ = write!(text, "<td>{}</td>", number(variable.score(product, at, &score)));
            }
            let _ = write!(text, "<td>{}</td></tr>", number(variable.mean(product, &score)));
        }
        text += "</tbody></table></div>";
    }
    text + "</details>"
}

/// A score in words.
fn meaning(score: &str, units: &str) -> String {
    let (kind, threshold) = score.split_once('_').unwrap_or((score, ""));
    let above = |what: &str| format!("{what} above {threshold}{}", of_unit(units));
    match kind {
        "mse" => format!("Mean squared error{}", squared(units)),
        "rmse" => format!("Root mean squared error{}", unit(units)),
        "mae" => format!("Mean absolute error{}", unit(units)),
        "bias" => format!("Mean error, forecast minus observation{}", unit(units)),
        "corr" => "Correlation over all pixels".to_owned(),
        "rel" => "Relative error in the 2-norm, mean over forecasts".to_owned(),
        "ssim" => "Structural similarity".to_owned(),
        "csi" => above("Critical success index"),
        "pod" => above("Probability of detection"),
        "far" => above("False alarm ratio"),
        "fbias" => above("Frequency bias"),
        "coverage" => "Share of observed pixels that had a forecast".to_owned(),
        "pairs" => "Verified fields (the last column: their sum)".to_owned(),
        other => other.to_owned(),
    }
}
