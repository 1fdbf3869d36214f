//! Maps of error and bias.

use std::fmt::Write;

use anyhow::Result;
use physicnet_stream::Axis;

use super::figure::{Lie, bar, field};
use super::words::{escape, lead, short, unit};
use crate::evaluate::VariableReport;
use crate::render::Shade;
use crate::study::{About, CHANNELS, Findings, MAPPED, OnGrid};

pub(super) fn section(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    findings: &Findings,
    on: Option<&OnGrid>,
) -> Result<String> {
    let found = on.and_then(|on| Some((on, on.errors.get(channel)?)));
    let Some((on, errors)) = found else {
        return Ok(format!("<p>Maps are drawn of the first {CHANNELS} variables.</p>"));
    };
    let served = variable.ordered().first().copied().unwrap_or_default();
    let width = errors.shape[1];
    let lie = Lie::of(&on.grid);
    let leads: Vec<usize> =
        about.leads().into_iter().filter(|at| !errors.mse(*at, served).is_empty()).collect();
    let row = |title: &str, shade: Shade, label: &str, of: &dyn Fn(usize) -> Vec<f32>| {
        let mut text = format!("<h4>{title}</h4><div class=\"maps\">");
        for &at in &leads {
            let name = lead(about, at);
            let alt = format!("Map: {title}, {name}");
            let image = field(&alt, &of(at), width, shade, lie)?;
            let _ = write!(text, "<figure><figcaption>{name}</figcaption>{image}</figure>");
        }
        Ok::<_, anyhow::Error>(text + "</div>" + &bar(shade, label))
    };
    let units = unit(&variable.units);
    let units = units.trim_start_matches(", ");
    let name = escape(served);
    let all = |of: &dyn Fn(usize) -> Vec<f32>| leads.iter().map(|at| of(*at)).collect::<Vec<_>>();

    let rmse = |at: usize| errors.rmse(at, served);
    let fields = all(&rmse);
    let Shade::Diverging(most) = Shade::around_zero(fields.iter().map(Vec::as_slice)) else {
        return Ok(String::new());
    };
    let title = format!("Root mean squared error of {name}");
    let mut text = row(&title, Shade::Linear(0.0, most), units, &rmse)?;

    let bias = |at: usize| errors.bias(at, served);
    let fields = all(&bias);
    let shade = Shade::around_zero(fields.iter().map(Vec::as_slice));
    text += &row(&format!("Bias of {name}: forecast minus observation"), shade, units, &bias)?;

    // Against the first baseline that is another forecast.
    let another = |baseline: &&&str| {
        leads.iter().any(|at| {
            let (own, other) = (errors.mse(*at, served), errors.mse(*at, baseline));
            own.iter().zip(&other).any(|(a, b)| (a - b).abs() > 0.0)
        })
    };
    if let Some(baseline) = MAPPED.iter().find(another) {
        let gain = |at: usize| -> Vec<f32> {
            let other = errors.mse(at, baseline);
            let own = errors.mse(at, served);
            // Where both are exact there is nothing to gain.
            let share = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { 100.0 * (1.0 - a / b) };
            own.iter().zip(&other).map(share).map(|share| share.clamp(-100.0, 100.0)).collect()
        };
        let title = format!("Gain of {name} over {baseline}: where it is red {name} is better");
        text += &row(&title, Shade::Diverging(100.0), "% less squared error", &gain)?;
    }
    let span = |axis: &Axis| match axis.values[..] {
        [first, .., last] => {
            let (name, units) = (escape(&axis.name), unit(&axis.units));
            format!("{name} from {} to {}{units}", short(first), short(last))
        }
        _ => escape(&axis.name),
    };
    let [_, height, columns] = on.grid.shape();
    let _ = write!(
        text,
        "<p class=\"quiet\">{} x {columns} pixels, {}, {}{}. Hatched: never verified.{}</p>",
        height,
        span(&on.grid.x),
        span(&on.grid.y),
        if errors.shape == [height, columns] {
            String::new()
        } else {
            format!("; averaged to {} x {width} places", errors.shape[0])
        },
        if findings.grids.len() > 1 {
            format!(
                " {} of {} forecasts lie on this grid; the others are in no map and no spectrum.",
                on.forecasts, findings.forecasts
            )
        } else {
            String::new()
        }
    );
    Ok(text)
}
