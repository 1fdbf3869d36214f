//! The codebook: what each code looks like, where and when it is used.

use std::fmt::Write;

use anyhow::Result;
use physicnet_stream::format_time;

use super::figure::{Lie, bar, field};
use super::words::{escape, unit};
use crate::evaluate::Report;
use crate::render::{Shade, named};
use crate::study::{About, Atlas, CONTEXT, Findings};

/// Codes that are shown, the most used ones.
const SHOWN: usize = 48;

pub(super) fn section(report: &Report, about: &About, findings: &Findings) -> Result<String> {
    let Some(atlas) = findings.atlas.as_ref().filter(|atlas| atlas.total > 0) else {
        return Ok("<p>The model has no codebook.</p>".to_owned());
    };
    let used = atlas.used();
    let shown = &used[..used.len().min(SHOWN)];
    let of = |codes: &[usize]| codes.iter().map(|code| atlas.codes[*code].count).sum::<u64>();
    let mut text = format!(
        "<p>{} of {} codes are used, as various as {:.1} that are used alike (perplexity). The {} \
         shown here name {:.1} % of {} cells of {} x {} pixels.</p>",
        used.len(),
        atlas.codes.len(),
        atlas.perplexity(),
        shown.len(),
        100.0 * of(shown) as f64 / atlas.total as f64,
        atlas.total,
        atlas.cell,
        atlas.cell
    );
    let (units, variable) =
        report.variables.first().map(|v| (v.units.as_str(), v.name.as_str())).unwrap_or_default();
    let patches: Vec<Vec<f32>> = shown.iter().map(|code| patch(atlas, about, *code)).collect();
    let shade = Shade::suiting(units, patches.iter().map(Vec::as_slice));
    let side = CONTEXT * atlas.cell;
    let places: Vec<Vec<f32>> = shown.iter().map(|code| atlas.places(*code)).collect();
    let lie = about.sensors.first().map(|sensor| Lie::of(&sensor.grid));
    let Some(lie) = lie else { return Ok(text) };
    text += "<ul class=\"atlas\">";
    for ((code, patch), places) in shown.iter().zip(&patches).zip(&places) {
        let [r, g, b] = named(*code as u32);
        let share = 100.0 * atlas.codes[*code].count as f64 / atlas.total as f64;
        let most = places.iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max);
        let local = Shade::Linear(0.0, most.max(f32::MIN_POSITIVE));
        let _ = write!(
            text,
            "<li><p><i class=\"swatch\" style=\"background:rgb({r} {g} {b})\"></i><b>{code}</b> \
             {share:.1} %</p><div>{}{}</div>{}</li>",
            field(&format!("Mean patch of code {code}"), patch, side, shade, lie)?,
            field(&format!("Where code {code} is used"), places, atlas.shape[1], local, lie)?,
            spark(atlas, *code)
        );
    }
    text += "</ul>";
    text += &bar(shade, &format!("{} (mean patch: left)", unit(units).trim_start_matches(", ")));
    if let Some((begin, end)) = atlas.timeline.span() {
        let _ = write!(
            text,
            "<p class=\"quiet\">Left the mean of {} around the cells of a code, {side} pixels along a \
             side, the cell itself in the middle (averaged as the network sees it, then in units); \
             right where it is used, each map on its own scale; below it its share of all cells from \
             {} to {}.</p>",
            escape(variable),
            format_time(begin),
            format_time(end)
        );
    }
    Ok(text)
}

/// The mean patch of the first variable, in its units.
fn patch(atlas: &Atlas, about: &About, code: usize) -> Vec<f32> {
    let mut patch = atlas.patch(code, 0);
    if let Some(transform) = about.transforms.first() {
        patch.iter_mut().for_each(|value| *value = transform.inverse(*value));
    }
    patch
}

/// The share of a code over time.
fn spark(atlas: &Atlas, code: usize) -> String {
    let bins = atlas.timeline.of(code);
    let share = |(used, all): &(u64, u64)| *used as f64 / (*all).max(1) as f64;
    let most = bins.iter().map(share).fold(0.0, f64::max);
    let step = 96.0 / bins.len().max(1) as f64;
    let mut path = String::new();
    for (i, bin) in bins.iter().enumerate() {
        let height = 18.0 * share(bin) / most.max(f64::MIN_POSITIVE);
        let _ = write!(
            path,
            "M{:.1},20h{:.1}v{:.1}h-{:.1}z",
            i as f64 * step,
            step * 0.9,
            -height,
            step * 0.9
        );
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 96 20\" role=\"img\" aria-label=\"Use of code {code} over \
         time, at most {:.1} % of the cells\"><path d=\"{path}\"/></svg>",
        100.0 * most
    )
}
