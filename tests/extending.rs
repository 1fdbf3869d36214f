//! The library as its users meet it: the examples run, and the guide shows them as they are.

use std::sync::Mutex;

use physicnet_stream::Forecast;

#[allow(dead_code)] // an example's own `main` is for people
#[path = "../examples/expert.rs"]
mod expert;
#[allow(dead_code)]
#[path = "../examples/source.rs"]
mod source;
#[allow(dead_code)]
#[path = "../examples/stages.rs"]
mod stages;

const MINUTE: i64 = 60_000_000_000;

#[test]
fn the_stages_forecast_a_stream_of_ones_own() {
    static TOLD: Mutex<Vec<Forecast>> = Mutex::new(Vec::new());
    stages::forecast(|forecast| TOLD.lock().unwrap().push(forecast.clone())).unwrap();
    let told = TOLD.lock().unwrap();
    // Of ten frames the first two fill the window of three.
    let times: Vec<_> = told.iter().map(|forecast| forecast.reference_time / MINUTE).collect();
    assert_eq!(times, (2..10).collect::<Vec<_>>());
    for forecast in &*told {
        for (lead, field) in forecast.served().data.chunks_exact(32 * 48).enumerate() {
            let spot = (0..field.len()).max_by(|&a, &b| field[a].total_cmp(&field[b])).unwrap();
            let minute = forecast.valid_time(lead + 1) / MINUTE;
            let truth = (16 * 48 + 8 + 2 * minute) as usize;
            assert!(spot.abs_diff(truth) <= 1, "minute {minute}: {spot} instead of {truth}");
        }
    }
}

#[test]
fn a_source_of_ones_own_runs_in_a_job() {
    static TOLD: Mutex<Vec<Forecast>> = Mutex::new(Vec::new());
    source::forecast(|forecast| TOLD.lock().unwrap().push(forecast.clone())).unwrap();
    let told = TOLD.lock().unwrap();
    assert_eq!(told.len(), 60 - 3);
    assert!(told.iter().all(|forecast| forecast.served().data[0] == 373.0));
}

#[test]
fn an_expert_of_ones_own_is_scored_beside_the_others() {
    let report = expert::score().unwrap();
    let last = |product: &str| report.variables[0].products[product][5]["mse"];
    assert!(last("advection") < last("fading"), "simulated rain is carried well");
    assert!(last("fading") < last("persistence"));
}

#[test]
fn the_guide_shows_the_examples_as_they_are() {
    let guide = include_str!("../docs/extend.md");
    let blocks: Vec<&str> =
        guide.split("```rust\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let files = [
        include_str!("../examples/stages.rs"),
        include_str!("../examples/source.rs"),
        include_str!("../examples/expert.rs"),
    ];
    assert!(blocks == files, "docs/extend.md differs from examples/: copy them there");
}
