//! The command that trains, as its users interrupt it and as they feed it.

#![cfg(unix)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use physicnet_connectors::zarr::ArchiveWriter;
use physicnet_stream::{Axis, Frame, Grid, Variable};

use super::house::{MINUTE, frame, physicnet, run, start, store};

/// A training file over the store `data` that runs for so many steps, beside it.
fn file(folder: &Path, data: &str, out: &str, steps: u64, more: &str) -> String {
    let at = folder.display();
    let text = format!(
        "data: [{{path: '{at}/{data}'}}]\nout: '{at}/{out}'\nsteps: {steps}\nbatch: 1\n\
         validate_every: 5\nvalidate_windows: 2\nthreads: 1\n\
         model: {{history: 3, horizon: 2, hidden: 16, latent: 4, skip: 8, decoder: 8, \
         quantization: none}}\n\
         {more}\n"
    );
    let path = folder.join(format!("{out}.yaml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let series: Vec<Frame> = (0..24).map(|k| frame(k, k as i64 * MINUTE, 0.0)).collect();
    store(&at.join("a.zarr"), &series);
    let split = "split: {train: 0.6, validation: 0.4}";
    run(&["train", &file(at, "a.zarr", "whole", 300, split)]);
    let broken = file(at, "a.zarr", "broken", 300, split);
    let child = start(&["train", &broken]);
    let csv = at.join("broken/metrics.csv");
    let begun = Instant::now();
    while std::fs::read_to_string(&csv).unwrap_or_default().lines().count() < 40 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not train");
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("stopped and saved; run it again to go on after "), "{told}");
    run(&["train", &broken]);
    for name in ["best.safetensors", "last.safetensors"] {
        let [whole, broken] = ["whole", "broken"].map(|out| std::fs::read(at.join(out).join(name)));
        assert!(whole.unwrap() == broken.unwrap(), "{name} differs");
    }
}

/// Frames are read when they are drawn: 704 MiB of them through 64 MiB of memory.
#[test]
fn an_archive_is_not_held_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let side = 256;
    let large = |step: u64| {
        let row: Vec<f32> = (0..side).map(|x| ((x + step as usize) as f32 * 0.1).sin()).collect();
        Frame {
            shape: [1, side, side],
            data: row.repeat(side),
            ..frame(step, step as i64 * MINUTE, 0.0)
        }
    };
    let grid = Grid {
        variables: vec![Variable { name: "u".into(), units: "m s-1".into() }],
        y: Axis::index("y", side),
        x: Axis::index("x", side),
    };
    let path = at.join("large.zarr");
    let mut writer = ArchiveWriter::create(&path, &grid, None, serde_json::Map::new()).unwrap();
    (0..2816).for_each(|step| writer.append(0, &large(step)).unwrap());
    writer.finish().unwrap();
    let more = "split: {train: 1, validation: 0}\ncrop: 16";
    let file = file(at, "large.zarr", "large", 100, more);
    let text = std::fs::read_to_string(&file).unwrap();
    let small = text.replace("large.zarr'}", "large.zarr', cache_mib: 16}");
    assert_ne!(small, text);
    std::fs::write(&file, small).unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -d 65536; exec \"$@\"", "sh"]).arg(physicnet().get_program());
    let output = limited.args(["train", &file]).env("MALLOC_ARENA_MAX", "2").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
