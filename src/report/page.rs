//! The page, put together.

use std::fmt::Write;

use anyhow::Result;
use physicnet_stream::format_time;
use serde_json::Value;

use super::document::document;
use super::words::{escape, lead, unit};
use super::{atlas, cases, contests, ensemble, fss, maps, skill, spectra, summary};
use crate::evaluate::{Report, VariableReport};
use crate::study::{About, Findings};

const STYLE: &str = concat!(include_str!("../page.css"), include_str!("style.css"));

/// The sections of a variable: name, title, and how to read it.
const SECTIONS: [(&str, &str, &str); 7] = [
    (
        "skill",
        "Skill by lead",
        "Scores over all verified pixels of all forecasts, products side by side.",
    ),
    (
        "ensemble",
        "Ensembles",
        "Of single forecasts the CRPS is the absolute error. An ensemble is right about how sure it is where \
         its spread is as large as the error of its mean, what came is as often below as between any two of \
         its members, and what so many of them said came as often.",
    ),
    (
        "contests",
        "Is the difference chance?",
        "The test of Diebold and Mariano on the squared errors of the forecasts, pair by pair; the \
         variance takes into account that neighbouring forecasts err alike (Newey and West). The \
         band is the 95 % interval of the mean difference: where it leaves out 0, the difference is \
         significant at that lead.",
    ),
    (
        "fss",
        "Fractions skill score",
        "How well the share of pixels at or above a threshold agrees within windows of growing \
         side: 1 is perfect, 0 no overlap; 0.5 (the line) is commonly taken as the least useful.",
    ),
    (
        "spectra",
        "Power spectra",
        "How much of the variance lies at which wavelength, mean over fields. A forecast below the \
         truth at short wavelengths is smoother than the truth; above it, rougher.",
    ),
    ("maps", "Where it errs", "Error and bias of each place over all forecasts."),
    (
        "cases",
        "Best and worst forecasts",
        "Best: those that took the most squared error away from persistence. Worst: those with the \
         largest. Of forecasts that overlap only one is shown; each has been observed at every lead. Arrows show how \
         the forecast moves things by its first lead; each code of the code map has its own colour.",
    ),
];

/// The whole evaluation as one file of HTML.
///
/// # Errors
/// When a picture cannot be made.
pub fn page(report: &Report, about: &About, findings: &Findings) -> Result<String> {
    let names: Vec<&str> = report.variables.iter().map(|v| v.name.as_str()).collect();
    let title = format!("Evaluation of {}", escape(&names.join(", ")));
    let mut body = String::new();
    for (channel, variable) in report.variables.iter().enumerate() {
        body += &of_variable(channel, variable, about, findings)?;
    }
    let mut nav = String::new();
    for (channel, variable) in report.variables.iter().enumerate() {
        let several = report.variables.len() > 1;
        if several {
            let _ = write!(nav, "<b>{}</b> ", escape(&variable.name));
        }
        for (name, title, _) in sections(variable) {
            let _ = write!(nav, "<a href=\"#{name}-{channel}\">{title}</a> ");
        }
    }
    let data = embedded(&document(report, about, findings));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head>\n<body>\
         <a class=\"skip\" href=\"#main\">To the figures</a>\n<header><h1>{title}</h1>{}\
         <nav aria-label=\"Figures\">{nav}<a href=\"#atlas\">Codebook</a> \
         <a href=\"#method\">Method</a></nav></header>\n<main id=\"main\">{body}\
         <section id=\"atlas\"><h2>Codebook</h2>{}</section>\n{}</main>\n\
         <script type=\"application/json\" id=\"evaluation\">{data}</script></body></html>\n",
        about_it(report, about, findings),
        atlas::section(report, about, findings)?,
        method(report, about, findings),
    ))
}

/// JSON for an element of a page: a browser looks for `</script` and `<!--` in it, whatever they are
/// part of.
fn embedded(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

fn about_it(report: &Report, about: &About, findings: &Findings) -> String {
    let period = findings.period.map_or_else(String::new, |(first, last)| {
        format!(", reference times {} to {}", format_time(first), format_time(last))
    });
    let every = match about.stride {
        1 => String::new(),
        stride => format!(" (every {stride}th)"),
    };
    let sensors = match report.sensors.iter().next() {
        Some(only) if report.sensors.len() == 1 => format!("sensor {}", escape(only)),
        _ => format!("{} sensors", report.sensors.len()),
    };
    let model = match report.model.as_str() {
        "none" => "no network: the classical expert alone".to_owned(),
        id => format!("model {}", escape(id)),
    };
    format!(
        "<p>{} forecasts{every} of {} leads to {}, {sensors}{period}; {model}.</p>",
        findings.forecasts,
        about.horizon,
        lead(about, about.horizon)
    )
}

/// Those that a variable has: there may be no ensemble.
fn sections(
    variable: &VariableReport,
) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let any = !variable.ensembles.is_empty();
    SECTIONS.into_iter().filter(move |(name, ..)| any || *name != "ensemble")
}

fn of_variable(
    channel: usize,
    variable: &VariableReport,
    about: &About,
    findings: &Findings,
) -> Result<String> {
    let on = findings.main();
    let mut text = format!(
        "<section class=\"variable\"><h2>{}{}</h2>{}",
        escape(&variable.name),
        unit(&variable.units),
        summary::cards(variable, channel, about, findings)
    );
    for (name, title, how) in sections(variable) {
        let inside = match name {
            "skill" => skill::section(variable, channel, about, findings),
            "ensemble" => ensemble::section(variable, about),
            "contests" => contests::section(variable, channel, about, findings),
            "fss" => fss::section(variable, about, on),
            "spectra" => spectra::section(variable, channel, about, on),
            "maps" => maps::section(variable, channel, about, findings, on)?,
            _ => cases::section(variable, channel, about, findings)?,
        };
        let _ = writeln!(
            text,
            "<section id=\"{name}-{channel}\"><h3>{title}</h3><p class=\"how\">{how}</p>{inside}\
             </section>"
        );
    }
    Ok(text + "</section>\n")
}

fn method(report: &Report, about: &About, findings: &Findings) -> String {
    let ensembles = if report.variables.iter().any(|variable| !variable.ensembles.is_empty()) {
        "<b>Ensembles.</b> A pixel counts where it was observed and every member has it. Members that equal what \
         came lie below or above it by lot; pixels where all of them do are in no rank histogram. The spread is \
         the root mean variance of the members, times (M + 1) / M."
    } else {
        "<b>Not here.</b> Reliability and rank histograms need an ensemble; there is one forecast of each \
         reference time."
    };
    let left_out = match findings.elsewhere {
        0 => String::new(),
        n => format!(" {n} forecasts of sensors on further grids are in no map and no spectrum."),
    };
    let window = if about.periodic {
        "The domain wraps around, so no window is laid over the fields."
    } else {
        "A Hann window fades the fields out towards their open borders."
    };
    format!(
        "<section id=\"method\"><h2>Method</h2>\
         <p><b>Missing pixels.</b> A pixel whose observation is missing is never scored. One whose \
         forecast is missing while the observation is there is left out and lowers the coverage. \
         Differences between two products are taken over the pixels that both have. Spectra are \
         taken over the pixels that the truth and all products have; the others are set to the \
         mean, and a field that lacks more than half of its pixels has no spectrum.</p>\
         <p><b>Spectra.</b> {window} Modes are summed over rings of equal wavelength, so that a \
         spectrum adds up to the variance of the field.</p>\
         <p><b>Significance.</b> The loss of a forecast at a lead is its mean squared error. Sensors \
         are taken as independent of one another: where they see the same weather, p is too \
         small. Below ten forecasts nothing is said.</p>\
         <p>{ensembles}</p>\
         <p>All numbers of this page stand in it as JSON, in the element \
         <code>#evaluation</code>.{left_out}</p></section>"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_end_no_script() {
        let data = json!({"name": "<!--<script></script>", "less": "a < b"});
        let text = embedded(&data);
        assert!(!text.contains('<'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), data);
    }
}
