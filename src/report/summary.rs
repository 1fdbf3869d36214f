//! What the page says first: whether the forecast is any good.

use std::fmt::Write;

use super::contests::{opponents, tally, verdicts};
use super::skill::gain;
use super::words::escape;
use crate::evaluate::VariableReport;
use crate::study::{About, Findings};

pub(super) fn cards(
    variable: &VariableReport,
    channel: usize,
    about: &About,
    findings: &Findings,
) -> String {
    let served = variable.ordered().first().copied().unwrap_or_default();
    let mut text = "<div class=\"cards\">".to_owned();
    for name in opponents(variable) {
        let (better, worse, leads) = tally(&verdicts(findings, about, channel, name));
        let lower = variable.mean(served, "mse") < variable.mean(name, "mse");
        let (class, word) = if lower { ("good", "below") } else { ("bad", "above") };
        let how = gain(variable, served, name);
        let _ = write!(
            text,
            "<article><h4>Against {}</h4><p class=\"big {class}\">{} {word}</p><p class=\"quiet\">in \
             squared error, mean over leads; significantly better at {better}, worse at {worse} of \
             {leads} leads</p></article>",
            escape(name),
            how.trim_start_matches(['+', '-']),
        );
    }
    text + "</div>"
}
