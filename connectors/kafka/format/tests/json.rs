//! JSON as people write it.

use super::super::{describe, json, source_name};
use super::*;

fn body(variables: &str) -> String {
    format!(
        r#"{{"source_name": "hill", "timestamp": "2026-01-01T00:00:00Z", "variables": {{{variables}}}}}"#
    )
}

#[test]
fn by_hand() {
    let field = [0.0, 1.5, f32::NAN, -3.0, 4e3, 5.0];
    for variables in [
        r#""rain": {"units": "mm/h", "data": [[0, 1.5, null], [-3, 4e3, 5.0]]}"#,
        r#""rain": {"unit": "mm/h", "shape": [2, 3], "data": [0, 1.5, null, -3, 4e3, 5]}"#,
        r#""signal": {"axes": ["y", "x"], "data": [[0, 1.5, null], [-3, 4e3, 5]]}, "x": {"data": [0.5, 1.5, 2.5]}"#,
        r#""rain": {"data": [[[0, 1.5, null], [-3, 4e3, 5]]], "by": {"whom": ["us"]}}"#,
    ] {
        let measured = read(Format::Json, body(variables).as_bytes(), &rain()).unwrap();
        assert_eq!((measured.source_name.as_str(), measured.valid_time), ("hill", TIME));
        assert!(same(&measured.data, &field), "{:?}", measured.data);
    }
    let nanoseconds = r#"{"variables": {"rain": {"data": [[1,2,3],[4,5,6]]}}, "timestamp": -5, "source_name": "a"}"#;
    assert_eq!(read(Format::Json, nanoseconds.as_bytes(), &rain()).unwrap().valid_time, -5);
    let own = r#""rain": {"data": [[1,2,3],[4,5,6]]}, "time": {"data": "2026-01-01"}"#;
    let expected = Expected { grid: &rain(), time: &TimeFrom::Coordinate("time".into()) };
    assert_eq!(decode(Format::Json, body(own).as_bytes(), &expected).unwrap().valid_time, TIME);
    let said = describe(Format::Json, body(own).as_bytes()).unwrap();
    assert_eq!((said.name.as_str(), said.dtype, said.shape), ("rain", "int64", vec![2, 3]));
}

#[test]
fn what_is_wrong_is_said() {
    let deep = format!(r#""rain": {{"data": {}1{}}}"#, "[".repeat(9), "]".repeat(9));
    let many: Vec<String> = (0..300).map(|k| format!(r#""v{k}": {{"data": 1}}"#)).collect();
    for (text, why) in [
        (String::new(), "JSON: EOF while parsing"),
        ("[]".into(), "JSON: a list where an object is needed, {\"name\": value, ...}"),
        // What serde would take for a message.
        (
            r#"["hill", 5, {"rain": {"data": [[1,2,3],[4,5,6]]}}]"#.into(),
            "JSON: a list where an object is needed",
        ),
        (
            body(r#""rain": ["mm/h", null, null, null, [[1,2,3],[4,5,6]]]"#),
            "JSON: a list where an object is needed",
        ),
        ("null".into(), "JSON: invalid type: null"),
        (r#"{"timestamp": 0, "variables": {}}"#.into(), "JSON: missing field `source_name`"),
        (r#"{"source_name": "", "timestamp": 0, "variables": {}}"#.into(), "source_name: is empty"),
        (
            r#"{"source_name": "a", "variables": {"rain": {"data": [[1,2,3],[4,5,6]]}}}"#.into(),
            "timestamp: the message has none",
        ),
        (
            r#"{"source_name": "a", "timestamp": "soon", "variables": {}}"#.into(),
            "JSON: timestamp \"soon\" is not a time",
        ),
        (
            r#"{"source_name": "a", "timestamp": 9223372036854775808, "variables": {}}"#.into(),
            "JSON: timestamp 9223372036854775808 lies after",
        ),
        (
            r#"{"source_name": "a", "timestamp": 1.5, "variables": {}}"#.into(),
            "JSON: invalid type: floating point `1.5`, expected timestamp as",
        ),
        (
            body(r#""rain": {"data": [[1, 2], [3]]}"#),
            "JSON: data: lists of 2 and of 1 beside each other",
        ),
        (body(r#""rain": {"data": [[1, 2], 3]}"#), "JSON: data: a number stands beside a list"),
        (body(r#""rain": {"data": [1, [2, 3]]}"#), "JSON: data: a list stands beside a number"),
        (body(r#""rain": {"data": [[], 3]}"#), "JSON: data: a number stands beside a list"),
        (body(r#""rain": {"data": [1, "2"]}"#), "JSON: data: a text stands in a list of numbers"),
        (body(r#""rain": {"data": [NaN, 1]}"#), "JSON: expected value"),
        (
            body(r#""rain": {"data": [true]}"#),
            "JSON: invalid type: boolean `true`, expected numbers, null",
        ),
        (body(r#""rain": {}"#), "JSON: missing field `data`"),
        (
            body(r#""rain": {"shape": [3, 2], "data": [[1,2,3],[4,5,6]]}"#),
            "variable \"rain\": shape [3, 2] where the lists are [2, 3]",
        ),
        (
            body(r#""rain": {"shape": [2, 4], "data": [1,2,3,4,5,6]}"#),
            "variable \"rain\": shape [2, 4] of int64 does not fill",
        ),
        (body(r#""rain": {"shape": [-2, 3], "data": [1]}"#), "JSON: invalid value: integer `-2`"),
        (body(r#""rain": {"data": 1}, "rain": {"data": 1}"#), "variable \"rain\": is there twice"),
        (body(&deep), "JSON: data: lists nested deeper than 8"),
        (body(&many.join(",")), "JSON: variables: more than 256"),
    ] {
        let said = read(Format::Json, text.as_bytes(), &rain()).unwrap_err();
        assert!(said.starts_with(why), "{said}\nnot\n{why}");
    }
}

#[test]
fn depth_and_size_end() {
    for open in ["[", "{\"a\":", "{\"source_name\":", "{\"variables\":{\"a\":{\"data\":["] {
        let text = open.repeat(100_000);
        assert!(read(Format::Json, text.as_bytes(), &rain()).is_err());
        assert_eq!(source_name(Format::Json, text.as_bytes()), None);
    }
    let long = vec![b' '; (64 << 20) + 1];
    assert_eq!(json::parse(&long).unwrap_err(), "67108865 bytes of JSON, more than 67108864");
}

#[test]
fn the_name_alone_needs_no_more() {
    let text = r#"{"source_name": "hill", "variables": 7}"#;
    assert!(read(Format::Json, text.as_bytes(), &rain()).is_err());
    assert_eq!(source_name(Format::Json, text.as_bytes()), Some("hill".into()));
    assert_eq!(source_name(Format::Json, br#"["hill"]"#), None);
}
