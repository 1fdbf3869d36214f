//! A store that another program appends to, followed while it grows.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::house::{checkpoint, differences, files, python, run, start};

const FRAMES: usize = 25;

#[cfg(unix)]
#[test]
fn what_xarray_appends_is_forecast_as_if_it_had_always_been_there() {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/growing.py");
    // A chunk a frame, and chunks that are written again with every frame.
    for chunk in ["1", "4"] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        checkpoint(&at.join("model.safetensors"));
        let job = |name: &str, more: &str| {
            let at = at.display();
            let text = format!(
                "sources: [{{type: zarr, path: '{at}/s.zarr', cadence: 60s{more}}}]\n\
                 model: {{checkpoint: '{at}/model.safetensors'}}\n\
                 sinks: [{{type: zarr, path: '{at}/{name}.zarr', fsync: false}}]\n"
            );
            let path = folder.path().join(format!("{name}.yaml"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut writer = Command::new(&python)
            .args(["-W", "ignore"])
            .arg(&script)
            .args([at.join("s.zarr").to_str().unwrap(), &FRAMES.to_string(), chunk, "0.03"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "begun");

        let follow = job("followed", ", follow: true, poll: 10ms");
        let reader = start(&["run", follow.to_str().unwrap()]);
        assert!(writer.wait().unwrap().success());
        // The first window is of three frames.
        let patience = Instant::now();
        while files(&at.join("followed.zarr/u/c")).len() < FRAMES - 2 {
            assert!(patience.elapsed() < Duration::from_secs(60), "the last frame never came");
            std::thread::sleep(Duration::from_millis(10));
        }
        let id = reader.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let whole = job("whole", "");
        run(&["run", whole.to_str().unwrap()]);
        let torn = differences(&at.join("whole.zarr"), &at.join("followed.zarr"));
        assert_eq!(torn, Vec::<PathBuf>::new(), "chunks of {chunk}");
    }
}
