//! What ensembles are worth: CRPS, spread beside error, rank histograms, reliability.

use std::fmt::Write;

use physicnet_operators::scoring::{EnsembleSums, Reliability};

use super::chart::{AxisOf, Chart, Line};
use super::histogram::histogram;
use super::skill::{chart, leads_axis};
use super::words::{Products, class, escape, lead, lead_unit, of_unit, unit};
use crate::evaluate::{VariableReport, number};
use crate::study::About;

/// Points of the reliability diagram of fewer pixels than this share of all are not drawn: they say
/// little.
const RARE: f64 = 1e-5;

pub(super) fn section(variable: &VariableReport, about: &About) -> String {
    let shown = Products::of(variable).shown;
    let mut text = "<div class=\"charts\">".to_owned();
    text += &chart(
        variable,
        about,
        &shown,
        ("CRPS: lower is better".to_owned(), format!("CRPS{}", unit(&variable.units))),
        &|product, lead| variable.score(product, lead, "crps"),
        (Some(0.0), None),
    );
    for (name, sums) in &variable.ensembles {
        text += &spread(variable, about, name, sums);
    }
    for (name, sums) in &variable.ensembles {
        for at in about.leads() {
            let of_lead = sums.get(at - 1).filter(|sums| sums.ranks().iter().any(|n| *n > 0));
            let title = format!("Ranks at {}, {name}: flat is right", lead(about, at));
            let class = class(name, &shown);
            text += &of_lead.map_or(String::new(), |s| histogram(&title, &class, s.ranks()));
        }
    }
    for (place, threshold) in variable.metrics.thresholds.iter().enumerate() {
        for at in about.leads() {
            let above = format!("{threshold}{}", of_unit(&variable.units));
            let title = format!("Above {above} at {}: the diagonal is right", lead(about, at));
            text += &reliability(variable, &shown, title, place, at);
        }
    }
    text + "</div>" + &tables(variable, about)
}

/// The spread of an ensemble beside the error of its mean.
fn spread(variable: &VariableReport, about: &About, name: &str, sums: &[EnsembleSums]) -> String {
    let (unit_of_leads, each) = lead_unit(about);
    let line = |called: &str, class: &str, value: &dyn Fn(&EnsembleSums) -> f64| Line {
        name: called.to_owned(),
        class: class.to_owned(),
        points: (1..).zip(sums).map(|(at, s)| (f64::from(at) * each, value(s))).collect(),
        margins: Vec::new(),
    };
    let lines = vec![
        line("spread", "p-physicnet", &EnsembleSums::spread),
        line("error", "p-truth", &EnsembleSums::rmse),
    ];
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let most = values.filter(|value| value.is_finite()).fold(0.0_f64, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    Chart {
        title: format!("Spread of {name} and error of its mean: level is right"),
        x: leads_axis(unit_of_leads, each, sums.len()),
        y: AxisOf::linear(format!("RMS{}", unit(&variable.units)), 0.0, 1.05 * most),
        lines,
        zero: None,
        marked: sums.len() <= 24,
    }
    .figure()
}

fn reliability(
    variable: &VariableReport,
    shown: &[&str],
    title: String,
    place: usize,
    at: usize,
) -> String {
    let lines = variable.ensembles.iter().filter_map(|(name, sums)| {
        let sums = sums.get(at - 1)?;
        let rare = RARE * sums.scored as f64;
        let often = |point: &Reliability| point.count as f64 >= rare;
        let points = sums.reliability(place).into_iter().filter(often);
        let points: Vec<(f64, f64)> = points.map(|p| (p.forecast, p.observed)).collect();
        (points.len() > 1).then(|| Line {
            name: name.clone(),
            class: class(name, shown),
            points,
            margins: Vec::new(),
        })
    });
    let mut lines: Vec<Line> = lines.collect();
    if lines.is_empty() {
        return String::new();
    }
    lines.push(Line {
        name: "perfect".to_owned(),
        class: "p-truth".to_owned(),
        points: vec![(0.0, 0.0), (1.0, 1.0)],
        margins: Vec::new(),
    });
    Chart {
        title,
        x: AxisOf::linear("share of members", 0.0, 1.0),
        y: AxisOf::linear("share of the time", 0.0, 1.0),
        lines,
        zero: None,
        marked: true,
    }
    .figure()
}

/// Ranks and reliability as numbers.
fn tables(variable: &VariableReport, about: &About) -> String {
    let mut text =
        "<details><summary>Ranks and reliability as numbers, every lead</summary>".to_owned();
    for (name, sums) in &variable.ensembles {
        let members = sums.iter().map(EnsembleSums::members).max().unwrap_or(0);
        let name = escape(name);
        text += &opened(
            &format!("{name}, {members} members: how often so many lay below what came"),
            "lead",
            0..=members,
        );
        for (at, of_lead) in (1..).zip(sums) {
            let _ = write!(
                text,
                "<tr data-ranks=\"{name}\" data-lead=\"{at}\"><th scope=\"row\">{}</th>",
                lead(about, at)
            );
            for count in of_lead.ranks() {
                let _ = write!(text, "<td>{count}</td>");
            }
            text += "</tr>";
        }
        text += "</tbody></table></div>";
        for (place, threshold) in variable.metrics.thresholds.iter().enumerate() {
            let above = format!("{threshold}{}", of_unit(&variable.units));
            text += &opened(
                &format!(
                    "{name}: how often it came above {above}, by how many members said so (pixels)"
                ),
                "lead",
                0..=members,
            );
            for (at, of_lead) in (1..).zip(sums) {
                let _ = write!(text, "<tr><th scope=\"row\">{}</th>", lead(about, at));
                let points = of_lead.reliability(place);
                for k in 0..=members {
                    let share = k as f64 / members as f64;
                    let cell = points.iter().find(|point| point.forecast == share);
                    let cell = cell.map_or("–".to_owned(), |point| {
                        format!("{} ({})", number(point.observed), point.count)
                    });
                    let _ = write!(text, "<td>{cell}</td>");
                }
                text += "</tr>";
            }
            text += "</tbody></table></div>";
        }
    }
    text + "</details>"
}

/// A table up to its rows.
fn opened(caption: &str, first: &str, columns: impl Iterator<Item = usize>) -> String {
    let mut text = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table>\
         <caption>{caption}</caption><thead><tr><th scope=\"col\">{first}</th>"
    );
    for column in columns {
        let _ = write!(text, "<th scope=\"col\">{column}</th>");
    }
    text + "</tr></thead><tbody>"
}
