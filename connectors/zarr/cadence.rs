//! The cadence of a store, and whether one that a config says is that of its times.

use physicnet_stream::{Cadence, Error, Result, Time};

/// The steps between times, of those that are steps ahead.
fn steps(times: &[Time]) -> Vec<i64> {
    let set = |time: &Time| *time != Time::MIN;
    let ahead = |pair: &[Time]| pair[1].checked_sub(pair[0]).filter(|step| *step > 0);
    times.windows(2).filter(|pair| pair.iter().all(set)).filter_map(ahead).collect()
}

/// The median of the steps between times.
pub(super) fn median(times: &[Time]) -> Option<Cadence> {
    let mut steps = steps(times);
    steps.sort_unstable();
    Cadence::new(*steps.get(steps.len() / 2)?).ok()
}

/// What is irregular about `times` at this cadence, and what to do; nothing where each is one
/// cadence after the one before.
pub(super) fn irregular(cadence: Cadence, times: &[Time], guessed: bool) -> Option<String> {
    let off = times.windows(2).filter(|pair| cadence.steps(pair[0], pair[1]) != 1).count();
    if off == 0 {
        return None;
    }
    let back = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let (every, steps) = (text(cadence), times.len() - 1);
    let which = if guessed { "the median of its steps" } else { "as `cadence` says" };
    let way = match back {
        0 => format!(
            "say another `cadence`, or make them regular: `ds.resample(time=\"{every}\").nearest()`"
        ),
        back => format!("{back} go backwards: put them in order, `ds.sortby(\"time\")` in xarray"),
    };
    Some(format!("its times are irregular: {off} of {steps} steps are not {every}, {which}; {way}"))
}

/// Whether frames at `times` can be used at the `cadence` that was said for `store`; a warning in
/// the log where they can and another one is meant. Two steps are needed to tell.
pub(super) fn check(cadence: Cadence, times: &[Time], store: &str) -> Result<()> {
    let steps = steps(times);
    let Some(usual) = median(times).filter(|_| steps.len() > 1) else { return Ok(()) };
    let off = |step: i64| {
        let whole = i128::from(cadence.steps(0, step)) * i128::from(cadence.nanoseconds());
        (i128::from(step) - whole).abs()
    };
    // Admission takes a frame for the one of the nearest step: half a cadence off is nobody's.
    let fits = |step: &&i64| {
        cadence.steps(0, **step) > 0 && 2 * off(**step) < i128::from(cadence.nanoseconds())
    };
    let (said, found) = (text(cadence), text(usual));
    if 2 * steps.iter().filter(fits).count() < steps.len() {
        let why = format!(
            "{said}, and the times of {store} are {found} apart, which is no multiple of it: its \
             frames could not be used; say {found}, or leave the key out"
        );
        return Err(Error::new("cadence", why));
    }
    let near = (cadence.nanoseconds() - usual.nanoseconds()).unsigned_abs();
    if near > cadence.nanoseconds().unsigned_abs() / 10 {
        tracing::warn!(
            "{store}: cadence {said}, and its times are {found} apart: frames between them count as \
             missing; say {found}, or leave the key out, unless that is meant"
        );
    }
    Ok(())
}

/// A cadence as a config says it.
fn text(cadence: Cadence) -> String {
    let units =
        [(86_400e9, "d"), (3_600e9, "h"), (60e9, "min"), (1e9, "s"), (1e6, "ms"), (1.0, "ns")];
    let nanoseconds = cadence.nanoseconds();
    let whole = |(unit, _): &(f64, &str)| nanoseconds % *unit as i64 == 0;
    let (unit, name) = units.into_iter().find(whole).unwrap_or((1.0, "ns"));
    format!("{}{name}", nanoseconds / unit as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    #[test]
    fn what_is_irregular_is_counted() {
        let cadence = Cadence::new(5 * MINUTE).unwrap();
        let times = |minutes: &[i64]| minutes.iter().map(|m| m * MINUTE).collect::<Vec<_>>();
        assert_eq!(irregular(cadence, &times(&[0, 5, 10]), true), None);
        let said = irregular(cadence, &times(&[0, 5, 10, 30, 42]), true).unwrap();
        assert!(said.contains("2 of 4 steps are not 5min, the median"), "{said}");
        assert!(said.contains("resample(time=\"5min\")"), "{said}");
        let said = irregular(cadence, &times(&[5, 0, 10]), false).unwrap();
        assert!(said.contains("as `cadence` says; 1 go backwards"), "{said}");
        assert!(said.contains("sortby(\"time\")"), "{said}");
    }

    #[test]
    fn a_cadence_that_is_not_the_datas_is_told() {
        let every = |minutes: i64| (0..9).map(|k| k * minutes * MINUTE).collect::<Vec<_>>();
        let said = |minutes: i64| Cadence::new(minutes * MINUTE).unwrap();
        for (cadence, times, usable) in [
            (5, every(5), true),
            (5, every(15), true),   // a warning
            (10, every(5), false),  // two frames to a step
            (10, every(15), false), // between two steps
            (60, every(5), false),
            (1440, every(1441), true),
            (60, every(5)[..2].to_vec(), true), // one step tells nothing
        ] {
            let told = check(said(cadence), &times, "s.zarr");
            assert_eq!(told.is_ok(), usable, "{cadence} {times:?}");
            if let Err(error) = told {
                let error = error.to_string();
                let found = text(median(&times).unwrap());
                assert!(error.contains(&found) && error.contains(&text(said(cadence))), "{error}");
            }
        }
        assert_eq!(
            ["90s", "2h", "1500ms", "1d"].map(|t| {
                text(Cadence::new(physicnet_stream::parse_duration(t).unwrap()).unwrap())
            }),
            ["90s", "2h", "1500ms", "1d"]
        );
    }
}
