//! The best and the worst forecasts: what was seen, what came, what was said.

use std::fmt::Write;

use anyhow::Result;
use physicnet_stream::format_time;

use super::figure::{Lie, arrows, bar, codes, field};
use super::words::{escape, lead, lead_unit, short, squared, unit};
use crate::evaluate::{VariableReport, number};
use crate::render::{Shade, resized};
use crate::study::{About, CHANNELS, Case, Cases, Findings};

/// Columns of the past, and of the leads.
const HALF: usize = 3;

pub(super) fn section(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    findings: &Findings,
) -> Result<String> {
    let Some(cases) = findings.cases.get(channel) else {
        return Ok(format!("<p>Cases are shown of the first {CHANNELS} variables.</p>"));
    };
    let mut text = String::new();
    for (title, case) in titled(cases) {
        text += &one(&title, case, variable, about)?;
    }
    if text.is_empty() {
        text = "<p>No forecast was verified beside persistence.</p>".to_owned();
    }
    Ok(text)
}

/// Each case once, by what it is: of few forecasts the best may be among the worst, too.
fn titled(cases: &Cases) -> Vec<(String, &Case)> {
    let mut all: Vec<(String, &Case)> = Vec::new();
    for (kind, cases) in [("Best", &cases.best), ("Worst", &cases.worst)] {
        for (i, case) in cases.iter().enumerate() {
            let title =
                if cases.len() > 1 { format!("{kind}, {}", i + 1) } else { kind.to_owned() };
            let same = |other: &Case| {
                (&other.sensor, other.reference_time) == (&case.sensor, case.reference_time)
            };
            match all.iter_mut().find(|(_, known)| same(known)) {
                Some((known, _)) => *known = format!("{known}; {}", title.to_lowercase()),
                None => all.push((title, case)),
            }
        }
    }
    all
}

fn one(title: &str, case: &Case, variable: &VariableReport, about: &About) -> Result<String> {
    let fields = &case.fields;
    let [_, width] = fields.shape;
    let sensor = about.sensors.iter().find(|sensor| sensor.id == case.sensor);
    let Some(lie) = sensor.map(|sensor| Lie::of(&sensor.grid)) else { return Ok(String::new()) };
    let planes = fields.past.iter().map(|(_, plane)| plane);
    let planes = planes.chain(fields.leads.iter().flat_map(|(_, came, said)| [came, said]));
    let shade = Shade::suiting(&variable.units, planes.map(Vec::as_slice));
    let errors: Vec<Vec<f32>> = fields
        .leads
        .iter()
        .map(|(_, came, said)| said.iter().zip(came).map(|(p, o)| p - o).collect())
        .collect();
    let off = Shade::around_zero(errors.iter().map(Vec::as_slice));
    let (unit_of_lead, each) = lead_unit(about);

    let figure = |caption: &str, inside: String| {
        format!("<figure><figcaption>{caption}</figcaption>{inside}</figure>")
    };
    let nothing = || "<div class=\"nothing\"></div>".to_owned();
    let image = |caption: &str, plane: &[f32], shade: Shade| {
        Ok::<_, anyhow::Error>(figure(caption, field(caption, plane, width, shade, lie)?))
    };
    let filled = |mut cells: Vec<String>, front: bool| {
        while cells.len() < HALF {
            cells.insert(if front { 0 } else { cells.len() }, nothing());
        }
        cells.concat()
    };
    let past = fields.past.iter().map(|(back, plane)| {
        let when = match back {
            0 => "past, now".to_owned(),
            back => format!("past, −{} {unit_of_lead}", short(*back as f64 * each)),
        };
        image(&when, plane, shade)
    });
    let mut grid = filled(past.collect::<Result<_>>()?, true);
    let came = fields
        .leads
        .iter()
        .map(|(at, came, _)| image(&format!("truth, {}", lead(about, *at)), came, shade));
    grid += &filled(came.collect::<Result<_>>()?, false);
    let mut below = String::new();
    if let (Some((shape, dx, dy)), Some((_, now))) = (&fields.motion, fields.past.last()) {
        let under = field("The newest frame", now, width, shade, lie)?;
        let there = resized(now, width, [shape[1], shape[0]]);
        let over = arrows(*shape, [dx, dy], &there, lie);
        below += &figure("motion", format!("<div class=\"over\">{under}{over}</div>"));
    }
    if let Some((shape, map)) = &fields.codes {
        below += &figure("code map", codes("Code map of the newest frame", map, *shape, lie)?);
    }
    let _ = write!(grid, "<div class=\"below\">{below}</div>");
    let said = fields
        .leads
        .iter()
        .map(|(at, _, said)| image(&format!("forecast, {}", lead(about, *at)), said, shade));
    grid += &filled(said.collect::<Result<_>>()?, false);
    let wrong = fields.leads.iter().zip(&errors);
    let wrong = wrong.map(|((at, ..), e)| image(&format!("error, {}", lead(about, *at)), e, off));
    grid += &filled(wrong.collect::<Result<_>>()?, false);

    let mut text = format!(
        "<section class=\"case\"><h4>{title}: {}, {}</h4><p>Mean squared error over all leads {}{}; \
         persistence {}.</p>",
        escape(case.sensor.as_str()),
        format_time(case.reference_time),
        number(case.loss),
        squared(&variable.units),
        number(case.reference),
    );
    let units = unit(&variable.units);
    let units = units.trim_start_matches(", ");
    let _ = write!(text, "<div class=\"strip\">{grid}</div>");
    let _ = write!(
        text,
        "<div class=\"scales\">{}{}</div></section>",
        bar(shade, units),
        bar(off, &format!("{units} (error)"))
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use physicnet_stream::Cadence;

    use super::*;

    #[test]
    fn a_case_that_is_best_and_worst_is_shown_once() {
        let case = |at: i64| Case {
            sensor: "a".into(),
            reference_time: at,
            cadence: Cadence::new(10).unwrap(),
            loss: 1.0,
            reference: 2.0,
            fields: Arc::default(),
        };
        let titles = |best: &[i64], worst: &[i64]| -> Vec<(String, i64)> {
            let [best, worst] = [best, worst].map(|all| all.iter().copied().map(case).collect());
            let cases = Cases { best, worst };
            titled(&cases)
                .iter()
                .map(|(title, case)| (title.clone(), case.reference_time))
                .collect()
        };
        assert_eq!(titles(&[7], &[7]), [("Best; worst".to_owned(), 7)]);
        assert_eq!(
            titles(&[1, 2], &[2, 3]),
            [
                ("Best, 1".to_owned(), 1),
                ("Best, 2; worst, 1".to_owned(), 2),
                ("Worst, 2".to_owned(), 3)
            ]
        );
    }
}
