//! What is there for monitoring: the documents name the metrics that there are, and Prometheus takes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use physicnet::telemetry::METRICS;
use serde_json::Value;

/// Prometheus' own checker, where there is one.
pub(crate) fn promtool() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/promtool/usr/bin/promtool");
    let named = std::env::var_os("PROMTOOL").map_or(own, PathBuf::from);
    if named.exists() {
        return Some(named);
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|f| f.join("promtool")).find(|p| p.exists());
    if found.is_none() {
        // Not everywhere can it be had.
        eprintln!("skipped: no promtool in the PATH or named by PROMTOOL (see scripts/test)");
    }
    found
}

#[test]
fn documents_name_the_metrics_that_there_are() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    let page = read("watching.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `p")).collect();
    let wanted: Vec<String> = METRICS
        .iter()
        .map(|(name, kind, help)| format!("| `{name}` | {kind} | {help} |"))
        .collect();
    assert_eq!(rows, wanted);

    let known: BTreeSet<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
    for file in [
        "ops/prometheus-rules.yaml",
        "ops/grafana-dashboard.json",
        "ops/prometheus-rules.test.yaml",
    ] {
        let text = read(file);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let named = words.filter(|word| {
            (word.starts_with("physicnet_") || word.starts_with("process_")) && !word.contains(':')
        });
        let mut count = 0;
        for word in named {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
            assert!(known.contains(word) || known.contains(whole), "{file}: {word}");
            count += 1;
        }
        assert!(count > 5, "{file}: {count}");
    }

    // Every alert has a case in which it rings, and one in which it does not yet.
    let (rules, cases) =
        (read("ops/prometheus-rules.yaml"), read("ops/prometheus-rules.test.yaml"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 9);
    for alert in alerts {
        let told: Vec<&str> = cases.split(&format!("alertname: {alert}\n")).skip(1).collect();
        let rings = told.iter().filter(|told| told.trim_start().starts_with("exp_alerts:")).count();
        assert!(rings > 0 && rings < told.len(), "{alert} rings {rings} times of {}", told.len());
    }
}

#[test]
fn prometheus_takes_the_rules_and_every_query_of_the_dashboard() {
    let Some(promtool) = promtool() else { return };
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ops");
    let folder = tempfile::tempdir().unwrap();
    let dashboard = std::fs::read_to_string(ops.join("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = "groups:\n  - name: queries\n    rules:\n".to_owned();
    let panels = dashboard["panels"].as_array().unwrap();
    for (i, target) in panels.iter().flat_map(|p| p["targets"].as_array().unwrap()).enumerate() {
        let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        queries += &format!("      - record: query:{i}\n        expr: {}\n", Value::from(query));
    }
    let file = folder.path().join("queries.yaml");
    std::fs::write(&file, queries).unwrap();
    for arguments in [
        ["check", "rules", file.to_str().unwrap()],
        ["check", "rules", ops.join("prometheus-rules.yaml").to_str().unwrap()],
        ["test", "rules", ops.join("prometheus-rules.test.yaml").to_str().unwrap()],
    ] {
        let output = Command::new(&promtool).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}
