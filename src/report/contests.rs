//! Whether the served forecast is better than each other product, and how sure that is.

use std::fmt::Write;

use super::chart::{AxisOf, Chart, Line};
use super::skill::leads_axis;
use super::words::{Products, class, escape, lead, lead_unit, squared};
use crate::evaluate::{VariableReport, number};
use crate::study::{About, FEWEST, Findings, Verdict};

/// Below this a difference is called significant.
pub(super) const LEVEL: f64 = 0.05;

/// The verdicts on the served product against another one, by lead.
pub(super) fn verdicts(
    findings: &Findings,
    about: &About,
    channel: usize,
    product: &str,
) -> Vec<(usize, Verdict)> {
    let of = |lead: usize| {
        let contest = findings.contests.get(&(channel, product.into(), lead))?;
        // Errors of a lead of k cadences are correlated over k - 1 of them.
        Some((lead, contest.verdict((lead - 1).div_ceil(about.stride as usize))))
    };
    (1..=about.horizon).filter_map(of).collect()
}

/// The products that the served one can differ from.
pub(super) fn opponents(variable: &VariableReport) -> Vec<&str> {
    Products::of(variable).shown.into_iter().skip(1).collect()
}

/// What the tests come to, in words: at how many leads the difference is significant, or that none
/// was tested.
pub(super) fn outcome(verdicts: &[(usize, Verdict)]) -> String {
    let tested: Vec<_> = verdicts.iter().filter(|(_, v)| v.count >= FEWEST).collect();
    if tested.is_empty() {
        let most = verdicts.iter().map(|(_, v)| v.count).max().unwrap_or(0);
        return format!("not tested: {most} of the {FEWEST} forecasts that a test takes");
    }
    let sure = |better: bool| {
        let counts = |(_, v): &&&(usize, Verdict)| v.p < LEVEL && (v.difference < 0.0) == better;
        tested.iter().filter(counts).count()
    };
    let untested = match verdicts.len() - tested.len() {
        0 => String::new(),
        few => format!("; {few} more have too few forecasts to test"),
    };
    let (better, worse, leads) = (sure(true), sure(false), tested.len());
    format!(
        "significantly better at {better}, worse at {worse} of {leads} leads (p &lt; {LEVEL}){untested}"
    )
}

pub(super) fn section(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    findings: &Findings,
) -> String {
    let served = variable.ordered().first().copied().unwrap_or_default();
    let opponents = opponents(variable);
    let all: Vec<_> = opponents
        .iter()
        .map(|name| (*name, verdicts(findings, about, channel, name)))
        .filter(|(_, verdicts)| !verdicts.is_empty())
        .collect();
    if all.is_empty() {
        return "<p>There is no other forecast to hold it against.</p>".to_owned();
    }
    let (unit, each) = lead_unit(about);
    let lines: Vec<Line> = all
        .iter()
        .map(|(name, verdicts)| {
            let share = |v: &Verdict, part: f64| 100.0 * part / v.theirs;
            Line {
                name: (*name).to_owned(),
                class: class(name, &opponents),
                points: verdicts
                    .iter()
                    .map(|(lead, v)| (*lead as f64 * each, share(v, v.difference)))
                    .collect(),
                margins: verdicts.iter().map(|(_, v)| share(v, v.margin).abs()).collect(),
            }
        })
        .collect();
    let mut text = "<div class=\"charts wide\">".to_owned();
    for line in lines {
        let edges = line.points.iter().zip(&line.margins).flat_map(|((_, value), margin)| {
            let margin = if margin.is_finite() { *margin } else { 0.0 };
            [value - margin, value + margin]
        });
        let (low, high) = edges
            .filter(|edge| edge.is_finite())
            .fold((0.0_f64, 0.0_f64), |(low, high), edge| (low.min(edge), high.max(edge)));
        let untested =
            if line.margins.iter().any(|margin| margin.is_finite()) { "" } else { " (not tested)" };
        let air = 0.05 * (high - low).max(1e-9);
        text += &Chart {
            title: format!("Against {}: below 0 {served} is better{untested}", line.name),
            x: leads_axis(unit, each, about.horizon),
            y: AxisOf::linear("squared error, %", (low - air).max(-110.0), (high + air).min(200.0)),
            lines: vec![line],
            zero: Some(0.0),
            marked: about.horizon <= 24,
        }
        .figure();
    }
    text += "</div>";
    for (name, verdicts) in &all {
        let _ = write!(text, "<p>Against <b>{}</b>: {}.</p>", escape(name), outcome(verdicts));
    }
    text + &table(variable, about, &all)
}

fn table(
    variable: &VariableReport,
    about: &About,
    all: &[(&str, Vec<(usize, Verdict)>)],
) -> String {
    let units = squared(&variable.units);
    let mut text = format!(
        "<details><summary>The tests as numbers</summary><div class=\"scroll\" tabindex=\"0\" \
         role=\"region\" aria-label=\"Tests\"><table><caption>Mean loss of each forecast: its mean \
         squared error{units}</caption><thead><tr><th scope=\"col\">against, lead</th>"
    );
    for head in ["forecasts", "ours", "theirs", "difference", "± 95 %", "statistic", "p", "lags"] {
        let _ = write!(text, "<th scope=\"col\">{head}</th>");
    }
    text += "</tr></thead><tbody>";
    for (name, verdicts) in all {
        for (at, v) in verdicts {
            let p = if v.p < 1e-4 { "&lt; 0.0001".to_owned() } else { number(v.p) };
            let _ = write!(
                text,
                "<tr><th scope=\"row\">{}, {}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td><td>{}</td><td>{p}</td><td>{}</td></tr>",
                escape(name),
                lead(about, *at),
                v.count,
                number(v.ours),
                number(v.theirs),
                number(v.difference),
                number(v.margin),
                number(v.statistic),
                v.bandwidth
            );
        }
    }
    text + "</tbody></table></div></details>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_forecasts_are_said_to_be_too_few() {
        let verdict = |count, p| Verdict {
            count,
            ours: 1.0,
            theirs: 2.0,
            difference: -1.0,
            margin: f64::NAN,
            statistic: f64::NAN,
            p,
            bandwidth: 1,
        };
        let told = outcome(&[(1, verdict(9, f64::NAN)), (2, verdict(8, f64::NAN))]);
        assert!(told.contains("not tested: 9 of the 10") && !told.contains("better"), "{told}");
        let told = outcome(&[(1, verdict(10, 0.01)), (2, verdict(9, f64::NAN))]);
        assert!(told.contains("better at 1, worse at 0 of 1 leads"), "{told}");
        assert!(told.contains("; 1 more have too few"), "{told}");
        let told = outcome(&[(1, verdict(30, 0.01)), (2, verdict(30, 0.5))]);
        assert!(told.ends_with("better at 1, worse at 0 of 2 leads (p &lt; 0.05)"), "{told}");
    }
}
