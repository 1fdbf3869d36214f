//! Power spectra by lead: whether forecasts keep the fine scales.

use std::fmt::Write;

use super::chart::{AxisOf, Chart, Line, Scale};
use super::words::{Products, class, escape, lead, short, spacing, squared};
use crate::evaluate::{VariableReport, percent};
use crate::study::{About, OnGrid, wavelength};

/// Below this share of the variance, or of its largest element, the truth has nothing.
const FAINTEST: f64 = 1e-9;

pub(super) fn section(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    on: Option<&OnGrid>,
) -> String {
    let found = on.and_then(|on| Some((on, on.spectra.get(channel)?)));
    let Some((on, spectra)) = found.filter(|(_, spectra)| !spectra.leads().is_empty()) else {
        return "<p>No field was measured over at least half of its pixels.</p>".to_owned();
    };
    let [_, height, width] = on.grid.shape();
    let pixel = spacing(&on.grid.x).filter(|(x, unit)| {
        spacing(&on.grid.y).is_some_and(|(y, other)| other == *unit && (x / y - 1.0).abs() < 0.02)
    });
    let (size, unit) = pixel.unwrap_or((1.0, "pixels"));
    let length = |bin: usize| wavelength(bin, [height, width]) * size;
    let shown = Products::of(variable).shown;
    let mut text = "<div class=\"charts\">".to_owned();
    for at in spectra.leads() {
        let truth = spectra.observed(at);
        let most = truth.iter().copied().fold(0.0, f64::max);
        let least = truth.iter().copied().filter(|v| *v > most * FAINTEST).fold(most, f64::min);
        if most <= 0.0 {
            continue;
        }
        let bins = truth.len();
        let line = |name: &str, values: Vec<f64>| Line {
            name: name.to_owned(),
            class: class(name, &shown),
            points: values
                .iter()
                .enumerate()
                .filter(|(_, v)| **v > 0.0)
                .map(|(i, v)| (length(i + 1), *v))
                .collect(),
            margins: Vec::new(),
        };
        let mut lines: Vec<Line> =
            shown.iter().map(|name| line(name, spectra.product(at, name))).collect();
        lines.insert(0, line("truth", truth));
        let (longest, shortest) = (length(1), length(bins));
        let mut ticks = Vec::new();
        let mut tick = longest;
        while tick >= shortest * 0.99 {
            ticks.push((tick, short(tick)));
            tick /= if bins > 64 { 4.0 } else { 2.0 };
        }
        text += &Chart {
            title: format!("{}, {} fields", lead(about, at), spectra.pairs(at)),
            x: AxisOf {
                label: format!("wavelength, {unit}"),
                scale: Scale::Log,
                from: longest,
                to: shortest.min(longest * 0.99),
                ticks,
            },
            y: AxisOf::decades(format!("variance{}", squared(&variable.units)), 0.3 * least, most),
            lines,
            zero: None,
            marked: false,
        }
        .figure();
    }
    text += "</div>";
    text + &table(variable, about, on, channel, &length, unit)
}

/// The share of the truth's variance that each product has, by bands of an octave.
fn table(
    variable: &VariableReport,
    about: &About,
    on: &OnGrid,
    channel: usize,
    length: &dyn Fn(usize) -> f64,
    unit: &str,
) -> String {
    let spectra = &on.spectra[channel];
    let bins = spectra.leads().first().map_or(0, |lead| spectra.observed(*lead).len());
    // Elements 1, 2..3, 4..7, ...
    let bands: Vec<(usize, usize)> = (0..)
        .map(|octave| (1_usize << octave, ((2_usize << octave) - 1).min(bins)))
        .take_while(|(from, _)| *from <= bins)
        .collect();
    let mut text = format!(
        "<details open><summary>Variance beside the truth's, by wavelength</summary>\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Variance by wavelength\">\
         <table><caption>More (+) or less (-) variance than the truth has, by wavelength in {unit}\
         </caption><thead><tr><th scope=\"col\">product, lead</th>"
    );
    for (from, to) in &bands {
        let (long, least) = (short(length(*from)), short(length(*to)));
        let name = if from == to { long } else { format!("{long}–{least}") };
        let _ = write!(text, "<th scope=\"col\">{name}</th>");
    }
    text += "</tr></thead><tbody>";
    for product in Products::of(variable).shown {
        for at in spectra.leads() {
            let (truth, own) = (spectra.beside(at, product), spectra.product(at, product));
            if own.is_empty() {
                continue;
            }
            let _ =
                write!(text, "<tr><th scope=\"row\">{}, {}</th>", escape(product), lead(about, at));
            for &(from, to) in &bands {
                let sum = |all: &[f64]| all[from - 1..to].iter().sum::<f64>();
                // Beside nothing everything is much.
                let known = sum(&truth) > FAINTEST * truth.iter().sum::<f64>();
                let share = if known { sum(&own) / sum(&truth) - 1.0 } else { f64::NAN };
                let _ = write!(text, "<td>{}</td>", percent(share));
            }
            text += "</tr>";
        }
    }
    text + "</tbody></table></div></details>"
}
