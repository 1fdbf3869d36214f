//! `metrics.csv`: what each step measured, one row for each part.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

const HEAD: &str = "step,seconds,part,value";

/// The file in `out`, to go on behind the rows of `step`. Those of later steps are taken out: a
/// run that was killed wrote them after the state from which it goes on, and will again.
pub(super) fn open(out: &Path, step: u64) -> Result<File> {
    let path = out.join("metrics.csv");
    let known = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        known => Ok(known.unwrap_or_default()),
    };
    let rewrite = |known: String| {
        let taken = |row: &&str| {
            let at = row.split(',').next().and_then(|at| at.parse::<u64>().ok());
            at.is_some_and(|at| at <= step && step > 0)
        };
        let rows = [HEAD].into_iter().chain(known.lines().filter(taken));
        let text: String = rows.flat_map(|row| [row, "\n"]).collect();
        let temporary = path.with_extension("csv.tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &path)?;
        OpenOptions::new().append(true).open(&path)
    };
    known.and_then(rewrite).with_context(|| format!("{}: cannot write it", path.display()))
}
