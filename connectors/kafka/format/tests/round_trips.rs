//! What we write, we read.

use super::super::{describe, forecast as write_forecast, frame as write_frame, source_name};
use super::*;

fn random_grid(random: &mut Random) -> Grid {
    let channels: Vec<Variable> = (0..1 + random.below(3))
        .map(|k| Variable {
            name: format!("v{k}"),
            units: ["", "K", "m/s"][random.below(3)].into(),
        })
        .collect();
    let mut axis = |name| Axis::index(name, 1 + random.below(17));
    Grid { y: axis("y"), x: axis("x"), variables: channels }
}

/// JSON has no infinities.
fn as_held(format: Format, data: &[f32]) -> Vec<f32> {
    let held = |v: &f32| if format == Format::Json && v.is_infinite() { f32::NAN } else { *v };
    data.iter().map(held).collect()
}

#[test]
fn frames_to_the_bit() {
    let mut random = Random(1);
    for _ in 0..500 {
        let grid = random_grid(&mut random);
        let sensor = sensor(grid.clone());
        let frame = frame(&grid, &mut random);
        for format in FORMATS {
            let bytes = write_frame(format, &frame, &sensor).unwrap();
            let measured = read(format, &bytes, &grid).unwrap();
            assert_eq!(measured.source_name, "radar/north");
            assert_eq!(measured.valid_time, frame.valid_time);
            assert_eq!(measured.shape, frame.shape);
            assert!(same(&measured.data, &as_held(format, &frame.data)), "{format:?}");
            assert_eq!(source_name(format, &bytes), Some("radar/north".into()));
        }
    }
}

#[test]
fn forecasts_to_the_bit() {
    let mut random = Random(2);
    for at in 0..300 {
        let grid = random_grid(&mut random);
        let sensor = sensor(grid.clone());
        let leads = 1 + random.below(5);
        // Whole seconds, and a reference time and a cadence that are not.
        let (late, cadence) =
            [(0, 300_000_000_000), (7, 300_000_000_000), (0, 1_500_000_000)][at % 3];
        let mut forecast = forecast(&grid, leads, &mut random);
        forecast.reference_time += late;
        forecast.cadence = Cadence::new(cadence).unwrap();
        for format in FORMATS {
            let bytes = write_forecast(format, &forecast, &sensor).unwrap();
            let said = describe(format, &bytes).unwrap();
            let shape: Vec<usize> = match forecast.shape {
                [leads, 1, height, width] => vec![leads, height, width],
                shape => shape.to_vec(),
            };
            assert_eq!((said.source_name.as_str(), said.shape), ("radar/north", shape));
            assert_eq!(said.timestamp, Some(forecast.reference_time));
            assert_eq!(said.reference_time, Some(forecast.reference_time));
            let lead_times: Vec<i64> = (1..=leads as i64).map(|k| k * cadence).collect();
            assert_eq!(said.lead_times, lead_times, "{format:?}");
            assert_eq!(said.model.as_deref(), Some("abc"));
            assert!(same(&said.data, &as_held(format, &forecast.served().data)), "{format:?}");
        }
    }
}

#[test]
fn what_does_not_fit_its_sensor_is_not_written() {
    let grid = rain();
    let sensor = sensor(weather());
    let mut random = Random(3);
    for format in FORMATS {
        let said = write_frame(format, &frame(&grid, &mut random), &sensor).unwrap_err();
        let why =
            "message of radar/north: shape [1, 2, 3] with 6 values does not fit its grid [1, 4, 5]";
        assert_eq!(said.to_string(), why);
        let mut none = forecast(&weather(), 2, &mut random);
        none.products.clear();
        assert!(write_forecast(format, &none, &sensor).is_err());
    }
}
