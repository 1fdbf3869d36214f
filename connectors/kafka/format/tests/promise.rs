//! What docs/messages.md promises of our own messages, byte for byte.

use std::path::Path;

use physicnet_stream::{Product, Serving};

use super::super::{forecast as write_forecast, frame as write_frame, parse};
use super::*;

fn count(shape: &[usize]) -> Vec<f32> {
    let mut data: Vec<f32> = (0..shape.iter().product()).map(|k: usize| k as f32 / 4.0).collect();
    data[1] = f32::NAN;
    data
}

fn ours() -> Vec<(String, Format, Vec<u8>)> {
    let mut messages = Vec::new();
    for (grid, channels) in [(rain(), "one"), (wind(), "two")] {
        let sensor = sensor(grid.clone());
        let shape = grid.shape();
        let data = count(&shape);
        let frame = Frame {
            sensor: "any".into(),
            valid_time: TIME,
            offset: 0,
            shape,
            data,
            replay: false,
            scored: false,
            record: None,
        };
        let mut forecast = forecast(&grid, 2, &mut Random(0));
        let data = count(&forecast.shape);
        forecast.products = vec![Product { name: "mean".into(), data: data.into() }];
        for format in FORMATS {
            let end = format!("{format:?}").to_lowercase();
            let bytes = write_frame(format, &frame, &sensor).unwrap();
            messages.push((format!("frame_{channels}.{end}"), format, bytes));
            let bytes = write_forecast(format, &forecast, &sensor).unwrap();
            messages.push((format!("forecast_{channels}.{end}"), format, bytes));
        }
    }
    messages
}

#[test]
fn the_bytes_are_as_promised() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/format/golden/ours");
    let rewrite = std::env::var_os("PHYSICNET_GOLDEN").is_some();
    for (name, _, bytes) in ours() {
        let path = folder.join(&name);
        if rewrite {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{name} is not what it was");
    }
}

#[test]
fn the_page_names_every_variable() {
    let page = include_str!("../../../../docs/messages.md");
    for (file, format, bytes) in ours() {
        for variable in parse(format, &bytes).unwrap().variables {
            // Those that the grid names, `y` and `u` here, the page has as examples.
            let named = page.contains(&format!("`{}`", variable.name));
            assert!(named, "{file}: docs/messages.md does not name {}", variable.name);
        }
    }
}

#[test]
fn a_job_that_learns_says_what_it_serves() {
    let page = include_str!("../../../../docs/messages.md");
    assert!(page.contains("| `served` |"));
    let grid = rain();
    let mut forecast = forecast(&grid, 2, &mut Random(0));
    forecast.serving = Some(Serving::Advection);
    for format in FORMATS {
        let bytes = write_forecast(format, &forecast, &sensor(grid.clone())).unwrap();
        let message = parse(format, &bytes).unwrap();
        let served = message.get("served").and_then(|served| served.values.as_text());
        assert_eq!(served, Some("advection"), "{format:?}");
    }
}
