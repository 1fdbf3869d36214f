//! What the command sets of its own environment when it starts (docs/speed.md).

use std::path::Path;
use std::process::{Command, Stdio};

/// A simulation that goes on until it is ended.
const ENDLESS: &str = "{sources: [{type: synthetic, field: {kind: rain, height: 32, width: 32}, rate: 1}], \
                       model: {untrained: {history: 2, horizon: 1}}}";

/// The environment of a job that was started under these variables as well, once it runs.
fn environment(told: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.yaml");
    std::fs::write(&job, ENDLESS).unwrap();
    let mut running = Command::new(env!("CARGO_BIN_EXE_physicnet"));
    let set = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS", "PHYSICNET_SETTLED"];
    for name in set.into_iter().chain(["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"]) {
        running.env_remove(name);
    }
    let mut running = running
        .arg("run")
        .arg(&job)
        .envs(told.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first word of it: by then it has been started again.
    let mut first = [0];
    std::io::Read::read_exact(running.stderr.as_mut().unwrap(), &mut first).unwrap();
    let path = Path::new("/proc").join(running.id().to_string()).join("environ");
    let all = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    all.split('\0').map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn it_sets_what_candle_and_the_allocator_ask_for() {
    let has = |all: &[String], wanted: &str| all.iter().any(|word| word == wanted);
    let all = environment(&[]);
    assert!(has(&all, "CANDLE_NUM_THREADS=1"), "{all:?}");
    if cfg!(target_env = "gnu") {
        assert!(has(&all, "MALLOC_MMAP_THRESHOLD_=33554432"), "{all:?}");
        assert!(has(&all, "MALLOC_TRIM_THRESHOLD_=268435456"), "{all:?}");
    }
    // What is told stays.
    let all = environment(&[("CANDLE_NUM_THREADS", "2"), ("MALLOC_TRIM_THRESHOLD_", "1000000")]);
    assert!(has(&all, "CANDLE_NUM_THREADS=2") && has(&all, "MALLOC_TRIM_THRESHOLD_=1000000"));
}

#[cfg(target_os = "linux")]
#[test]
fn it_starts_again_no_more_than_once() {
    // As where a loader has taken away what was set.
    let all = environment(&[("PHYSICNET_SETTLED", "1")]);
    assert!(!all.iter().any(|word| word.starts_with("CANDLE_NUM_THREADS")), "{all:?}");
}
