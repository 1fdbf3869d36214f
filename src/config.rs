//! Files that say what to do: YAML, or TOML by extension, checked before anything starts.
//!
//! A value may hold `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, replaced from the
//! environment, and `$$` for a dollar sign. This happens inside string values after parsing, so
//! that a variable can never change the structure of the document. Keys that nobody reads are
//! refused. Relative paths are relative to the current directory.

mod document;
mod drift;
mod ensemble;
mod fit;
mod job;
mod learn;
mod places;
mod schema;
mod scoring;

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use document::Document;
pub use drift::DriftSection;
pub use ensemble::EnsembleSection;
pub(crate) use fit::{fits, measures};
pub use job::{Job, ModelSection};
pub use learn::LearnSection;
pub use schema::schema;
pub use scoring::ScoringSection;

/// Reads the file at `path`.
///
/// # Errors
/// Names the file and, where it can, the path of the key at fault and what is expected.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read(&text(path)?, path)
}

/// The text of the file at `path`, which may be a pipe: it is read once.
///
/// # Errors
/// Names the file.
pub fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Reads the `text` that the file at `path` has.
///
/// # Errors
/// As [`load`].
pub fn read<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    let toml = path.extension().is_some_and(|extension| extension == "toml");
    parse(text, toml).with_context(|| format!("in {}", path.display()))
}

/// Reads `text`, with variables from the environment.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, toml: bool) -> Result<T> {
    let Document { mut value, infinite } = if toml {
        toml::from_str(text).map_err(|error| anyhow!("not TOML: {error}"))?
    } else {
        serde_yaml_ng::from_str(text).map_err(|error| anyhow!("not YAML: {error}"))?
    };
    if let Some(path) = infinite {
        bail!("{}: no finite number; write one", path.trim_start_matches('.'));
    }
    if value.is_null() {
        bail!("there is nothing in it; docs/jobs.md and docs/training.md say what may be");
    }
    let environment = |name: &str| std::env::var(name).ok();
    interpolate(&mut value, &mut String::new(), &environment)?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, why) = (error.path().to_string(), error.into_inner());
        if path == "." { anyhow!("{why}") } else { anyhow!("{path}: {why}") }
    })
}

/// Replaces variables in every string below `value`, which stands at `path`.
fn interpolate(
    value: &mut Value,
    path: &mut String,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<()> {
    let length = path.len();
    match value {
        Value::String(text) => {
            *text = expand(text, environment).with_context(|| path.clone())?;
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                interpolate(item, path, environment)?;
                path.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                interpolate(item, path, environment)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((inside, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) else {
            bail!("a single $; write ${{NAME}} for a variable, $$ for a dollar sign");
        };
        rest = after;
        let end = inside.find(':').unwrap_or(inside.len());
        let (name, how) = inside.split_at(end);
        // As in a shell, `:-` and `:?` take an empty variable for an absent one.
        let found = environment(name).filter(|found| how.is_empty() || !found.is_empty());
        match found {
            Some(found) => out.push_str(&found),
            None if how.starts_with(":-") => out.push_str(&how[2..]),
            None if how.starts_with(":?") => bail!("{name}: {}", &how[2..]),
            None if how.is_empty() => {
                bail!("the environment has no {name}; set it, or write ${{{name}:-default}}")
            }
            None => bail!("${{{inside}}}: write :- and a default or :? and a message"),
        }
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Small {
        name: String,
        list: Vec<Entry>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        count: u32,
    }

    #[test]
    fn yaml_and_toml_say_the_same() {
        let yaml: Small = parse("name: a\nlist: [{count: 1}]", false).unwrap();
        let toml: Small = parse("name = \"a\"\n[[list]]\ncount = 1", true).unwrap();
        assert_eq!(yaml, toml);
        let error = parse::<Small>("name = \"a\"\n[[list]]\ncount = nan", true).unwrap_err();
        assert!(error.to_string().starts_with("list[0].count: no finite number"), "{error}");
    }

    #[test]
    fn an_error_names_the_key() {
        for (text, expected) in [
            ("name: a\nlist: [{count: 1}, {count: many}]", "list[1].count: invalid type"),
            ("name: a\nlist: [{count: 1, cuont: 2}]", "list[0].cuont: unknown field"),
            ("name: a\nlist: []\nlits: []", "lits: unknown field"),
            ("name: ${PHYSICNET_ABSENT}\nlist: []", "name"),
            ("name: [", "not YAML"),
            ("name: a\nlist: [{count: 1}, {count: .nan}]", "list[1].count: no finite number"),
            ("name: -.inf\nlist: []", "name: no finite number"),
            ("# a comment\n", "there is nothing in it"),
        ] {
            let error = format!("{:#}", parse::<Small>(text, false).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn variables_fill_strings_and_never_structure() {
        let environment = |name: &str| match name {
            "A" => Some("x: [1]".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("${A}", "x: [1]"),
            ("$$5 ${B:-b}/${EMPTY:-e}${EMPTY}", "$5 b/e"),
            ("${B:-a:-b}", "a:-b"),
        ] {
            assert_eq!(expand(text, &environment).unwrap(), expected);
        }
        for (text, expected) in [
            ("${B:?set it}", "B: set it"),
            ("${B}", "the environment has no B"),
            ("$B", "a single $"),
            ("${B:+c}", "${B:+c}"),
        ] {
            let error = expand(text, &environment).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn every_key_is_in_the_docs() {
        let text = "sources: []";
        let job = serde_json::to_value(parse::<Job>(text, false).unwrap()).unwrap();
        let page = include_str!("../docs/jobs.md");
        for key in job.as_object().unwrap().keys() {
            let named = ["`", "."].iter().any(|end| page.contains(&format!("`{key}{end}")));
            assert!(named, "docs/jobs.md does not name {key}");
        }
        for key in job["admission"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("`admission.{key}`")), "docs/jobs.md: admission.{key}");
        }
        for key in job["model"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("`model.{key}`")), "docs/jobs.md: model.{key}");
        }
        let scoring = serde_json::to_value(crate::config::ScoringSection::default()).unwrap();
        for key in scoring.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`scoring.{key}`")), "docs/jobs.md: scoring.{key}");
        }
        for key in job["drift"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("`drift.{key}`")), "docs/jobs.md: drift.{key}");
        }
    }
}
