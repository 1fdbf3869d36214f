//! What fits a job's grid.

use physicnet_stream::{Axis, Grid};

use super::*;
use crate::kafka::format::describe;

/// `v[i][j] = (5 i + j) / 2 - 1`, as in the goldens.
fn golden_values() -> Vec<f32> {
    (0..20).map(|at| at as f32 * 0.5 - 1.0).collect()
}

#[test]
fn goldens_are_frames() {
    for name in ["frame", "bare"] {
        let measured = read(Format::Da00, golden(name), &weather()).unwrap();
        assert_eq!((measured.source_name.as_str(), measured.valid_time), ("grid0", TIME));
        assert_eq!((measured.shape, measured.data), ([1, 4, 5], golden_values()));
    }
    let measured = read(Format::Da00, golden("nan"), &weather()).unwrap();
    let mut expected = golden_values();
    (expected[0], expected[19]) = (f32::NAN, f32::INFINITY);
    assert!(same(&measured.data, &expected));

    let counts = Grid { variables: channels(&[("counts", "")]), ..rain() };
    let measured = read(Format::Da00, golden("int16"), &counts).unwrap();
    assert_eq!(measured.data, [0.0, 1.0, -1.0, 32767.0, -32768.0, 7.0]);

    let measured = read(Format::Da00, golden("edges"), &rain()).unwrap();
    assert_eq!(measured.data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn goldens_are_described() {
    let said = describe(Format::Da00, golden("forecast")).unwrap();
    assert_eq!(said.source_name, "grid0/forecast");
    assert_eq!((said.name.as_str(), said.unit.as_str(), said.dtype), ("t2m", "K", "float32"));
    assert_eq!(
        (said.axes, said.shape),
        (["lead_time", "lat", "lon"].map(String::from).to_vec(), vec![2, 4, 5])
    );
    assert_eq!(
        (said.reference_time, said.lead_times),
        (Some(TIME), vec![600_000_000_000, 1_200_000_000_000])
    );
    assert_eq!(said.data[20..], golden_values().iter().map(|v| v + 1.0).collect::<Vec<_>>());
    let said = describe(Format::Da00, golden("int16")).unwrap();
    assert_eq!((said.dtype, said.reference_time, said.lead_times), ("int16", None, vec![]));
}

#[test]
fn other_forms_of_the_same_frame() {
    let field: Vec<f32> = (0..6).map(|v| v as f32).collect();
    for variables in [
        vec![array("signal", &["y", "x"], &[2, 3])],
        vec![array("rain", &["y", "x"], &[2, 3])],
        vec![array("signal", &[], &[2, 3])],
        vec![array("signal", &["time", "y", "x"], &[1, 2, 3])],
        vec![array("signal", &["time", "level", "y", "x"], &[1, 1, 2, 3])],
        // `errors` and what nobody knows are not read.
        vec![
            array("errors", &["y", "x"], &[2, 3]),
            array("signal", &["y", "x"], &[2, 3]),
            array("phase", &["m"], &[7]),
            array("x", &["x", "y"], &[3, 2]),
            array("y", &["station"], &[9]),
        ],
    ] {
        assert_eq!(judge(variables, &rain()).unwrap().data, field);
    }
    let both: Vec<f32> = (0..12).map(|v| v as f32).collect();
    let together = vec![array("signal", &["time", "component", "y", "x"], &[1, 2, 2, 3])];
    assert_eq!(judge(together, &wind()).unwrap().data, both);
    let apart = vec![array("v", &["y", "x"], &[2, 3]), array("u", &["y", "x"], &[2, 3])];
    assert_eq!(judge(apart, &wind()).unwrap().data, [&field[..], &field].concat());
}

#[test]
fn coordinates_may_round_and_may_be_edges() {
    let with = |values: Values<'static>, count: usize| {
        let coordinate = message::Variable { values, ..array("x", &["x"], &[count]) };
        vec![array("signal", &["y", "x"], &[2, 3]), coordinate]
    };
    assert!(judge(with(Values::f64s(&[0.5, 1.5, 2.5 + 9e-7]), 3), &rain()).is_ok());
    assert!(judge(with(Values::f64s(&[0.0, 1.0, 2.0, 3.0]), 4), &rain()).is_ok());
    // A fine axis far from 0, as f32 can tell it.
    let fine = [60.0, 60.01, 60.02];
    let grid = Grid { x: axis("x", &fine), ..rain() };
    let rounded = fine.map(|v| v as f32).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let rounded = Values::Bytes(super::super::dtype::Dtype::Float32, rounded.into());
    assert!(judge(with(rounded, 3), &grid).is_ok());
    for (values, count, why) in [
        (vec![0.5, 1.5, 2.5 + 2e-6], 3, "coordinate \"x\": value 2 is 2.500002, the grid's is 2.5"),
        (vec![0.5, f64::NAN, 2.5], 3, "coordinate \"x\": value 1 is NaN, the grid's is 1.5"),
        (vec![2.5, 1.5, 0.5], 3, "coordinate \"x\": value 0 is 2.5, the grid's is 0.5"),
        (vec![0.5, 1.5], 2, "coordinate \"x\": 2 values for 3 pixels"),
        (vec![f64::MAX; 4], 4, "coordinate \"x\": value 0 is 1797"),
    ] {
        let said = judge(with(Values::f64s(&values), count), &rain()).unwrap_err();
        assert!(said.starts_with(why), "{said}");
    }
}

#[test]
fn every_type_becomes_f32() {
    use super::super::dtype::Dtype;
    let extreme: [(Dtype, Vec<u8>, f32); 10] = [
        (Dtype::Int8, i8::MIN.to_le_bytes().into(), -128.0),
        (Dtype::Uint8, u8::MAX.to_le_bytes().into(), 255.0),
        (Dtype::Int16, i16::MIN.to_le_bytes().into(), -32_768.0),
        (Dtype::Uint16, u16::MAX.to_le_bytes().into(), 65_535.0),
        (Dtype::Int32, i32::MIN.to_le_bytes().into(), -2_147_483_648.0),
        (Dtype::Uint32, u32::MAX.to_le_bytes().into(), 4_294_967_295.0),
        (Dtype::Int64, i64::MIN.to_le_bytes().into(), -9_223_372_036_854_775_808.0),
        (Dtype::Uint64, u64::MAX.to_le_bytes().into(), 18_446_744_073_709_551_615.0),
        (Dtype::Float32, f32::MIN_POSITIVE.to_le_bytes().into(), f32::MIN_POSITIVE),
        (Dtype::Float64, 1e300_f64.to_le_bytes().into(), f32::INFINITY),
    ];
    let point = |name| Axis { values: vec![0.0], ..Axis::index(name, 1) };
    let grid = Grid { variables: channels(&[("n", "")]), y: point("y"), x: point("x") };
    for (dtype, bytes, expected) in extreme {
        let values = Values::Bytes(dtype, bytes.into());
        let signal = message::Variable { values, ..array("signal", &["y", "x"], &[1, 1]) };
        assert_eq!(judge(vec![signal], &grid).unwrap().data, [expected], "{dtype:?}");
    }
}
