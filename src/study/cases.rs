//! The few best and worst forecasts, with their fields.

use std::sync::Arc;

use physicnet_stream::{Cadence, SensorId, Time};

/// How many of each kind are kept.
const KEPT: usize = 2;

/// A motion, pixels a cadence: rows and columns, dx, dy.
pub type Motion = ([usize; 2], Vec<f32>, Vec<f32>);
/// A code map: rows and columns, codes; none where the cell saw only missing pixels.
pub type CodeMap = ([usize; 2], Vec<Option<u32>>);

/// The fields of one case; each no larger than [`SIDE`](super::SIDE).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The last frames before the forecast, oldest first: how many cadences before, and the field.
    pub past: Vec<(i64, Vec<f32>)>,
    /// At the leads that are shown: the lead, what came, and what was forecast.
    pub leads: Vec<(usize, Vec<f32>, Vec<f32>)>,
    /// How far the forecast moves things by its first lead.
    pub motion: Option<Motion>,
    /// The code map of the newest frame.
    pub codes: Option<CodeMap>,
}

/// One forecast that stands out.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Whose it is.
    pub sensor: SensorId,
    /// Its reference time.
    pub reference_time: Time,
    /// The step of its leads.
    pub cadence: Cadence,
    /// Its mean squared error over all leads.
    pub loss: f64,
    /// That of persistence over the same pixels.
    pub reference: f64,
    /// What it looks like.
    pub fields: Arc<Fields>,
}

/// The cases of one channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cases {
    /// Those that took the most squared error away from persistence, the best first.
    pub best: Vec<Case>,
    /// Those with the largest squared error, the worst first.
    pub worst: Vec<Case>,
}

impl Case {
    /// By how much its squared error is below that of persistence.
    pub fn gain(&self) -> f64 {
        self.reference - self.loss
    }
}

impl Cases {
    /// Whether a forecast with these losses may stand out: then its fields are worth their copy.
    pub(super) fn wants(&self, loss: f64, reference: f64) -> bool {
        let over = |kept: &[Case], score: f64, of: fn(&Case) -> f64| {
            kept.len() < KEPT || kept.last().is_some_and(|last| score >= of(last))
        };
        over(&self.best, reference - loss, Case::gain) || over(&self.worst, loss, |case| case.loss)
    }

    /// Takes a case in if it stands out. Of forecasts of the same sensor that reach into one
    /// another, `horizon` cadences, only the most outstanding is kept.
    pub(super) fn add(&mut self, case: &Case, horizon: usize) {
        put(&mut self.best, case, horizon, Case::gain);
        put(&mut self.worst, case, horizon, |case| case.loss);
    }
}

fn put(kept: &mut Vec<Case>, case: &Case, horizon: usize, score: impl Fn(&Case) -> f64) {
    let key = |case: &Case| (case.sensor.clone(), case.reference_time);
    let near = |other: &Case| {
        let steps = case.cadence.steps(other.reference_time, case.reference_time);
        other.sensor == case.sensor && steps.abs() <= horizon as i64
    };
    // Alike in score, the order is that of names and times: not of who came first.
    let above = |a: &Case, b: &Case| {
        score(a).total_cmp(&score(b)).then_with(|| key(b).cmp(&key(a))).is_gt()
    };
    if kept.iter().any(|other| near(other) && !above(case, other)) {
        return;
    }
    kept.retain(|other| !near(other));
    let place = kept.partition_point(|other| above(other, case));
    kept.insert(place, case.clone());
    kept.truncate(KEPT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(sensor: &str, at: i64, loss: f64, reference: f64) -> Case {
        let cadence = Cadence::new(10).unwrap();
        let fields = Arc::default();
        Case { sensor: sensor.into(), reference_time: 10 * at, cadence, loss, reference, fields }
    }

    #[test]
    fn the_outstanding_are_kept_once_each() {
        let all = [
            case("a", 0, 1.0, 2.0),
            case("a", 1, 1.0, 9.0),
            case("a", 2, 7.0, 9.0),
            case("b", 1, 3.0, 9.0),
            case("a", 9, 5.0, 6.0),
        ];
        let mut cases = Cases::default();
        all.iter().for_each(|case| cases.add(case, 3));
        let names = |cases: &[Case]| -> Vec<(String, i64)> {
            cases.iter().map(|c| (c.sensor.to_string(), c.reference_time)).collect()
        };
        assert_eq!(names(&cases.best), [("a".to_owned(), 10), ("b".to_owned(), 10)]);
        assert_eq!(names(&cases.worst), [("a".to_owned(), 20), ("a".to_owned(), 90)]);
        assert!(cases.wants(6.0, 0.0) && cases.wants(0.0, 6.0) && !cases.wants(1.0, 2.0));
    }
}
