//! Where a job writes: whether it can, and whether two of its parts would meet there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use physicnet_connectors::zarr::{is_url, shown};
use physicnet_connectors::{SinkConfig, SourceConfig};
use physicnet_stream::Catalogue;

use super::Job;

/// A store or a folder that a job names.
struct Place {
    /// Where the job names it.
    key: String,
    path: PathBuf,
    /// The same without links, so that one place has one name.
    whole: PathBuf,
    written: bool,
}

/// Whether everything that `job` writes has a place of its own, where something can be written.
/// Makes nothing.
pub(super) fn check(job: &Job, catalogue: &Catalogue) -> Result<()> {
    let mut places = Vec::new();
    for (i, source) in job.sources.iter().enumerate() {
        if let SourceConfig::Zarr(source) = source {
            places.push(Place::new(format!("sources[{i}]"), source.path.clone(), false)?);
        }
    }
    for (i, sink) in job.sinks.iter().enumerate() {
        if let SinkConfig::Zarr(sink) = sink {
            let key = format!("sinks[{i}]");
            let paths = sink.paths(catalogue).with_context(|| key.clone())?;
            // Of sensors that are not known by name, the template stands for all.
            let any = catalogue.any().map(|_| PathBuf::from(&sink.path));
            for path in paths.into_values().chain(any) {
                places.push(Place::new(key.clone(), path, true)?);
            }
        }
    }
    if let Some(rejects) = &job.rejects {
        plain("rejects.path", &rejects.path, "a folder for each sensor is made in it")?;
        places.push(Place::new("rejects.path".into(), rejects.path.clone(), true)?);
    }
    if let Some(store) = job.scoring.as_ref().and_then(|scoring| scoring.store.as_ref()) {
        plain("scoring.store", store, "it holds all sensors")?;
        places.push(Place::new("scoring.store".into(), store.clone(), true)?);
    }
    if let Some(control) = &job.model.control {
        plain("model.control", control, "requests for all sensors lie there")?;
        places.push(Place::new("model.control".into(), control.clone(), true)?);
    }
    apart(&places)?;
    places.iter().filter(|place| place.written).try_for_each(Place::usable)
}

/// A path that is no template.
fn plain(key: &str, path: &Path, why: &str) -> Result<()> {
    let text = shown(path);
    ensure!(!text.contains(['{', '}']), "{key}: {text}: write it without braces, {why}");
    ensure!(!is_url(path), "{key}: {text}: lies on this machine; name a path without ://");
    Ok(())
}

/// Whether nothing is written into the place of something else.
fn apart(places: &[Place]) -> Result<()> {
    let mut taken = BTreeMap::<&Path, &Place>::new();
    for place in places {
        let other = *taken.entry(&place.whole).or_insert(place);
        ensure!(
            std::ptr::eq(other, place) || !(other.written || place.written),
            "{}: {} is the place of {} as well; give each its own",
            place.key,
            shown(&place.path),
            other.key
        );
    }
    for place in places {
        let mut above = place.whole.ancestors().skip(1).filter_map(|above| taken.get(above));
        if let Some(other) = above.find(|other| other.written || place.written) {
            anyhow::bail!(
                "{}: {} lies within {} of {}; give it a place beside that",
                place.key,
                shown(&place.path),
                shown(&other.path),
                other.key
            );
        }
    }
    Ok(())
}

impl Place {
    fn new(key: String, path: PathBuf, written: bool) -> Result<Self> {
        if is_url(&path) {
            let whole = path.components().collect();
            return Ok(Self { key, path, whole, written });
        }
        let absolute = std::path::absolute(&path).with_context(|| key.clone())?;
        let there = absolute.ancestors().find(|above| above.exists()).unwrap_or(&absolute);
        let rest = absolute.strip_prefix(there).unwrap_or(Path::new(""));
        let there = there.canonicalize().unwrap_or_else(|_| there.to_path_buf());
        // Joined with nothing, a path would end in a slash.
        let whole = there.components().chain(rest.components()).collect();
        Ok(Self { key, path, whole, written })
    }

    /// Whether the system would let it be made, or written where it is there.
    fn usable(&self) -> Result<()> {
        let Self { key, path, whole, .. } = self;
        if is_url(path) {
            // Opening has asked the store.
            return Ok(());
        }
        let Some(there) = whole.ancestors().find(|above| above.exists()) else { return Ok(()) };
        // The file of the scores is the one place that is no folder.
        ensure!(
            there.is_dir() || key == "scoring.store" && there == whole,
            "{key}: {}: {} is a file and no folder; name another path",
            path.display(),
            there.display()
        );
        #[cfg(unix)]
        rustix::fs::access(there, rustix::fs::Access::WRITE_OK).with_context(|| {
            format!("{key}: {}: {} cannot be written to", path.display(), there.display())
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// What is said of a job with these sinks and more, over two simulated sensors.
    fn told(folder: &Path, more: &str) -> String {
        let at = folder.display();
        let more = more.replace("AT", &at.to_string());
        let text = format!(
            "sources: [{{type: zarr, path: '{at}/in.zarr'}}, {{type: synthetic, sensors: 2, cadence: 60s, \
             field: {{kind: rain, height: 16, width: 16}}}}]\n{more}"
        );
        let job: Job = parse(&text, false).unwrap();
        let sensors = job.sources[1].open("job").unwrap().sensors().unwrap();
        check(&job, &sensors.into_iter().collect())
            .map_or_else(|error| format!("{error:#}"), |()| "fits".to_owned())
    }

    #[test]
    fn what_is_written_has_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir(at.join("real")).unwrap();
        std::fs::write(at.join("file"), "").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(at.join("real"), at.join("link")).unwrap();
        let sink = |path: &str| format!("{{type: zarr, path: 'AT/{path}'}}");
        let sinks = |paths: &[&str]| {
            format!("sinks: [{}]", paths.iter().map(|p| sink(p)).collect::<Vec<_>>().join(", "))
        };
        for (more, expected) in [
            (sinks(&["{sensor}.zarr", "b/{sensor}.zarr"]), "fits"),
            (sinks(&["{sensor}.zarr", "{sensor}.zarr"]), "sinks[1]"),
            (sinks(&["real/{sensor}", "./link/{sensor}"]), "sinks[1]"),
            (sinks(&["{sensor}", "{sensor}/b"]), "sinks[1]"),
            (sinks(&["a.zarr"]), "put {sensor} into it"),
            (sinks(&["{sensro}/{sensor}.zarr"]), "{sensro}"),
            (sinks(&["file/{sensor}"]), "is a file"),
            (sinks(&["in.zarr/{sensor}"]), "lies within"),
            ("rejects: {path: AT/rejects}".into(), "fits"),
            ("rejects: {path: AT/in.zarr}".into(), "the place of sources[0] as well"),
            ("rejects: {path: 'AT/{sensor}'}".into(), "without braces"),
            ("rejects: {path: AT/file}".into(), "is a file"),
            ("rejects: {path: 's3://bucket/rejects'}".into(), "lies on this machine"),
            ("rejects: {path: AT/file/rejects}".into(), "is a file"),
            ("scoring: {store: AT/file}".into(), "fits"),
            ("model: {control: AT/control}".into(), "fits"),
            ("model: {control: AT/file}".into(), "model.control"),
            (
                "model: {control: 's3://bucket/control'}".into(),
                "model.control: s3://bucket/control: lies",
            ),
            ("scoring: {store: AT/file}\nrejects: {path: AT/file}".into(), "scoring.store"),
        ] {
            let said = told(at, &more);
            assert!(said.contains(expected), "{more}: {said}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
        let said = told(folder.path(), "rejects: {path: AT/closed/rejects}");
        // Nothing is closed to the system's administrator.
        let may = std::fs::write(closed.join("may"), "").is_ok();
        assert_eq!(said == "fits", may, "{said}");
    }
}
