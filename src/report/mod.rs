//! An evaluation as one page of HTML that needs nothing else: no script, no font, no network.
//!
//! ```text
//! Report (scores) ─┬─► document (JSON) ─┐
//! Findings ────────┴─► page ────────────┴─► report.html
//! ```
//!
//! Every score on the page is the one of the table and of the JSON, which the page holds as well.
//! What each figure means is in `docs/evaluation.md`.

mod atlas;
mod cases;
mod chart;
mod contests;
mod document;
mod ensemble;
mod figure;
mod fss;
mod histogram;
mod maps;
mod page;
mod skill;
mod spectra;
mod summary;
mod words;

use std::path::Path;

use anyhow::{Context, Result, bail};

pub use document::document;
pub use page::page;

use crate::evaluate::Report;
use crate::study::{About, Findings};

/// Whether a file can be written at `path`, in a folder that is there: to be asked before the work
/// of hours whose outcome is to go there.
///
/// # Errors
/// When it cannot.
pub fn check(path: &Path) -> Result<()> {
    let try_it = || -> Result<()> {
        folder_is_there(path)?;
        let there = path.exists();
        std::fs::File::options().append(true).create(true).open(path)?;
        if !there {
            std::fs::remove_file(path)?;
        }
        Ok(())
    };
    try_it().with_context(|| format!("{} cannot be written", path.display()))
}

/// Writes the page, whole or not at all; into what is there and is no file, as a pipe, as it is.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, report: &Report, about: &About, findings: &Findings) -> Result<()> {
    let write = || -> Result<()> {
        let page = page(report, about, findings)?;
        // Nothing may take the place of a device.
        if path.exists() && !path.is_file() {
            return Ok(std::fs::write(path, page)?);
        }
        let mut name = path.file_name().context("names no file")?.to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let written = std::fs::write(&part, page).and_then(|()| std::fs::rename(&part, path));
        if written.is_err() {
            let _ = std::fs::remove_file(part);
        }
        Ok(written?)
    };
    write().with_context(|| format!("writing the report {}", path.display()))
}

/// Whether the folder that a file is to lie in is there: one that is made for a path that was
/// mistyped hides what was meant to be found.
///
/// # Errors
/// When it is not, naming it.
pub fn folder_is_there(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        bail!("the folder {} is not there; make it, or look at the path", folder.display());
    }
    Ok(())
}
