//! A grid as a job file says it: what no store tells.

use physicnet_stream::{Axis, Error, Grid, Result, Variable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most pixels along an axis, whatever a message may hold: each has a coordinate in memory.
const MOST: usize = 1 << 20;

/// A grid as a job file says it.
///
/// ```yaml
/// variables: [{name: precip_rate, units: mm h-1}]
/// y: {count: 256, first: 255, step: -2, units: km}
/// x: {count: 256, first: -255, step: 2, units: km}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GridSection {
    /// The channels, in order.
    pub variables: Vec<Variable>,
    /// Rows.
    pub y: AxisSection,
    /// Columns.
    pub x: AxisSection,
}

/// An axis as a job file says it: its `values`, or how many there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AxisSection {
    /// `y` or `x` where it is not said.
    pub name: Option<String>,
    /// The unit of the values; empty where there is none.
    pub units: String,
    /// The coordinate of every pixel centre.
    pub values: Vec<f64>,
    /// How many pixels there are, where `values` does not tell.
    pub count: usize,
    /// The coordinate of the first, with `count`.
    pub first: f64,
    /// The step between them, with `count`; 1 where it is not said.
    pub step: Option<f64>,
}

impl GridSection {
    /// The grid.
    ///
    /// # Errors
    /// When it has no variables, or an axis makes no sense, naming the key.
    pub(super) fn grid(&self) -> Result<Grid> {
        if self.variables.is_empty() {
            return Err(Error::new("grid.variables", "name at least one"));
        }
        let variables = self.variables.clone();
        Ok(Grid { variables, y: self.y.axis("y")?, x: self.x.axis("x")? })
    }
}

impl AxisSection {
    fn axis(&self, key: &str) -> Result<Axis> {
        let Self { name, units, values, count, first, step } = self;
        let refused = |part: &str, why: String| Error::new(format!("grid.{key}{part}"), why);
        let pixels = if values.is_empty() { *count } else { values.len() };
        if pixels == 0 || (*count != 0 && *count != pixels) {
            return Err(refused("", "give `values`, or `count` pixels".to_owned()));
        }
        if pixels > MOST {
            let part = if values.is_empty() { ".count" } else { ".values" };
            return Err(refused(part, format!("{pixels} pixels; an axis has at most {MOST}")));
        }
        if !first.is_finite() {
            return Err(refused(".first", format!("{first}; write where the first pixel lies")));
        }
        let step = step.unwrap_or(1.0);
        if !step.is_finite() || step == 0.0 {
            let why = format!("{step}; write how far it is to the next pixel, e.g. 2 or -0.5");
            return Err(refused(".step", why));
        }
        let even = || (0..*count).map(|at| first + step * at as f64).collect();
        let (part, values) =
            if values.is_empty() { (".step", even()) } else { (".values", values.clone()) };
        let before = |at: usize| at.checked_sub(1).map(|before| values[before]);
        let lost = |at: &usize| !values[*at].is_finite() || before(*at) == Some(values[*at]);
        if let Some(at) = (0..pixels).find(lost) {
            let why = format!(
                "pixel {at} would lie at {}; every pixel needs a place, and not that of its \
                 neighbour",
                values[at]
            );
            return Err(refused(part, why));
        }
        let rises = values.is_sorted();
        if !rises && !values.is_sorted_by(|a, b| a >= b) {
            let why = "rise and fall; pixels lie one after another, write them so".to_owned();
            return Err(refused(part, why));
        }
        let name = name.clone().unwrap_or_else(|| key.to_owned());
        Ok(Axis { name, units: units.clone(), values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(y: AxisSection) -> GridSection {
        let variables = vec![Variable { name: "r".into(), units: String::new() }];
        GridSection { variables, y, x: AxisSection { count: 2, ..AxisSection::default() } }
    }

    #[test]
    fn an_axis_without_places_is_refused_by_its_key() {
        let even = |count, first, step| {
            let step = Some(step);
            section(AxisSection { count, first, step, ..AxisSection::default() })
        };
        let named = |values: &[f64]| {
            section(AxisSection { values: values.to_vec(), ..AxisSection::default() })
        };
        for (grid, key) in [
            (even(0, 0.0, 1.0), "grid.y"),
            // It would take 8 GB to say where they lie.
            (even(1_000_000_000, 0.0, 1.0), "grid.y.count"),
            (named(&[0.0, 2.0, 1.0]), "grid.y.values"),
            (even(usize::MAX, 0.0, 1.0), "grid.y.count"),
            (even(3, f64::INFINITY, 1.0), "grid.y.first"),
            (even(3, f64::NAN, 1.0), "grid.y.first"),
            (even(3, 0.0, 0.0), "grid.y.step"),
            (even(3, 0.0, f64::NAN), "grid.y.step"),
            (even(3, 0.0, f64::INFINITY), "grid.y.step"),
            (even(3, f64::MAX, f64::MAX), "grid.y.step"),
            (even(3, 1e300, 1.0), "grid.y.step"),
            (named(&[0.0, f64::NAN]), "grid.y.values"),
            (named(&[0.0, 1.0, 1.0]), "grid.y.values"),
            (named(&vec![0.0; MOST + 1]), "grid.y.values"),
        ] {
            let told = grid.grid().unwrap_err();
            assert_eq!(told.what, key, "{told}");
        }
        let grid = even(3, 5.0, -0.5).grid().unwrap();
        assert_eq!(grid.y.values, [5.0, 4.5, 4.0]);
        assert_eq!(named(&[7.0]).grid().unwrap().y.values, [7.0]);
        assert_eq!(even(MOST, 0.0, 1.0).grid().unwrap().y.values.len(), MOST);
    }
}
