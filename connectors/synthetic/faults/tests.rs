use super::*;
use crate::synthetic::{Field, GrayScott};

fn grid() -> Grid {
    Field::GrayScott(GrayScott { size: 32, ..GrayScott::default() }).grid()
}

fn spoilt(faults: &Faults, signed: bool, frame: u64) -> Vec<f32> {
    let mut data = vec![0.5; 2 * 32 * 32];
    faults.spoil(&mut data, &grid(), signed, [1, 2], frame);
    data
}

fn missing(data: &[f32]) -> usize {
    data.iter().filter(|value| value.is_nan()).count()
}

#[test]
fn noise_has_its_spread_and_its_variable() {
    let faults = Faults { noise: [("v".to_owned(), 0.25)].into(), ..Faults::default() };
    let data = spoilt(&faults, true, 3);
    let (u, v) = data.split_at(32 * 32);
    assert!(u.iter().all(|value| *value == 0.5));
    let mean = v.iter().sum::<f32>() / 1024.0;
    let spread = (v.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 1024.0).sqrt();
    assert!((mean - 0.5).abs() < 0.03 && (spread - 0.25).abs() < 0.02, "{mean} {spread}");
    assert!(v.iter().any(|value| *value < 0.0));
    assert!(spoilt(&faults, false, 3).iter().all(|value| *value >= 0.0));
    assert_eq!(spoilt(&faults, true, 3), data);
    assert_ne!(spoilt(&faults, true, 4), data);
}

#[test]
fn blocks_and_rows_are_missing_in_their_share_of_the_frames() {
    let faults = Faults { dropouts: 0.3, ..Faults::default() };
    let mut hit = 0;
    for frame in 0..2000 {
        let data = spoilt(&faults, true, frame);
        let (u, v) = data.split_at(32 * 32);
        let rows = u.chunks(32).filter(|row| missing(row) > 0).count();
        assert_eq!((missing(u), missing(u) % rows.max(1)), (missing(v), 0));
        assert!(missing(u) == 0 || (4 * 4..=16 * 16).contains(&missing(u)));
        hit += usize::from(missing(u) > 0);
    }
    assert!((500..700).contains(&hit), "{hit}");

    let faults = Faults { stripes: 0.3, ..Faults::default() };
    let mut hit = 0;
    for frame in 0..2000 {
        let data = spoilt(&faults, true, frame);
        let rows = data.chunks(32).filter(|row| missing(row) == 32).count();
        assert_eq!(missing(&data), rows * 32);
        assert!(rows == 0 || (4..=16).contains(&rows), "{rows}");
        hit += usize::from(rows > 0);
    }
    assert!((500..700).contains(&hit), "{hit}");
}

#[test]
fn blocks_are_stuck_and_rows_too_high_in_their_share_of_the_frames() {
    let data: Vec<f32> = (0..2 * 32 * 32).map(|at| (at as f32 * 0.7).sin()).collect();
    let spoilt = |faults: &Faults, frame| {
        let mut data = data.clone();
        faults.spoil(&mut data, &grid(), true, [1, 2], frame);
        data
    };
    let (mut stuck, mut high) = (0, 0);
    for frame in 0..1000 {
        let told = spoilt(&Faults { stuck: 0.3, ..Faults::default() }, frame);
        let changed: Vec<_> = told.iter().zip(&data).filter(|(one, other)| one != other).collect();
        // Twice the largest magnitude, which a sine just does not reach.
        assert!(changed.iter().all(|(value, _)| (1.99..=2.0).contains(*value)));
        assert!(changed.is_empty() || (2 * 4 * 4..=2 * 16 * 16).contains(&changed.len()));
        stuck += usize::from(!changed.is_empty());

        let told = spoilt(&Faults { streaks: 0.3, ..Faults::default() }, frame);
        let rows: Vec<f32> = (told.chunks(32).zip(data.chunks(32)))
            .map(|(one, other)| one[0] - other[0])
            .filter(|step| *step != 0.0)
            .collect();
        // A sine's standard deviation is the root of a half.
        assert!(rows.iter().all(|step| (step - 2.0_f32.sqrt()).abs() < 0.02), "{rows:?}");
        assert!(rows.is_empty() || (4..=16).contains(&rows.len()), "{}", rows.len());
        high += usize::from(!rows.is_empty());
    }
    assert!((220..380).contains(&stuck) && (220..380).contains(&high), "{stuck} {high}");
}

#[test]
fn a_fault_stays_where_it_is_when_others_are_added() {
    let some = Faults { dropouts: 0.2, late: 0.1, ..Faults::default() };
    let more = Faults { stripes: 0.2, noise: [("u".to_owned(), 1.0)].into(), ..some.clone() };
    for frame in 0..200 {
        let holes = |data: Vec<f32>| data.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
        let (few, many) = (holes(spoilt(&some, true, frame)), holes(spoilt(&more, true, frame)));
        assert!(few.iter().zip(many).all(|(few, many)| !few || many));
        assert_eq!(some.course([1, 2], frame, None), more.course([1, 2], frame, None));
    }
}

#[test]
fn bad_settings_are_named() {
    let none = Faults::default;
    for (faults, key) in [
        (Faults { noise: [("w".to_owned(), 1.0)].into(), ..none() }, "noise.w"),
        (Faults { noise: [("u".to_owned(), -1.0)].into(), ..none() }, "noise.u"),
        (Faults { dropouts: 1.5, ..none() }, "dropouts"),
        (Faults { stripes: f64::NAN, ..none() }, "stripes"),
        (Faults { corrected: -0.1, ..none() }, "corrected"),
        (Faults { late: 0.5, duplicate: 0.6, ..none() }, "late"),
        (Faults { delay: 0, ..none() }, "delay"),
    ] {
        assert_eq!(faults.validate(&grid()).unwrap_err().what, key, "{faults:?}");
    }
    none().validate(&grid()).unwrap();
}
