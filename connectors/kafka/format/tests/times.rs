//! Where the valid time comes from.

use super::super::dtype::Dtype;
use super::*;

fn at(time: Option<message::Variable<'static>>) -> Result<i64, String> {
    let mut variables = vec![array("signal", &["y", "x"], &[2, 3])];
    variables.extend(time);
    let bytes = da00::write(&message(variables)).unwrap();
    let expected = Expected { grid: &rain(), time: &TimeFrom::Coordinate("time".into()) };
    let read = decode(Format::Da00, &bytes, &expected);
    read.map(|measured| measured.valid_time).map_err(|reason| reason.to_string())
}

fn time(values: Values<'static>, unit: &'static str) -> Option<message::Variable<'static>> {
    let count = values.bytes_len() / values.dtype().size();
    let shape = if count == 1 { vec![] } else { vec![count] };
    Some(message::Variable { unit: unit.into(), shape, values, ..array("time", &[], &[]) })
}

#[test]
fn a_coordinate_in_any_resolution() {
    for (count, unit) in [
        (1_767_225_600, "datetime64[s]"),
        (1_767_225_600_000, "datetime64[ms]"),
        (1_767_225_600_000_000, "datetime64[us]"),
        (1_767_225_600_000_000_000, "datetime64[ns]"),
        (1_767_225_600_000_000_000, ""),
    ] {
        assert_eq!(at(time(Values::i64s(&[count]), unit)), Ok(TIME));
    }
    assert_eq!(at(time(Values::text("2026-01-01T00:00:00Z"), "")), Ok(TIME));
    let line = time(Values::i64s(&[1_767_225_600]), "datetime64[s]");
    let line = line.map(|v| message::Variable { shape: vec![1], axes: vec!["time".into()], ..v });
    assert_eq!(at(line), Ok(TIME));
    // The golden frame has both, and they agree.
    let expected = Expected { grid: &weather(), time: &TimeFrom::Coordinate("time".into()) };
    assert_eq!(decode(Format::Da00, golden("frame"), &expected).unwrap().valid_time, TIME);
}

#[test]
fn what_is_no_time_is_refused() {
    let far = Values::Bytes(Dtype::Uint64, u64::MAX.to_le_bytes().to_vec().into());
    for (time, why) in [
        (None, "the time's coordinate \"time\" is missing; there is \"signal\""),
        (
            time(Values::f64s(&[1.0]), "datetime64[s]"),
            "variable \"time\": a time must be an int64, not float64",
        ),
        (time(far, "datetime64[ns]"), "variable \"time\": a time must be an int64, not uint64"),
        (
            time(Values::i64s(&[1, 2]), "datetime64[s]"),
            "variable \"time\": shape [2] where one time is needed",
        ),
        (time(Values::i64s(&[1]), "s"), "variable \"time\": unit \"s\" is not datetime64[...]"),
        (
            time(Values::i64s(&[1]), "datetime64[D]"),
            "variable \"time\": unit \"D\" is none of s, ms, us, ns",
        ),
        (
            time(Values::i64s(&[i64::MAX]), "datetime64[s]"),
            "variable \"time\": 9223372036854775807 s lies outside the years 1678 to 2262",
        ),
        (
            time(Values::i64s(&[i64::MIN]), "datetime64[ns]"),
            "variable \"time\": holds NaT, which is no time",
        ),
        (time(Values::text("soon"), ""), "variable \"time\": \"soon\" is not a time"),
        (
            time(Values::text("2026-01-01T00+99999999999999999999999999999999999999"), ""),
            "variable \"time\": \"2026-01-01T00+9999",
        ),
    ] {
        let said = at(time).unwrap_err();
        assert!(said.starts_with(why), "{said}\nnot\n{why}");
    }
}

#[test]
fn config_says_where() {
    let read = |text: &str| serde_json::from_str::<TimeFrom>(text).unwrap();
    assert_eq!(read("\"timestamp\""), TimeFrom::Timestamp);
    assert_eq!(read("{\"coordinate\": \"time\"}"), TimeFrom::Coordinate("time".into()));
    assert_eq!(serde_json::from_str::<Format>("\"ad00\"").unwrap(), Format::Ad00);
}
