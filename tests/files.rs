//! The files that people write, and what helps them to: schemas, completions, manual pages.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use physicnet::config::{Job, parse};
use physicnet::training::TrainConfig;
use physicnet_connectors::kafka::Cluster;
use physicnet_connectors::synthetic::SyntheticSource;
use serde_json::{Value, json};

use crate::house::{files, physicnet, python, run};

const KINDS: [&str; 4] = ["job", "train", "simulate", "cluster"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schema(kind: &str) -> PathBuf {
    root().join("docs/schema").join(kind).with_extension("json")
}

fn printed(arguments: &[&str]) -> String {
    String::from_utf8(run(arguments).stdout).unwrap()
}

#[test]
fn the_schemas_at_hand_are_those_of_the_program() {
    for kind in KINDS {
        let ours: Value = serde_json::from_str(&printed(&["schema", kind])).unwrap();
        let path = schema(kind);
        let there = std::fs::read(&path).unwrap();
        let there: Value = serde_json::from_slice(&there).unwrap();
        let how = "write it anew: cargo run -- schema";
        assert!(ours == there, "{}: {how} {kind} > docs/schema/{kind}.json", path.display());
    }
}

/// Every config that is shipped, and every one that the guides show, with its kind and its name.
fn configs() -> Vec<(&'static str, String, Value)> {
    let mut all = Vec::new();
    for path in files(&root().join("configs")) {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let value: Value = match path.extension().unwrap().to_str().unwrap() {
            "yaml" => serde_yaml_ng::from_str(&text).unwrap(),
            "toml" => toml::from_str(&text).unwrap(),
            _ => continue,
        };
        all.push((name, value));
    }
    let guides = files(&root().join("docs")).into_iter().chain([root().join("README.md")]);
    for path in guides.filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, block) in text.split("```yaml\n").skip(1).enumerate() {
            let block = block.split("```").next().unwrap();
            all.push((
                format!("{}, {at}", path.display()),
                serde_yaml_ng::from_str(block).unwrap(),
            ));
        }
    }
    let kinds = |(name, mut value): (String, Value)| {
        let keys = value.as_object_mut().unwrap();
        let kind = if keys.contains_key("data") {
            "train"
        } else if keys.contains_key("field") {
            "simulate"
        } else if keys.contains_key("brokers") {
            "cluster"
        } else if keys.contains_key("scrape_configs") {
            return None; // Prometheus'
        } else {
            // A guide shows the part of a job that it is about.
            keys.entry("sources").or_insert(json!([]));
            "job"
        };
        Some((kind, name, value))
    };
    let all: Vec<_> = all.into_iter().filter_map(kinds).collect();
    assert!(all.len() > 12, "{}", all.len());
    all
}

/// What our own reader says.
fn ours(kind: &str, config: &Value) -> Result<(), String> {
    // Without variables: what they hold is no matter of form.
    let text = config.to_string().replace('$', "");
    match kind {
        "job" => parse::<Job>(&text, false).map(drop),
        "train" => parse::<TrainConfig>(&text, false).map(drop),
        "simulate" => parse::<SyntheticSource>(&text, false).map(drop),
        _ => parse::<Cluster>(&text, false).map(drop),
    }
    .map_err(|error| error.to_string())
}

/// The config with a key that nobody reads, in each of its mappings in turn.
fn mistyped(config: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match config {
        Value::Object(fields) => {
            let mut wrong = fields.clone();
            wrong.insert("memroy".to_owned(), json!("1"));
            all.push(Value::Object(wrong));
            for (key, value) in fields {
                for wrong in mistyped(value) {
                    let mut with = fields.clone();
                    with.insert(key.clone(), wrong);
                    all.push(Value::Object(with));
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for wrong in mistyped(item) {
                    let mut with = items.clone();
                    with[at] = wrong;
                    all.push(Value::Array(with));
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn a_validator_takes_what_we_take_and_refuses_what_we_refuse() {
    let mut cases: Vec<(&str, String, Value)> = Vec::new();
    for (kind, name, config) in configs() {
        ours(kind, &config).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wrong = mistyped(&config).into_iter();
        cases.extend(wrong.map(|wrong| (kind, format!("{name}, mistyped"), wrong)));
        cases.push((kind, name, config));
    }
    for (kind, wrong) in [
        ("job", json!({"source": []})),
        ("job", json!({"sources": [{"type": "zarr"}]})),
        ("job", json!({"sources": [{"type": "zar", "path": "a"}]})),
        ("job", json!({"sources": [], "workers": "two"})),
        ("job", json!({"sources": [], "model": {"untrained": {"expert": "luck"}}})),
        ("train", json!({"data": [{"path": "a"}]})),
        ("simulate", json!({"field": {"kind": "snow"}})),
        ("cluster", json!({"brokers": 9092})),
    ] {
        assert!(ours(kind, &wrong).is_err(), "{kind} {wrong}");
        cases.push((kind, "wrong".to_owned(), wrong));
    }
    let Some(python) = python().filter(|python| {
        let there = Command::new(python).args(["-c", "import jsonschema"]).output();
        there.is_ok_and(|output| output.status.success())
    }) else {
        eprintln!("skipped: no Python with jsonschema");
        return;
    };
    let script = root().join("tests/python/schemas.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = String::new();
    for (kind, _, config) in &cases {
        lines += &format!("{}\n", json!({"schema": schema(kind), "config": config}));
    }
    let mut input = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.lines().count(), cases.len());
    let mut refused = 0;
    for ((kind, name, config), told) in cases.iter().zip(told.lines()) {
        let ours = ours(kind, config);
        assert_eq!(told == "fits", ours.is_ok(), "{name}: {config}: {told}, and we: {ours:?}");
        refused += usize::from(ours.is_err());
    }
    assert!(refused > 40 && refused < cases.len() - 12, "{refused} of {}", cases.len());
}

/// A pipe can be read but once.
#[test]
fn a_pipe_is_checked_like_a_file() {
    let check = |text: &str| {
        let mut command = physicnet();
        command.args(["validate", "/dev/stdin"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let told = check("{field: {kind: rain}, frames: 3}");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = check("{field: {kind: rain}, frames: many}");
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && said.contains("frames"), "{said}");
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = printed(&["completions", shell]);
        for word in ["evaluate", "completions", "no-ssim"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    // A real shell takes it, and completes.
    let text = printed(&["completions", "bash"]);
    let ask = "COMP_WORDS=(physicnet val); COMP_CWORD=1; _physicnet physicnet val physicnet; \
               echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", &format!("{text}\n{ask}")]).output() else {
        eprintln!("skipped: no bash");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "validate", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_command_has_its_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("share/man1");
    run(&["man", at.to_str().unwrap()]);
    let train = std::fs::read_to_string(at.join("physicnet-train.1")).unwrap();
    assert!(train.contains("Train a network on archives"), "{train}");
    let whole = std::fs::read_to_string(at.join("physicnet.1")).unwrap();
    for command in ["run", "train", "inspect", "schema", "man"] {
        assert!(at.join(format!("physicnet-{command}.1")).exists(), "{command}");
        assert!(whole.contains(&format!("physicnet\\-{command}(1)")), "{command}: {whole}");
    }
    let output = physicnet().args(["man", "/dev/null/man1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("/dev/null/man1"), "{said}");
}
