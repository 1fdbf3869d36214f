//! Frames as they come in life: late, twice, corrected, missing, with a wrong clock.

use std::path::PathBuf;

use physicnet::config::{Job, parse};
use physicnet::engine;
use physicnet_connectors::SourceConfig;
use physicnet_connectors::zarr::ZarrSource;
use physicnet_stream::{Frame, Stop, Time};

use crate::house::{MINUTE, bytes, checkpoint, differences, frame, physicnet, run, store};

/// Runs a job over one store of frames at these minutes (and phases), under a gap policy; the
/// sorted reference minutes of its forecasts, and the reasons of its rejects by offset.
fn told(minutes: &[(Time, f32)], admission: &str) -> (Vec<Time>, Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let frames: Vec<_> = minutes
        .iter()
        .enumerate()
        .map(|(k, &(minute, phase))| frame(k as u64, minute * MINUTE, phase))
        .collect();
    store(&folder.path().join("s.zarr"), &frames);
    checkpoint(&folder.path().join("model.safetensors"));
    let text = format!(
        "sources: [{{type: zarr, path: '{at}/s.zarr', cadence: 60s}}]\n\
         model: {{checkpoint: '{at}/model.safetensors'}}\n\
         sinks: [{{type: zarr, path: '{at}/out.zarr', fsync: false}}]\n\
         rejects: {{path: '{at}/rejects', fsync: false}}\nadmission: {admission}\n"
    );
    let job = folder.path().join("job.yaml");
    std::fs::write(&job, text).unwrap();
    run(&["run", job.to_str().unwrap()]);
    let stored = physicnet_connectors::zarr::ZarrSink::new(format!("{at}/out.zarr"));
    let source = physicnet_connectors::zarr::ZarrSource::new(format!("{at}/s.zarr"));
    let archive = physicnet_connectors::zarr::Archive::open(&source).unwrap();
    let catalogue = archive.sensors().iter().map(std::sync::Arc::clone).collect();
    let progress = physicnet_connectors::zarr::progress(&stored, &catalogue).unwrap();
    let last = progress.values().map(|p| p.written_until / MINUTE).collect::<Vec<_>>();
    let mut rejects = Vec::new();
    for (name, content) in bytes(&folder.path().join("rejects")) {
        if name.extension().is_some_and(|extension| extension == "json") {
            let said: serde_json::Value = serde_json::from_slice(&content).unwrap();
            let reason = said["reason"].as_str().or(said["reason"]["reason"].as_str());
            let offset = name.file_stem().unwrap().to_string_lossy().into_owned();
            rejects.push((offset, reason.unwrap_or_default().to_owned()));
            let beside = folder.path().join("rejects").join(name.with_extension("npy"));
            assert!(beside.exists(), "{}", beside.display());
        }
    }
    // Count the forecasts by their chunks, one each.
    let chunks = bytes(&folder.path().join("out.zarr/u/c")).len() as Time;
    (last.into_iter().chain([chunks]).collect(), rejects)
}

#[test]
fn bad_frames_go_to_the_rejects_and_the_job_goes_on() {
    let minutes = [
        (0, 0.0),
        (1, 0.0),
        (2, 0.0),
        (1, 0.5), // 3: corrected
        (3, 0.0),
        (500_000, 0.0), // 5: a wrong clock
        (4, 0.0),
        (-5, 0.0), // 7: late
        (5, 0.0),
    ];
    let (forecasts, rejects) = told(&minutes, "{}");
    // References 2, 3, 4 and 5; the newest is 5.
    assert_eq!(forecasts, [5, 4]);
    let reasons: Vec<_> = rejects.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["corrected", "absurd_time", "late"]);
    let offsets: Vec<_> =
        rejects.iter().map(|(offset, _)| offset.trim_start_matches('0')).collect();
    assert_eq!(offsets, ["3", "5", "7"]);
}

#[test]
fn a_misshapen_frame_goes_to_the_rejects_and_the_job_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let series: Vec<_> = (0..8).map(|k| frame(k, k as Time * MINUTE, 0.0)).collect();
    store(&folder.path().join("s.zarr"), &series);
    let small = |k| {
        let whole = frame(k, (k as Time + 3) * MINUTE, 0.0);
        Frame { shape: [1, 6, 7], data: whole.data[..42].to_vec(), ..whole }
    };
    store(&folder.path().join("small.zarr"), &[small(0), small(1)]);
    checkpoint(&folder.path().join("model.safetensors"));
    let run = |out: &str, strangers: bool| {
        let text = format!(
            "sources: [{{type: zarr, path: '{at}/s.zarr'}}]\n\
             model: {{checkpoint: '{at}/model.safetensors'}}\n\
             sinks: [{{type: zarr, path: '{at}/{out}.zarr', fsync: false}}]\n\
             rejects: {{path: '{at}/{out}-rejects', fsync: false}}\n"
        );
        let job: Job = parse(&text, false).unwrap();
        let mut parts = job.open().unwrap();
        if strangers {
            // A store has one grid, and so have the sensors of a job: only from beside it can
            // frames of the same name and another shape come.
            let source = ZarrSource::new(format!("{at}/small.zarr"));
            let source = ZarrSource { sensor: Some("s".into()), ..source };
            parts.sources.push(SourceConfig::Zarr(source).open("job").unwrap());
        }
        engine::run(parts, &job.cluster(), &Stop::default()).unwrap();
    };
    run("alone", false);
    run("both", true);
    let differ = differences(&folder.path().join("alone.zarr"), &folder.path().join("both.zarr"));
    assert_eq!(differ, Vec::<PathBuf>::new());
    assert!(bytes(&folder.path().join("alone-rejects")).is_empty());
    let rejects = bytes(&folder.path().join("both-rejects"));
    for (offset, time) in [("0", "1970-01-01T00:03:00Z"), ("1", "1970-01-01T00:04:00Z")] {
        let said = &rejects[&PathBuf::from(format!("s/{offset}.json"))];
        let said: serde_json::Value = serde_json::from_slice(said).unwrap();
        assert_eq!((&said["reason"], &said["valid_time"]), (&"misshapen".into(), &time.into()));
        assert_eq!(said["shape"], serde_json::json!([1, 6, 7]));
        let why = "42 values of shape [1, 6, 7] where the grid has [1, 12, 17]";
        assert_eq!(said["details"]["why"], why);
        assert!(rejects.contains_key(&PathBuf::from(format!("s/{offset}.npy"))));
    }
    assert_eq!(rejects.len(), 4);
}

#[test]
fn an_exact_repeat_is_counted_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let mut frames: Vec<_> = (0..5).map(|k| frame(k, k as Time * MINUTE, 0.0)).collect();
    let mut again = frames[2].clone();
    again.offset = 5;
    frames.push(again);
    store(&folder.path().join("s.zarr"), &frames);
    let job = folder.path().join("job.yaml");
    let text = format!(
        "sources: [{{type: zarr, path: '{at}/s.zarr', cadence: 60s}}]\n\
         model: {{untrained: {{history: 4, horizon: 1, quantization: none}}}}\n\
         rejects: {{path: '{at}/rejects', fsync: false}}\n"
    );
    std::fs::write(&job, text).unwrap();
    let output =
        physicnet().env("RUST_LOG", "info").args(["run", job.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\"duplicate\": 1"), "{said}");
    assert!(bytes(&folder.path().join("rejects")).is_empty());
}

#[test]
fn gaps_follow_their_policy() {
    let gap = [0, 1, 2, 3, 6, 7, 8].map(|minute| (minute, 0.0));
    // Filled: 2, 3, 6, 7, 8. Started anew after the gap: 2, 3, 8.
    for (admission, expected) in [
        ("{gap: hold}", [8, 5]),
        ("{gap: interpolate}", [8, 5]),
        ("{gap: skip}", [8, 3]),
        ("{gap: hold, largest_gap: 1}", [8, 3]),
    ] {
        let (forecasts, rejects) = told(&gap, admission);
        assert_eq!(forecasts, expected, "{admission}");
        assert!(rejects.is_empty());
    }
}

/// What a job over one store of these frames says of itself, and whether it succeeds.
fn said(frames: &[Frame], source: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    store(&folder.path().join("s.zarr"), frames);
    let job = folder.path().join("job.yaml");
    let text = format!(
        "sources: [{{type: zarr, path: '{at}/s.zarr', {source}}}]\n\
         model: {{untrained: {{history: 4, horizon: 1, quantization: none}}}}\n"
    );
    std::fs::write(&job, text).unwrap();
    let output =
        physicnet().env("RUST_LOG", "info").args(["run", job.to_str().unwrap()]).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_sensor_that_sees_nothing_is_told_once() {
    let series = |minutes: &[Time]| -> Vec<Frame> {
        let at = |(k, minute): (usize, &Time)| frame(k as u64, minute * MINUTE, 0.0);
        minutes.iter().enumerate().map(at).collect()
    };
    let mut frames = series(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for blind in &mut frames[3..6] {
        blind.data.fill(f32::NAN);
    }
    frames[7].data[1..].fill(f32::NAN);
    let (ran, told) = said(&frames, "cadence: 60s");
    let blind = "s: all pixels of its frames are missing since 1970-01-01T00:03:00Z";
    let back = "s: its frames are measured again since 1970-01-01T00:06:00Z";
    for (line, begins) in [(blind, "are missing since"), (back, "measured again")] {
        assert!(ran && told.contains(line), "{told}");
        assert_eq!(told.matches(begins).count(), 1, "{told}");
    }
    assert!(!told.contains("begins anew"), "{told}");

    let (ran, told) = said(&series(&[0, 1, 2, 9, 10, 12, 13]), "cadence: 60s");
    let gap =
        "s: no frame that could be used between 1970-01-01T00:02:00Z and 1970-01-01T00:09:00Z";
    assert!(ran && told.contains(gap), "{told}");
    assert_eq!(told.matches("begins anew").count(), 1, "{told}");
}

#[test]
fn a_cadence_that_is_not_the_datas_is_told() {
    let series: Vec<_> = (0..9).map(|k| frame(k, 5 * k as Time * MINUTE, 0.0)).collect();
    for (source, goes, expected) in [
        ("cadence: 5min", true, ""),
        ("cadence: 1min", true, "cadence 1min, and its times are 5min apart"),
        ("cadence: 10min", false, "cadence: 10min, and the times of"),
        ("cadence: 5", false, "duration 5: has no unit; write e.g."),
        ("poll: 5", false, "duration 5: has no unit; write e.g."),
    ] {
        let (ran, told) = said(&series, source);
        assert!(ran == goes && told.contains(expected), "{source}: {told}");
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.yaml");
    for (text, expected) in [
        ("sources: [{type: zarr, path: absent.zarr}]\nmodel: {untrained: {}}", "absent.zarr"),
        ("sources: [{type: zarr, path: a.zarr}]\nmodel: {untrained: {histry: 3}}", "histry"),
        ("sources: [{type: zarr, path: a.zarr}]", "checkpoint"),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in ["run", "validate"] {
            let output = physicnet().args([command, file.to_str().unwrap()]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(expected) && !said.contains("panicked"), "{said}");
        }
    }
}

#[test]
fn what_could_not_go_well_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let series: Vec<_> = (0..9).map(|k| frame(k, k as Time * MINUTE, 0.0)).collect();
    store(&folder.path().join("s.zarr"), &series);
    std::fs::write(folder.path().join("empty"), "").unwrap();
    let before = bytes(folder.path());
    let file = tempfile::NamedTempFile::new().unwrap();
    for (more, expected) in [
        ("sinks: [{type: zarr, path: AT/a, products: [advecton]}]", "advecton"),
        ("sinks: [{type: zarr, path: AT/a, products: [mean, mean]}]", "named twice"),
        ("sinks: [{type: zarr, path: AT/a, products: [sharp]}]", "no sharp head"),
        ("sinks: [{type: zarr, path: AT/a, products: [network]}]", "no `learn`"),
        ("scoring: {products: [advecton]}", "scoring.products"),
        ("sinks: [{type: zarr, path: AT/a}, {type: zarr, path: AT/./a}]", "sinks[1]"),
        ("sinks: [{type: zarr, path: 'AT/{sensro}'}]", "{sensro}"),
        ("rejects: {path: AT/empty}", "rejects.path"),
        ("rejects: {path: AT/s.zarr}", "sources[0]"),
        ("dashboard: {listen: '127.0.0.1:0', token_file: AT/absent}", "dashboard.token_file"),
        ("dashboard: {listen: '127.0.0.1:0', token_file: AT/empty}", "dashboard.token_file"),
    ] {
        let text = format!(
            "sources: [{{type: zarr, path: '{at}/s.zarr'}}]\n\
             model: {{untrained: {{history: 4, horizon: 1, quantization: none, sharp: false}}}}\n{}",
            more.replace("AT", &at)
        );
        std::fs::write(file.path(), text).unwrap();
        for command in ["validate", "run"] {
            let output = physicnet().args([command, file.path().to_str().unwrap()]).output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command} {more}: {said}");
            assert!(said.contains(expected), "{command} {more}: {said}");
        }
    }
    assert_eq!(bytes(folder.path()), before);
}

#[test]
fn a_source_that_was_made_anew_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    checkpoint(&folder.path().join("model.safetensors"));
    let text = format!(
        "sources: [{{type: zarr, path: '{at}/s.zarr', cadence: 60s}}]\n\
         model: {{checkpoint: '{at}/model.safetensors'}}\n\
         sinks: [{{type: zarr, path: '{at}/out.zarr', fsync: false}}]\n"
    );
    let job = folder.path().join("job.yaml");
    std::fs::write(&job, text).unwrap();
    let source = folder.path().join("s.zarr");
    for (frames, from, told) in [
        (20, 0, None),
        (8, 0, Some("has 8 frames")),
        (30, 50, Some("frame 19 of its store")),
        (30, 0, None),
    ] {
        let _ = std::fs::remove_dir_all(&source);
        let time = |k: u64| (k as Time + from) * MINUTE;
        let series: Vec<_> = (0..frames).map(|k| frame(k, time(k), 0.0)).collect();
        store(&source, &series);
        let output = physicnet().args(["run", job.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), told.is_none(), "{said}");
        for word in told.into_iter().flat_map(|told| [told, "made anew", "s.zarr"]) {
            assert!(said.contains(word), "{said}");
        }
    }
}
