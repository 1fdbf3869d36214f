//! The files of a store, replaced whole: written beside, then renamed into place.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use physicnet_stream::{Error, Result};

/// Where a file is written before it is renamed. A store has one writer, so one name will do,
/// and a leftover of a crash is found without looking anywhere else.
const WRITING: &str = ".writing";

/// The directory of a store, for its one writer.
pub(crate) struct Files {
    root: PathBuf,
    /// Whether a power cut must not undo what was committed.
    fsync: bool,
    /// Directories whose entries are not yet on the disk.
    dirty: BTreeSet<PathBuf>,
    /// How many more operations succeed: for tests of crashes.
    #[cfg(test)]
    pub(crate) fuse: Option<usize>,
}

impl Files {
    /// The directory at `root`, which need not exist. A file that a crash left half written is
    /// removed.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn new(root: &Path, fsync: bool) -> Result<Self> {
        let files = Self {
            root: root.to_path_buf(),
            fsync,
            dirty: BTreeSet::new(),
            #[cfg(test)]
            fuse: None,
        };
        files.unlink(&root.join(WRITING))?;
        Ok(files)
    }

    /// The bytes of a file; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::new(path.display(), e)),
        }
    }

    /// Puts `bytes` under `key`, replacing what was there. No reader ever sees a part of them.
    ///
    /// # Errors
    /// When the file system refuses: no space, no permission.
    pub(crate) fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(key);
        let fail = |e| Error::new(path.display(), format!("cannot be written: {e}"));
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(fail)?;
        let writing = self.root.join(WRITING);
        #[cfg(test)]
        if let Err(torn) = self.burn() {
            fs::write(&writing, &bytes[..bytes.len() / 2]).map_err(fail)?;
            return Err(torn);
        }
        let mut file = File::create(&writing).map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        if self.fsync {
            file.sync_data().map_err(fail)?;
        }
        drop(file);
        #[cfg(test)]
        self.burn()?;
        fs::rename(&writing, &path).map_err(fail)?;
        let inside = folder.ancestors().take_while(|folder| folder.starts_with(&self.root));
        self.dirty.extend(inside.map(Path::to_path_buf));
        Ok(())
    }

    /// Puts `bytes` under `key` unless they are there already.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub(crate) fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        if self.get(key)?.as_deref() == Some(bytes) { Ok(()) } else { self.put(key, bytes) }
    }

    /// Whether there is a file or folder of this name.
    pub(crate) fn exists(&self, key: &str) -> bool {
        self.root.join(key).exists()
    }

    /// Waits until the disk holds every rename so far.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn flush(&mut self) -> Result<()> {
        for folder in std::mem::take(&mut self.dirty) {
            if self.fsync {
                let sync = File::open(&folder).and_then(|folder| folder.sync_all());
                sync.map_err(|e| Error::new(folder.display(), e))?;
            }
        }
        Ok(())
    }

    /// Removes a file or a folder with all that is in it, if it is there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn remove(&mut self, key: &str) -> Result<()> {
        #[cfg(test)]
        self.burn()?;
        let path = self.root.join(key);
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(|e| Error::new(path.display(), e))
        } else {
            self.unlink(&path)
        }
    }

    /// The names in a folder, which need not exist.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub(crate) fn list(&self, key: &str) -> Result<Vec<String>> {
        let path = self.root.join(key);
        match fs::read_dir(&path) {
            Ok(entries) => Ok(entries
                .filter_map(std::result::Result::ok)
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::new(path.display(), e)),
        }
    }

    fn unlink(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::new(path.display(), e)),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    fn burn(&mut self) -> Result<()> {
        match &mut self.fuse {
            Some(0) => Err(Error::new("fuse", "blown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
