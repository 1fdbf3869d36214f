//! The invariants of ARCHITECTURE.md that a reader of manifests and imports can hold.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

fn uses(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        !line.starts_with("//") && line.contains(&format!("{name}::"))
    })
}

#[test]
fn crates_depend_downwards_only() {
    for (name, forbidden) in [
        ("stream", &["physicnet-operators", "physicnet-connectors"][..]),
        ("operators", &["physicnet-connectors"]),
        ("connectors", &["physicnet-operators"]),
    ] {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for dependency in forbidden {
            let named = manifest.lines().any(|line| line.starts_with(dependency));
            assert!(!named, "{name} depends on {dependency}");
        }
    }
}

#[test]
fn each_library_has_its_rooms() {
    let rooms: [(&str, &[&str]); 13] = [
        ("zarrs", &["connectors/zarr"]),
        ("object_store", &["connectors/zarr/place"]),
        ("rustls", &["connectors/zarr/place"]),
        ("rdkafka", &["connectors/kafka"]),
        ("rustfft", &["connectors/synthetic", "src/study/spectra.rs"]),
        ("clap", &["src/cli.rs", "src/cli"]),
        ("clap_complete", &["src/cli.rs", "src/cli"]),
        ("clap_mangen", &["src/cli.rs", "src/cli"]),
        ("axum", &["src/dashboard"]),
        ("tokio", &["src/dashboard", "connectors/zarr/place"]),
        ("ratatui", &["src/top"]),
        ("candle_core", &["operators", "src/training"]),
        ("candle_nn", &["operators", "src/training"]),
    ];
    for folder in ["stream", "operators", "connectors", "src"] {
        for (path, text) in sources(folder) {
            let place = path.strip_prefix(root()).unwrap();
            for (library, allowed) in rooms {
                let at_home = allowed.iter().any(|room| place.starts_with(room));
                assert!(at_home || !uses(&text, library), "{} uses {library}", place.display());
            }
        }
    }
}

#[test]
fn openssl_is_asked_for_by_tls_alone() {
    let manifest = |folder: &str| {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        text.parse::<toml::Table>().unwrap()
    };
    let strings = |value: &toml::Value| -> Vec<String> { value.clone().try_into().unwrap() };
    let workspace = manifest("");
    for (table, feature) in
        [(&workspace, "physicnet-connectors/tls"), (&manifest("connectors"), "rdkafka/ssl")]
    {
        let features = table["features"].as_table().unwrap();
        assert_eq!(strings(&features["tls"]), [feature]);
        assert!(!features.contains_key("default"), "{features:?}");
    }
    // librdkafka is built from its source and linked in, with what every machine has.
    let rdkafka = &workspace["workspace"]["dependencies"]["rdkafka"];
    assert_eq!(rdkafka["default-features"].as_bool(), Some(false));
    assert_eq!(strings(&rdkafka["features"]), ["libz-static", "zstd"]);
}

#[test]
fn operators_do_not_look_outside() {
    for (path, text) in sources("operators") {
        if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let checkpoint = path.ends_with("model/checkpoint.rs");
        for outside in ["std::time::Instant", "SystemTime", "std::net", "std::fs", "rand::"] {
            let said = uses(&text, outside) || text.contains(&format!("use {outside}"));
            // The checkpoint is a file; nothing else here is.
            assert!(!said || checkpoint && outside == "std::fs", "{}: {outside}", path.display());
        }
    }
}

#[test]
fn a_test_that_lacks_what_it_needs_fails_in_the_one_command() {
    let script = std::fs::read_to_string(root().join("scripts/test")).unwrap();
    assert!(script.contains("\nexport CI=true\n"), "it would skip them");
    let asked = ["(\"", "CI\")"].concat();
    let meant = format!("{asked}.as_deref() != Ok(\"true\")");
    for folder in ["tests", "stream", "operators", "connectors", "src"] {
        for (path, text) in sources(folder) {
            let [asked, meant] = [&asked, &meant].map(|words| text.matches(&**words).count());
            assert_eq!(asked, meant, "{}: CI means one thing", path.display());
        }
    }
}

#[test]
fn unsafe_code_stays_in_the_kernels() {
    for folder in ["stream", "operators", "connectors", "src"] {
        for (path, text) in sources(folder) {
            let word = ["un", "safe {"].concat();
            let kernel = path.starts_with(root().join("operators/layers"));
            assert!(kernel || !text.contains(&word), "{}", path.display());
        }
    }
}
