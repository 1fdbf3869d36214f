//! What is linked in has a licence that deny.toml allows. (`cargo deny check` says more.)

use std::process::Command;

use serde_json::Value;

/// Whether an SPDX expression, as crates write them, is met by the licences in `allowed`.
fn met(expression: &str, allowed: &[String]) -> bool {
    // Old manifests part alternatives by a stroke. OR binds less than AND.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = either(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "{expression}");
    result
}

fn either(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut result = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= both(words, at, allowed);
    }
    result
}

fn both(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut result = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed);
    }
    result
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut licence = words[*at].to_owned();
    *at += 1;
    if licence == "(" {
        let result = either(words, at, allowed);
        assert_eq!(words[*at], ")");
        *at += 1;
        return result;
    }
    if words.get(*at) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words[*at + 1]);
        *at += 2;
    }
    allowed.contains(&licence)
}

#[test]
fn every_licence_is_allowed() {
    let root = env!("CARGO_MANIFEST_DIR");
    let deny = std::fs::read_to_string(format!("{root}/deny.toml")).unwrap();
    let deny: toml::Table = deny.parse().unwrap();
    let allowed: Vec<String> = deny["licenses"]["allow"].clone().try_into().unwrap();
    let only = |list: &[&str]| list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
    assert!(met("MIT/Apache-2.0", &only(&["MIT"])));
    assert!(met("A AND (B OR C WITH D)", &only(&["A", "C WITH D"])));
    assert!(!met("MIT OR (A AND B)", &only(&["A"])));

    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // What this machine builds: all else may not have been fetched.
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(["metadata", "--format-version", "1", "--features"]);
    command.args(["tls,cloud", "--locked", "--offline", "--filter-platform", host]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(met(licence, &allowed), "{}: {licence}", package["name"]);
    }
}
