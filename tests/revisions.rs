//! Late and corrected frames: whatever the order in which frames come, and however often the job
//! is killed, the last forecasts and the scores are those of frames that came in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use physicnet_connectors::zarr::{Archive, ZarrSource};
use physicnet_stream::{Frame, Time};
use serde_json::Value;

use crate::house::{
    Coordinates, MINUTE, bytes, checkpoint, coordinates, frame, physicnet, run, start, store,
};

/// How many cadences late frames come, at most.
const WITHIN: u64 = 3;
pub(crate) const SENSORS: usize = 3;

fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// A frame of `version`; what counts in the end is version 0.
pub(crate) fn version(step: u64, sensor: usize, version: u64) -> Frame {
    frame(step, step as Time * MINUTE, sensor as f32 + 0.3 * version as f32)
}

/// Which steps a sensor measures: now and then one is missing, once four in a row.
fn measured(steps: u64, sensor: usize) -> impl Iterator<Item = u64> {
    (0..steps).filter(move |step| {
        !(step * 7 + sensor as u64 * 3).is_multiple_of(11) && !(12..16).contains(&(step % 40))
    })
}

/// Stores of all sensors, in order or as `shuffled` by a seed, with versions that are corrected.
pub(crate) fn site(folder: &Path, steps: u64, shuffled: Option<u64>) {
    site_of(folder, steps, shuffled, version);
}

/// The same of frames that `make` makes of step, sensor and version; the steps of each sensor in
/// the order in which they come.
pub(crate) fn site_of(
    folder: &Path,
    steps: u64,
    shuffled: Option<u64>,
    make: impl Fn(u64, usize, u64) -> Frame,
) -> Vec<Vec<u64>> {
    std::fs::create_dir_all(folder).unwrap();
    let mut orders = Vec::new();
    for sensor in 0..SENSORS {
        let coming = arrivals(steps, sensor, shuffled);
        let frames: Vec<Frame> = coming.iter().map(|(step, of)| make(*step, sensor, *of)).collect();
        store(&folder.join(format!("s{sensor}.zarr")), &frames);
        orders.push(coming.into_iter().map(|(step, _)| step).collect());
    }
    orders
}

/// The steps and versions that come of a sensor, in their order.
pub(crate) fn arrivals(steps: u64, sensor: usize, shuffled: Option<u64>) -> Vec<(u64, u64)> {
    let mut coming = Vec::new();
    let mut state = shuffled.unwrap_or(0) * 31 + sensor as u64 + 1;
    for step in measured(steps, sensor) {
        let last = step + shuffled.map_or(0, |_| draw(&mut state, WITHIN + 1));
        let corrected = shuffled.is_some() && draw(&mut state, 3) == 0;
        let first = step + draw(&mut state, last - step + 1);
        if corrected && first < last {
            coming.push((first, (step, 1)));
        }
        coming.push((last, (step, 0)));
    }
    coming.sort_by_key(|(place, _)| *place);
    coming.into_iter().map(|(_, arrival)| arrival).collect()
}

/// The job over a site, writing below `out`; its file.
pub(crate) fn job(folder: &Path, model: &Path, out: &str, gap: &str, more: &str) -> String {
    let at = folder.display();
    let sources: Vec<String> = (0..SENSORS)
        .map(|k| format!("  - {{type: zarr, path: '{at}/s{k}.zarr', cadence: 60s}}\n"))
        .collect();
    let text = format!(
        "sources:\n{}model: {{checkpoint: '{}'}}\n\
         sinks: [{{type: zarr, path: '{at}/{out}/{{sensor}}.zarr', fsync: false}}]\n\
         admission: {{gap: {gap}, revise_within: {WITHIN}}}\n\
         scoring: {{thresholds: [0.1], store: '{at}/{out}/scores.jsonl'}}\n{more}\n",
        sources.concat(),
        model.display(),
    );
    let path = folder.join(format!("{out}.yaml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(crate) type Forecasts = BTreeMap<(usize, Time, usize), Vec<u32>>;
pub(crate) type Scores = BTreeMap<String, Value>;

/// How often each reference time of a site's sensors was forecast again, as its stores say; none
/// without a Python to read them.
fn revisions(out: &Path) -> Option<Vec<BTreeMap<i64, u64>>> {
    let stores: Vec<_> = (0..SENSORS).map(|k| out.join(format!("s{k}.zarr"))).collect();
    let of = |told: Coordinates| told.time.into_iter().zip(told.revision).collect();
    Some(coordinates(&stores)?.into_iter().map(of).collect())
}

/// What stands in a site's output: each sensor's forecasts by reference time and lead, bit for
/// bit, and what was scored, over the last hour, the last day and all time.
pub(crate) fn outcome(out: &Path) -> (Forecasts, Scores) {
    let mut forecasts = BTreeMap::new();
    for sensor in 0..SENSORS {
        let mut config = ZarrSource::new(out.join(format!("s{sensor}.zarr")));
        config.variables = vec!["u".into()];
        config.cadence = Some("60s".into());
        let archive = Archive::open(&config).unwrap();
        for lead in 0..archive.sensors().len() {
            for at in 0..archive.times(lead).len() {
                let frame = archive.read(lead, at).unwrap();
                let bits = frame.data.iter().map(|value| value.to_bits()).collect();
                forecasts.insert((sensor, frame.valid_time, lead), bits);
            }
        }
    }
    let mut scores = BTreeMap::new();
    for line in std::fs::read_to_string(out.join("scores.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let (Some(key), Some(series)) = (line.get("key"), line.get("series")) {
            let mut series = series.clone();
            // What was corrected away leaves a sum of nothing behind.
            for span in ["hours", "fine"] {
                let parts = series[span].as_object_mut().unwrap();
                parts.retain(|_, sums| sums["observed"] != 0);
            }
            scores.insert(key.to_string(), series);
        }
    }
    assert!(!forecasts.is_empty() && !scores.is_empty());
    (forecasts, scores)
}

#[test]
fn any_order_of_arrival_ends_with_the_same_forecasts_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = at.join("model.safetensors");
    checkpoint(&model);
    for (seed, gap) in [(1, "hold"), (2, "interpolate"), (3, "skip")] {
        let (ordered, shuffled) =
            (at.join(format!("ordered-{seed}")), at.join(format!("shuffled-{seed}")));
        site(&ordered, 44, None);
        site(&shuffled, 44, Some(seed));
        run(&["run", &job(&ordered, &model, "out", gap, "")]);
        let expected = outcome(&ordered.join("out"));
        for (out, more) in [
            ("one", "workers: 1\nbatch: 1\nin_flight: 1"),
            ("two", "workers: 2\nbatch: 8\nin_flight: 16"),
        ] {
            let file = job(&shuffled, &model, out, gap, more);
            let output = physicnet().env("RUST_LOG", "info").args(["run", &file]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            let (forecasts, scores) = outcome(&shuffled.join(out));
            assert!(forecasts == expected.0, "{gap}, {out}: other forecasts");
            assert_eq!(scores, expected.1, "{gap}, {out}");
            // Every forecast that was made is the first of its reference time or a revision of it.
            let Some(told) = revisions(&shuffled.join(out)) else { continue };
            let made: u64 =
                told.iter().flat_map(BTreeMap::values).map(|revision| revision + 1).sum();
            assert!(said.contains(&format!("forecasts={made} ")), "{made}: {said}");
            let times = |told: &[BTreeMap<i64, u64>]| -> Vec<Vec<i64>> {
                told.iter().map(|of| of.keys().copied().collect()).collect()
            };
            let ordered = revisions(&ordered.join("out")).unwrap();
            assert_eq!(times(&told), times(&ordered));
            for (sensor, (told, ordered)) in told.iter().zip(&ordered).enumerate() {
                assert!(ordered.values().all(|revision| *revision == 0), "{ordered:?}");
                let again = told.values().filter(|revision| **revision > 0).count();
                assert!(again > 0, "s{sensor}: {told:?}");
            }
        }
        // Once more with nothing to do: not a byte moves.
        let before = bytes(&shuffled.join("two"));
        run(&["run", &job(&shuffled, &model, "two", gap, "workers: 2")]);
        assert!(
            before == bytes(&shuffled.join("two")),
            "{gap}: a run without news changed something"
        );
    }
}

#[test]
fn killed_at_any_moment_the_revised_forecasts_and_scores_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = at.join("model.safetensors");
    checkpoint(&model);
    let (ordered, shuffled) = (at.join("ordered"), at.join("shuffled"));
    site(&ordered, 120, None);
    site(&shuffled, 120, Some(9));
    run(&["run", &job(&ordered, &model, "out", "hold", "")]);
    let file = job(&shuffled, &model, "out", "hold", "workers: 2\nin_flight: 2");
    // So slow that some are killed between two writes of the scores.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("cadence: 60s}", "cadence: 60s, rate: 40}")).unwrap();
    for after in [60, 700, 1_300, 1_700, 150] {
        let mut child = start(&["run", &file]);
        std::thread::sleep(Duration::from_millis(after));
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Killed in the middle: some is there, and not all.
    let rest = outcome(&shuffled.join("out"));
    run(&["run", &file]);
    let (expected, told) = (outcome(&ordered.join("out")), outcome(&shuffled.join("out")));
    assert!(rest.0.len() < told.0.len(), "all was done before the last run");
    assert!(told.0 == expected.0, "other forecasts");
    assert_eq!(told.1, expected.1);
}

#[test]
fn a_correction_too_old_for_windows_is_rejected_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = at.join("model.safetensors");
    checkpoint(&model);
    let scores = |name: &str, late: &[u64]| {
        let site = at.join(name);
        std::fs::create_dir_all(&site).unwrap();
        for sensor in 0..SENSORS {
            let mut frames: Vec<Frame> = (0..20).map(|step| version(step, sensor, 0)).collect();
            // Six cadences on, beyond what is revised but not beyond what is verified.
            frames.extend(late.iter().map(|of| version(13, sensor, *of)));
            store(&site.join(format!("s{sensor}.zarr")), &frames);
        }
        let more = format!("rejects: {{path: '{}/rejects', fsync: false}}", site.display());
        run(&["run", &job(&site, &model, "out", "hold", &more)]);
        let rejects = bytes(&site.join("rejects"));
        let rejected = rejects.keys().filter(|name| name.extension().is_some_and(|e| e == "json"));
        // What is there already is counted, not kept.
        assert_eq!(rejected.count(), SENSORS * late.len().min(1));
        outcome(&site.join("out"))
    };
    let plain = scores("plain", &[]);
    let corrected = scores("corrected", &[2]);
    assert!(corrected.0 == plain.0, "no forecast is revised");
    assert_ne!(corrected.1, plain.1, "the correction is verified");
    let back = scores("back", &[2, 0]);
    assert_eq!(back.1, plain.1, "and can be taken back, exactly");
}
