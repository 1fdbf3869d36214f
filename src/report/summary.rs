//! What the page says first: whether the forecast is any good.

use std::fmt::Write;

use super::contests::{opponents, outcome, verdicts};
use super::words::escape;
use crate::evaluate::{VariableReport, percent};
use crate::study::{About, Findings, Verdict};

pub(super) fn cards(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    findings: &Findings,
) -> String {
    let mut text = "<div class=\"cards\">".to_owned();
    for name in opponents(variable) {
        let verdicts = verdicts(findings, about, channel, name);
        let _ = write!(text, "<article><h4>Against {}</h4>", escape(name));
        if verdicts.is_empty() {
            text += "<p class=\"big\">no common forecasts</p></article>";
            continue;
        }
        // Over what both forecast, or who makes the easy forecasts alone would look good.
        let sum = |loss: fn(&Verdict) -> f64| verdicts.iter().map(|(_, v)| loss(v)).sum::<f64>();
        let (ours, theirs) = (sum(|v| v.ours), sum(|v| v.theirs));
        let (class, word) = if ours < theirs { ("good", "below") } else { ("bad", "above") };
        let _ = write!(
            text,
            "<p class=\"big {class}\">{} {word}</p><p class=\"quiet\">in squared error of what both \
             forecast, mean over leads; {}</p></article>",
            percent(1.0 - ours / theirs).trim_start_matches(['+', '-']),
            outcome(&verdicts),
        );
    }
    text + "</div>"
}
