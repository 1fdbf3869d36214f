//! `curves.png`: what `metrics.csv` says, drawn.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};

use crate::render::{AxisOf, Chart, Curve, plot};

/// The most points of a curve: of more, means over as many spans are drawn.
const POINTS: usize = 250;
const VALIDATION: &str = "validation_mae_";

/// Draws the metrics in `out`: the loss, the validation's absolute errors and the learning rate
/// by step.
///
/// # Errors
/// When the metrics cannot be read, or the picture cannot be written.
pub(super) fn draw(out: &Path) -> Result<()> {
    let path = out.join("metrics.csv");
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut series = BTreeMap::<String, Vec<(f64, f64)>>::new();
    for row in BufReader::new(file).lines() {
        let row = row.with_context(|| path.display().to_string())?;
        let mut fields = row.split(',');
        let (step, part, value) = (fields.next(), fields.nth(1), fields.next());
        let (Some(Ok(step)), Some(part), Some(Ok(value))) =
            (step.map(str::parse), part, value.map(str::parse))
        else {
            continue;
        };
        if part == "loss" || part == "learning_rate" || part.starts_with(VALIDATION) {
            series.entry(part.to_owned()).or_default().push((step, value));
        }
    }
    let last = series.values().flatten().fold(1.0, |last: f64, (step, _)| last.max(*step));
    let chart = |label: &str, named: &dyn Fn(&str) -> Option<String>| {
        let curve = |(part, points): (&String, &Vec<(f64, f64)>)| {
            Some(Curve { name: named(part)?, points: thinned(points) })
        };
        let curves: Vec<Curve> = series.iter().filter_map(curve).collect();
        let values = curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value);
        let y = AxisOf::holding(label, values);
        Chart { x: AxisOf::linear("step", 0.0, last), y, curves, marked: None }
    };
    let is = |wanted: &'static str| move |part: &str| (part == wanted).then(String::new);
    let mut charts = vec![chart("loss", &is("loss"))];
    let validation = chart("validation: mean absolute error, transformed units", &|part| {
        part.strip_prefix(VALIDATION).map(str::to_owned)
    });
    if !validation.curves.is_empty() {
        charts.push(validation);
    }
    let rate = chart("learning rate", &is("learning_rate"));
    let values = rate.curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value);
    // From 0, where it ends.
    let peak = values.fold(0.0, f64::max);
    charts.push(Chart { y: AxisOf::linear("learning rate", 0.0, 1.05 * peak.max(1e-12)), ..rate });
    plot(&out.display().to_string(), &charts).save(&out.join("curves.png"))
}

/// The means of as many spans of equal length.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |span: &[(f64, f64)]| {
        let sum = span.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / span.len() as f64, sum.1 / span.len() as f64)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}
