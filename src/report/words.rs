//! Numbers, times and names as the page says them.

use physicnet_stream::{Axis, Cadence};

use crate::evaluate::VariableReport;
pub(super) use crate::render::short;
use crate::study::About;

/// Text inside HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// A unit after a name; pure numbers have none.
pub(super) fn unit(units: &str) -> String {
    if units.is_empty() || units == "1" { String::new() } else { format!(", {}", escape(units)) }
}

/// A unit behind a number.
pub(super) fn of_unit(units: &str) -> String {
    unit(units).replacen(',', "", 1)
}

/// The unit of a squared quantity after a name.
pub(super) fn squared(units: &str) -> String {
    let units = if units.is_empty() { "1" } else { units };
    if units == "1" { String::new() } else { format!(", ({})²", escape(units)) }
}

/// The common cadence of the sensors; `None` where they differ.
fn cadence(about: &About) -> Option<Cadence> {
    let mut all = about.sensors.iter().map(|sensor| sensor.cadence);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// How leads are counted: their unit, and how many of it are a lead.
pub(super) fn lead_unit(about: &About) -> (&'static str, f64) {
    let Some(cadence) = cadence(about) else { return ("cadences", 1.0) };
    let seconds = cadence.nanoseconds() as f64 / 1e9;
    let longest = seconds * about.horizon as f64;
    if longest < 60.0 {
        ("s", seconds)
    } else if longest <= 7200.0 {
        ("min", seconds / 60.0)
    } else if longest <= 4.0 * 86_400.0 {
        ("h", seconds / 3600.0)
    } else {
        ("days", seconds / 86_400.0)
    }
}

/// A lead with its unit, e.g. `+30 min`.
pub(super) fn lead(about: &About, lead: usize) -> String {
    let (unit, each) = lead_unit(about);
    format!("+{} {unit}", short(lead as f64 * each))
}

/// What a pixel measures along an axis: how much and of what; `None` where it is not known.
pub(super) fn spacing(axis: &Axis) -> Option<(f64, &str)> {
    let [first, .., last] = axis.values[..] else { return None };
    let step = (last - first).abs() / (axis.values.len() - 1) as f64;
    let regular =
        axis.values.windows(2).all(|pair| ((pair[1] - pair[0]).abs() - step).abs() < 0.02 * step);
    let named = !axis.units.is_empty() && axis.units != "1";
    (regular && step > 0.0 && named).then_some((step, &axis.units))
}

/// Beyond so many times the squared error of persistence a product is no rival.
const FAR: f64 = 4.0;

/// The products of a variable, in order, by what is worth drawing.
#[derive(Default)]
pub(super) struct Products<'a> {
    /// Those that are.
    pub(super) shown: Vec<&'a str>,
    /// Those that are, number by number, an earlier one.
    pub(super) same: Vec<(&'a str, &'a str)>,
    /// Those so far off that all others would be flat beside them: the linear trend, usually.
    pub(super) far: Vec<&'a str>,
}

impl<'a> Products<'a> {
    pub(super) fn of(variable: &'a VariableReport) -> Self {
        let scores = |name: &str| -> Vec<u64> {
            let all = ["mse", "mae", "bias", "corr"];
            let of = |lead| all.map(|score| variable.score(name, lead, score).to_bits());
            (1..=variable.leads()).flat_map(of).collect()
        };
        let mut products = Self::default();
        for (place, name) in variable.ordered().into_iter().enumerate() {
            let mean = |name: &str| variable.mean(name, "mse");
            let same = products.shown.iter().find(|other| scores(name) == scores(other));
            if let Some(other) = same {
                products.same.push((name, other));
            } else if place > 0 && mean(name) > FAR * mean("persistence") {
                products.far.push(name);
            } else {
                products.shown.push(name);
            }
        }
        products
    }
}

/// The class of a product's colour and dashes.
pub(super) fn class(product: &str, all: &[&str]) -> String {
    let known =
        ["physicnet", "network", "mean", "sharp", "advection", "persistence", "trend", "truth"];
    if known.contains(&product) {
        return format!("p-{product}");
    }
    let others = all.iter().filter(|name| !known.contains(name));
    let place = others.into_iter().position(|name| *name == product).unwrap_or(0);
    format!("p-rival{}", place % 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_names_are_text() {
        let shown = [0.0, 0.5, 12.345, 1234.5, 1e-9, f64::NAN, 100.0, 0.012_345].map(short);
        assert_eq!(shown, ["0", "0.5", "12.3", "1234", "1.0e-9", "–", "100", "0.0123"]);
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        assert_eq!((unit("1").as_str(), unit("mm/h").as_str()), ("", ", mm/h"));
    }

    #[test]
    fn an_axis_that_is_regular_and_has_a_unit_measures_its_pixels() {
        let axis = |values: &[f64], units: &str| Axis {
            name: "x".to_owned(),
            units: units.to_owned(),
            values: values.to_vec(),
        };
        assert_eq!(spacing(&axis(&[1.0, -1.0, -3.0], "km")), Some((2.0, "km")));
        assert_eq!(spacing(&axis(&[1.0, 2.0, 4.0], "km")), None);
        assert_eq!(spacing(&axis(&[1.0, 2.0], "")), None);
        assert_eq!(spacing(&axis(&[1.0, 2.0], "1")), None);
    }
}
