//! One run at a time in a folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Result, bail};

/// Keeps other runs out of `out` while what it returns is held; the system lets go of it when the
/// process ends. Nothing where the system locks no folders.
///
/// # Errors
/// When another run is there.
pub(super) fn lock(out: &Path) -> Result<Option<File>> {
    let Ok(folder) = File::open(out) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::Error(_)) => Ok(None),
        Err(TryLockError::WouldBlock) => bail!(
            "out: {}: another training writes there; wait for it or end it, or set another `out`",
            out.display()
        ),
    }
}
