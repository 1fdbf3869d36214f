//! Jobs between the topics of a real broker, with Python's clients on the other side.
//!
//! `scripts/test` starts the broker and exports where it is. Without one these tests say so and
//! pass, except where `CI` is `true`, as there.

use std::path::Path;
use std::process::Command;

/// Whether there is all of `variables`, and `enough` beside.
fn can(variables: &[&str], enough: bool) -> bool {
    let absent = |name: &&&str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let missing = variables.iter().find(absent).copied();
    let Some(missing) = missing.or((!enough).then_some("the feature tls")) else { return true };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "without {missing}; run scripts/test");
    // A test that was not made must not look like one.
    eprintln!("without {missing} nothing is tested here; scripts/test starts a broker");
    false
}

/// Runs a script of `tests/python` against the broker; panics with what it said unless it succeeds.
fn python(script: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let local = root.join(".venv/bin/python");
    let usual = if local.exists() { local.into_os_string() } else { "python3".into() };
    let python = std::env::var_os("PHYSICNET_PYTHON").unwrap_or(usual);
    let output = Command::new(python)
        .arg(root.join("tests/python").join(script))
        .args(arguments)
        .env("PHYSICNET", env!("CARGO_BIN_EXE_physicnet"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned());
    assert!(output.status.success(), "{script} {arguments:?}: {}", said.concat());
    // How long it took, and what was measured.
    eprint!("{}", said[0]);
}

fn promise(script: &str, name: &str) {
    if can(&["KAFKA_BOOTSTRAP"], true) {
        python(script, &[name]);
    }
}

fn secure(name: &str) {
    let variables = ["KAFKA_BOOTSTRAP", "KAFKA_CA", "KAFKA_SSL_BOOTSTRAP", "KAFKA_SASL_BOOTSTRAP"];
    if can(&variables, cfg!(feature = "tls")) {
        python("kafka_secure.py", &[name]);
    }
}

/// A short form of `kafka_crash.py`: `scripts/kafka-crash` runs the whole of it.
fn crash(more: &[&str]) {
    if can(&["KAFKA_BOOTSTRAP"], true) {
        let brokers = std::env::var("KAFKA_BOOTSTRAP").unwrap();
        faults(&[&["--brokers", &brokers], more].concat());
    }
}

fn faults(arguments: &[&str]) {
    let always = [env!("CARGO_BIN_EXE_physicnet")];
    python("kafka_crash.py", &[&always[..], arguments].concat());
}

#[test]
fn a_job_killed_at_any_moment_says_everything_once() {
    crash(&["--kills", "8", "--frames", "1600", "--sensors", "8", "--partitions", "4"]);
}

#[test]
fn a_killed_job_revises_and_scores_as_one_never_killed() {
    let few = ["--frames", "1200", "--sensors", "4", "--partitions", "2"];
    crash(&[&["--revise", "--kills", "6"], &few[..]].concat());
}

#[test]
fn of_two_instances_the_older_one_ends_and_says_why() {
    let few = ["--frames", "400", "--sensors", "4", "--partitions", "2", "--longest", "6"];
    crash(&[&["--fault", "fight", "--kills", "2"], &few[..]].concat());
}

/// With brokers of its own, which are started by `scripts/kafka`: where one was, it can.
#[test]
fn a_job_outlasts_leaders_that_die_and_brokers_that_fall_silent() {
    let few = ["--frames", "400", "--sensors", "4", "--partitions", "2"];
    if can(&["KAFKA_BOOTSTRAP"], true) {
        faults(&[&["--fault", "broker", "--cluster", "3", "--kills", "2"], &few[..]].concat());
        faults(&[&["--fault", "pause", "--pause", "5", "--kills", "1"], &few[..]].concat());
    }
}

#[test]
fn poison_goes_to_the_dead_letters_and_good_frames_are_forecast() {
    promise("kafka_poison.py", "poisoned");
}

#[test]
fn silent_partitions_hold_nothing_back() {
    promise("kafka_source.py", "idle");
}

#[test]
fn a_job_begins_where_it_is_told_and_goes_on_where_it_was() {
    promise("kafka_source.py", "begin");
}

#[test]
fn frames_of_every_size_and_compression_are_read() {
    promise("kafka_source.py", "codecs");
}

#[test]
fn two_processes_forecast_what_one_does_and_show_their_offsets() {
    promise("kafka_source.py", "hosts");
}

#[cfg(target_os = "linux")]
#[test]
fn a_job_without_frames_rests() {
    promise("kafka_source.py", "quiet");
}

#[test]
fn a_dashboard_tells_what_of_a_topic_is_not_read_yet() {
    promise("kafka_source.py", "lag");
}

#[test]
fn added_partitions_are_told() {
    promise("kafka_source.py", "partitions");
}

#[test]
fn what_is_not_there_is_named() {
    promise("kafka_source.py", "gone");
}

#[test]
fn messages_can_name_their_sensor() {
    promise("kafka_source.py", "names");
}

#[test]
fn cameras_come_in_and_go_out_as_ad00() {
    promise("kafka_formats.py", "ad00");
}

#[test]
fn people_write_and_read_json() {
    promise("kafka_formats.py", "as_json");
}

#[test]
fn the_valid_time_may_be_a_variable() {
    promise("kafka_formats.py", "coordinate");
}

#[test]
fn a_dead_letter_has_its_own_bytes_and_says_why() {
    promise("kafka_formats.py", "reasons");
}

#[test]
fn stores_and_topics_together_are_those_of_a_job_never_killed() {
    promise("kafka_sinks.py", "both");
}

#[test]
fn forecasts_of_stores_are_in_the_topic_once() {
    promise("kafka_sinks.py", "stores");
}

#[test]
fn at_least_once_loses_nothing() {
    promise("kafka_sinks.py", "least");
}

#[test]
fn an_older_instance_ends_though_it_has_nothing_to_say() {
    promise("kafka_sinks.py", "idle");
}

#[test]
fn what_is_too_large_for_a_topic_is_told_and_nothing_else_is_lost() {
    promise("kafka_sinks.py", "large");
}

#[test]
fn a_topic_deleted_under_the_job_that_writes_to_it_is_named() {
    promise("kafka_sinks.py", "vanished");
}

#[test]
fn tls_and_passwords_let_in() {
    secure("welcome");
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    secure("refused");
}
