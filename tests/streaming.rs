//! The same forecasts, to the byte, however many workers and processes make them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use physicnet_connectors::zarr::{Archive, ZarrSource};

use crate::house::{bytes, differences, files, job, physicnet, run, site, start};

#[test]
fn workers_and_batches_cannot_be_seen_in_the_stores() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 20);
    let alone = job(at, "alone", "workers: 1\nbatch: 1\nin_flight: 1");
    run(&["run", alone.to_str().unwrap()]);
    // Five stores of eighteen forecasts and their coordinates.
    let whole = bytes(&at.join("alone"));
    assert!(whole.len() > 5 * 3 * 18, "{} files", whole.len());
    for (name, more) in [
        ("two", "workers: 2\nbatch: 8\nin_flight: 8"),
        ("four", "workers: 4\nbatch: 3\nin_flight: 64"),
    ] {
        let job = job(at, name, more);
        run(&["run", job.to_str().unwrap()]);
        assert_eq!(differences(&at.join("alone"), &at.join(name)), Vec::<PathBuf>::new(), "{name}");
    }
}

#[test]
fn two_processes_make_the_same_stores() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 12);
    let alone = job(at, "alone", "");
    run(&["run", alone.to_str().unwrap()]);
    let both = job(at, "both", "workers: 2");
    let (children, _) = pair(both.to_str().unwrap());
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(differences(&at.join("alone"), &at.join("both")), Vec::<PathBuf>::new());
    // The file may name the hosts as well: then only which one this is must be said.
    let hosts = hosts();
    let named = format!("workers: 1\nhosts: ['{}', '{}']", hosts[0], hosts[1]);
    let named = job(at, "named", &named);
    let run = |process| start(&["run", named.to_str().unwrap(), "--process", process]);
    for child in ["0", "1"].map(run) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(differences(&at.join("alone"), &at.join("named")), Vec::<PathBuf>::new());
}

/// Where two processes may listen. Free just now: another program may take them before they do.
fn hosts() -> [String; 2] {
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    ports.each_ref().map(|port| port.local_addr().unwrap().to_string())
}

/// Two processes that run a job together, and where they are.
fn pair(file: &str) -> ([Child; 2], [String; 2]) {
    let hosts = hosts();
    let all = hosts.join(",");
    let run = |process| start(&["run", file, "--hosts", &all, "--process", process]);
    (["0", "1"].map(run), hosts)
}

/// What each of two processes of differing jobs said, and how it ended.
fn apart(jobs: [&[&str]; 2]) -> [(Option<i32>, String); 2] {
    let all = hosts().join(",");
    let run = |process: usize| {
        let process_flag = process.to_string();
        let mut arguments = vec!["run", "--hosts", &all, "--process", &process_flag];
        arguments.extend(jobs[process]);
        start(&arguments)
    };
    [run(0), run(1)].map(|child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    })
}

#[test]
fn processes_that_are_not_alike_say_so_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 6);
    let whole = job(at, "whole", "");
    let fewer = job(at, "fewer", "");
    let text = std::fs::read_to_string(&whole).unwrap();
    let less: Vec<&str> = text.lines().filter(|line| !line.contains("s3.zarr")).collect();
    std::fs::write(&fewer, less.join("\n")).unwrap();
    let [whole, fewer] = [&whole, &fewer].map(|path| path.to_str().unwrap());
    for (jobs, why) in [
        ([&[whole, "--workers", "2"][..], &[whole]], "workers: process 1 has 1, process 0 has 2"),
        ([&[whole], &[fewer]], "sensors: process 1 has no sensor s3, process 0 has it"),
        ([&[fewer], &[whole]], "sensors: process 1 has it, process 0 has no sensor s3"),
    ] {
        for (code, said) in apart(jobs) {
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        }
    }
    assert!(!at.join("whole").exists() && !at.join("fewer").exists());
}

#[cfg(unix)]
#[test]
fn who_waits_for_its_cluster_ends_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 6);
    let job = job(at, "alone", "");
    let all = hosts().join(",");
    for process in ["0", "1"] {
        let mut command = physicnet();
        let command = command.args(["run", job.to_str().unwrap(), "--hosts", &all, "--process"]);
        let child = command.arg(process).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let (id, asked) = (child.id().to_string(), Instant::now());
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(asked.elapsed() < Duration::from_secs(5), "it waits on");
    }
}

#[test]
fn a_process_whose_peer_is_killed_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 16);
    let alone = job(at, "alone", "");
    run(&["run", alone.to_str().unwrap()]);
    let both = job(at, "both", "in_flight: 2");
    let whole = std::fs::read_to_string(&both).unwrap();
    for killed in [1, 0] {
        // Slow, so that they are in the midst of it when they have begun to write.
        std::fs::write(&both, whole.replace(".zarr'}", ".zarr', rate: 4}")).unwrap();
        let written = files(&at.join("both")).len();
        let (mut children, hosts) = pair(both.to_str().unwrap());
        let begun = Instant::now();
        while files(&at.join("both")).len() <= written + 20 {
            assert!(begun.elapsed() < Duration::from_secs(60), "they write nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        children[killed].kill().unwrap();
        for (process, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            if process != killed {
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{said}");
                let gone = format!("process {killed} at {} has gone", hosts[killed]);
                assert!(said.contains(&gone) && said.lines().count() == 1, "{said}");
            }
        }
    }
    std::fs::write(&both, whole).unwrap();
    let (children, _) = pair(both.to_str().unwrap());
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(differences(&at.join("alone"), &at.join("both")), Vec::<PathBuf>::new());
}

#[test]
fn killed_at_any_moment_it_ends_as_never_killed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 40);
    let whole = job(at, "whole", "workers: 2");
    run(&["run", whole.to_str().unwrap()]);
    let killed = job(at, "killed", "workers: 2\nin_flight: 2");
    let file = killed.to_str().unwrap();
    let fast = std::fs::read_to_string(file).unwrap();
    // Slow, so that it is in the midst of it when it is killed.
    std::fs::write(file, fast.replace(".zarr'}", ".zarr', rate: 40}")).unwrap();
    let all = files(&at.join("whole")).len();
    for part in 1..7 {
        let mut child = start(&["run", file]);
        let begun = Instant::now();
        while files(&at.join("killed")).len() < all * part / 8 {
            assert!(begun.elapsed() < Duration::from_secs(60), "it writes nothing");
            assert!(child.try_wait().unwrap().is_none(), "it has ended by itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        // SIGKILL: nothing can be tidied up.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(files(&at.join("killed")).len() < all);
    std::fs::write(file, fast).unwrap();
    run(&["run", file]);
    assert_eq!(differences(&at.join("whole"), &at.join("killed")), Vec::<PathBuf>::new());
    // Once more, with nothing left to do.
    run(&["run", file]);
    assert_eq!(differences(&at.join("whole"), &at.join("killed")), Vec::<PathBuf>::new());
}

#[cfg(unix)]
#[test]
fn an_interrupt_finishes_what_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 30);
    let whole = job(at, "whole", "");
    run(&["run", whole.to_str().unwrap()]);
    let asked = job(at, "asked", "in_flight: 2");
    let slow = std::fs::read_to_string(&asked).unwrap().replace(".zarr'}", ".zarr', rate: 20}");
    std::fs::write(&asked, slow).unwrap();
    let mut command = physicnet();
    let command = command.args(["run", asked.to_str().unwrap()]).env("RUST_LOG", "info");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while files(&at.join("asked")).len() < files(&at.join("whole")).len() / 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it writes nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let some = bytes(&at.join("asked"));
    assert!(some.len() < bytes(&at.join("whole")).len());
    assert!(some.keys().all(|name| !name.to_string_lossy().contains(".writing")));
    // Every frame that it has read has led to its forecasts: five windows of three frames.
    let line = said.lines().find(|line| line.contains("everything durable")).unwrap();
    let count = |key: &str| -> usize {
        let (_, rest) = line.split_once(key).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let stored: usize = (0..5)
        .map(|sensor| {
            let archive = Archive::open(&ZarrSource {
                variables: vec!["u".to_owned()],
                cadence: Some("60s".to_owned()),
                ..ZarrSource::new(at.join(format!("asked/s{sensor}.zarr")))
            });
            archive.unwrap().times(0).len()
        })
        .sum();
    let frames = count(" frames=");
    assert!(frames < 5 * 30, "{line}");
    assert_eq!([stored, count("forecasts=")], [frames - 5 * 2; 2], "{line}");
    let rest = std::fs::read_to_string(&asked).unwrap().replace(", rate: 20", "");
    std::fs::write(&asked, rest).unwrap();
    run(&["run", asked.to_str().unwrap()]);
    assert_eq!(differences(&at.join("whole"), &at.join("asked")), Vec::<PathBuf>::new());
}
