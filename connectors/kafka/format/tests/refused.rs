//! What does not fit a job's grid, and the reason that is given.

use super::*;

/// The 2 by 3 signal, spoilt.
fn spoilt(spoil: impl Fn(&mut message::Variable)) -> Vec<message::Variable<'static>> {
    let mut signal = array("signal", &["y", "x"], &[2, 3]);
    spoil(&mut signal);
    vec![signal]
}

#[test]
fn a_spoilt_signal_is_refused_with_the_reason() {
    let text = array("text", &["y", "x"], &[2, 3]);
    let text = message::Variable { values: Values::text("abcdef"), ..text };
    for (variables, why) in [
        (spoilt(|s| s.unit = "K".into()), r#"unit "K" where the job says "mm/h" for "rain""#),
        (
            spoilt(|s| s.axes.swap(0, 1)),
            r#"axes ["x", "y"] are transposed: the grid's are ["y", "x"]"#,
        ),
        (
            spoilt(|s| s.axes[0] = "range".into()),
            r#"axes ["range", "x"] where the grid has ["y", "x"]"#,
        ),
        (spoilt(|s| s.shape = vec![3, 2]), "shape [3, 2] where the grid has [2, 3]"),
        (spoilt(|s| (s.axes, s.shape) = (vec![], vec![6])), "shape [6] where the grid has [2, 3]"),
        (spoilt(|s| s.axes.truncate(1)), "1 axes for 2 dims"),
        (spoilt(|s| s.shape = vec![2, 4]), "shape [2, 4] of float64 does not fill its 48 bytes"),
        (
            spoilt(|s| s.shape = vec![1 << 61, 3]),
            "shape [2305843009213693952, 3] of float64 does not fill its 48 bytes",
        ),
        (
            spoilt(|s| s.shape = vec![1 << 32, 1 << 32]),
            "shape [4294967296, 4294967296] of float64 does not fill its 48 bytes",
        ),
        (spoilt(|s| s.shape = vec![-2_i64 as usize, 3]), "shape: -2 is no length"),
        (spoilt(|s| (s.axes, s.shape) = (vec![], vec![1; 9])), "shape: 9, more than 8"),
        (
            spoilt(|s| s.values = Values::text("")),
            "shape [2, 3] of c_string does not fill its 0 bytes",
        ),
        (spoilt(|s| s.values = text.values.clone()), "holds text where numbers are needed"),
        (
            spoilt(|s| {
                let long = "a".repeat(1 << 17);
                (s.axes, s.shape, s.values) = (vec![], vec![1 << 17], Values::text(&long));
            }),
            "c_string of 131072 bytes, more than 65536",
        ),
    ] {
        let said = judge(variables, &rain()).unwrap_err();
        assert_eq!(said, format!("variable \"signal\": {why}"));
    }
}

#[test]
fn other_arrays_are_refused_with_the_reason() {
    let named = |name: &'static str| array(name, &["y", "x"], &[2, 3]);
    for (variables, grid, why) in [
        (vec![named("signal"), named("signal")], rain(), r#"variable "signal": is there twice"#),
        (
            vec![named("snow"), named("hail")],
            rain(),
            r#"no variable "signal" or "rain"; there is "snow", "hail""#,
        ),
        (vec![], rain(), r#"no variable "signal" or "rain"; there is nothing"#),
        (vec![named("u")], wind(), r#"no variable "signal" or "v"; there is "u""#),
        (
            vec![named("signal")],
            wind(),
            r#"variable "signal": shape [2, 3] where the grid has [2, 2, 3]"#,
        ),
        (
            vec![array("signal", &["t", "y", "x"], &[2, 2, 3])],
            rain(),
            r#"variable "signal": shape [2, 2, 3] where the grid has [2, 3]"#,
        ),
    ] {
        assert_eq!(judge(variables, &grid).unwrap_err(), why);
    }
}

#[test]
fn the_unit_of_several_channels_is_that_of_each() {
    let mixed = Grid { variables: channels(&[("u", "m/s"), ("t", "K")]), ..rain() };
    let signal = |unit: &'static str| {
        vec![message::Variable { unit: unit.into(), ..array("signal", &[], &[2, 2, 3]) }]
    };
    assert!(judge(signal(""), &mixed).is_ok());
    assert!(judge(signal("m/s"), &wind()).is_ok());
    let said = judge(signal("m/s"), &mixed).unwrap_err();
    assert_eq!(said, "variable \"signal\": unit \"m/s\" where the job says \"K\" for \"t\"");
}

#[test]
fn what_is_garbage_is_told_from_what_does_not_fit() {
    let expected = |grid, time| Expected { grid, time };
    let (rain, timestamp) = (rain(), TimeFrom::Timestamp);
    let label = |bytes: &[u8], time| {
        decode(Format::Da00, bytes, &expected(&rain, time)).unwrap_err().label()
    };
    let written = |variables| da00::write(&message(variables)).unwrap();
    for spoilt in [
        spoilt(|s| s.unit = "K".into()),
        spoilt(|s| s.axes.swap(0, 1)),
        spoilt(|s| s.shape = vec![3, 2]),
        vec![array("snow", &["y", "x"], &[2, 3])],
        vec![array("signal", &["y", "x"], &[2, 3]), array("x", &["x"], &[3])],
    ] {
        assert_eq!(label(&written(spoilt), &timestamp), "misshapen");
    }
    let good = written(spoilt(|_| {}));
    let elsewhere = TimeFrom::Coordinate("when".into());
    assert_eq!(label(&good, &elsewhere), "undecodable");
    assert_eq!(label(&good[..good.len() - 20], &timestamp), "undecodable");
    assert_eq!(label(&written(spoilt(|s| s.shape = vec![2, 4])), &timestamp), "undecodable");
}

#[test]
fn another_format_is_told_by_its_looks() {
    let good = da00::write(&message(spoilt(|_| {}))).unwrap();
    for (format, bytes, told) in [
        (
            Format::Da00,
            &br#"{"source_name": "a", "timestamp": 0}"#[..],
            "no da00 message: it looks like JSON; is the format json?",
        ),
        (Format::Ad00, &good, "no ad00 message: its schema is \"da00\"; is the format da00?"),
        (Format::Json, &good, "no JSON: its schema is \"da00\"; is the format da00?"),
        (Format::Json, b"\xff\xfe\0\0", "no JSON: it is no text, and names no schema"),
    ] {
        assert_eq!(read(format, bytes, &rain()).unwrap_err(), told);
    }
}

#[test]
fn a_reason_is_short_whatever_is_quoted() {
    let long = "\u{1}".repeat(60_000);
    let variables = (0..9).map(|at| array("", &[], &[at])).map(|variable| message::Variable {
        name: format!("{}{long}", variable.shape[0]).into(),
        ..variable
    });
    let said = judge(variables.collect(), &rain()).unwrap_err();
    assert!(said.len() < 1_000 && said.ends_with(", ..."), "{said}");
}
