//! The fractions skill score by scale and threshold.

use std::fmt::Write;

use physicnet_operators::scoring::Fss;

use super::chart::{AxisOf, Chart, Line, Scale};
use super::words::{Products, class, escape, lead, of_unit, short, spacing};
use crate::evaluate::{VariableReport, fss_name, number};
use crate::study::{About, OnGrid};

/// The scales that were taken at a threshold, rising.
fn scales(variable: &VariableReport, threshold: f64) -> Vec<usize> {
    let all = variable.metrics.fss.iter();
    let mut scales: Vec<usize> =
        all.filter(|fss| fss.threshold == threshold).map(|fss| fss.scale).collect();
    scales.sort_unstable();
    scales
}

fn thresholds(variable: &VariableReport) -> Vec<f64> {
    let mut all: Vec<f64> = variable.metrics.fss.iter().map(|fss| fss.threshold).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

pub(super) fn section(variable: &VariableReport, about: &About, on: Option<&OnGrid>) -> String {
    let thresholds = thresholds(variable);
    if thresholds.is_empty() {
        return "<p>No thresholds were scored; name some with <code>--thresholds</code>.</p>"
            .to_owned();
    }
    let shown = Products::of(variable).shown;
    let pixel = on.and_then(|on| spacing(&on.grid.x));
    let label = match pixel {
        Some((size, unit)) => format!("side of the window, {unit} ({} a pixel)", short(size)),
        None => "side of the window, pixels".to_owned(),
    };
    let size = pixel.map_or(1.0, |(size, _)| size);
    let mut text = "<div class=\"charts\">".to_owned();
    for &threshold in &thresholds {
        for at in about.leads() {
            let scales = scales(variable, threshold);
            let value = |product: &str, scale: usize| {
                variable.score(product, at, &fss_name(&Fss { threshold, scale }))
            };
            let lines = shown.iter().map(|name| Line {
                name: (*name).to_owned(),
                class: class(name, &shown),
                points: scales.iter().map(|&s| (s as f64 * size, value(name, s))).collect(),
                margins: Vec::new(),
            });
            let ticks = scales.iter().filter(|scale| scale.is_power_of_two());
            let ticks = ticks.map(|&s| (s as f64 * size, short(s as f64 * size)));
            let (from, to) = (scales.first().copied(), scales.last().copied());
            let end = |scale: Option<usize>| scale.unwrap_or(1) as f64 * size;
            text += &Chart {
                title: format!(
                    "At or above {threshold}{}, {}",
                    of_unit(&variable.units),
                    lead(about, at)
                ),
                x: AxisOf {
                    label: label.clone(),
                    scale: Scale::Log,
                    from: end(from),
                    to: end(to).max(end(from) * 1.01),
                    ticks: ticks.collect(),
                },
                y: AxisOf::linear("FSS", 0.0, 1.0),
                lines: lines.collect(),
                zero: Some(0.5),
                marked: true,
            }
            .figure();
        }
    }
    text += "</div>";
    text + &table(variable, about, &thresholds)
}

fn table(variable: &VariableReport, about: &About, thresholds: &[f64]) -> String {
    let mut text = "<details><summary>FSS as numbers, every lead</summary>".to_owned();
    for &threshold in thresholds {
        let scales = scales(variable, threshold);
        let _ = write!(
            text,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"FSS at {threshold}\">\
             <table><caption>At or above {threshold}{}, by side of the window in pixels</caption>\
             <thead><tr><th scope=\"col\">product, lead</th>",
            of_unit(&variable.units)
        );
        for scale in &scales {
            let _ = write!(text, "<th scope=\"col\">{scale}</th>");
        }
        text += "</tr></thead><tbody>";
        for product in variable.ordered() {
            for at in 1..=variable.leads() {
                let _ = write!(
                    text,
                    "<tr data-fss=\"{threshold}\" data-product=\"{0}\" data-lead=\"{at}\">\
                     <th scope=\"row\">{0}, {1}</th>",
                    escape(product),
                    lead(about, at)
                );
                for &scale in &scales {
                    let score = fss_name(&Fss { threshold, scale });
                    let _ =
                        write!(text, "<td>{}</td>", number(variable.score(product, at, &score)));
                }
                text += "</tr>";
            }
        }
        text += "</tbody></table></div>";
    }
    text + "</details>"
}
