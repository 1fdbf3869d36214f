//! The files of a store, replaced whole: written beside, then renamed into place.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Result};
use zarrs::filesystem::FilesystemStore;
use zarrs::storage::ReadableStorageTraits;

use super::{Listed, Place, ROOT, TAKEOVER, Writing};

/// Where a file is written before it is renamed. A store has one writer, so one name will do,
/// and a leftover of a crash is found without looking anywhere else.
const WRITING: &str = ".writing";

/// The directory of a store.
pub(crate) struct Folder {
    root: PathBuf,
    /// Held while the store is written; the system lets go of it when the process ends.
    _lock: Option<File>,
    /// Whether a power cut must not undo what was committed.
    fsync: bool,
    /// Directories whose entries are not yet on the disk.
    dirty: BTreeSet<PathBuf>,
    /// How many more operations succeed: for tests of crashes.
    #[cfg(test)]
    pub(crate) fuse: Option<usize>,
}

impl Folder {
    /// The directory at `root`, which need not exist.
    pub(crate) fn new(root: &Path, fsync: bool) -> Self {
        Self {
            root: root.to_path_buf(),
            _lock: None,
            fsync,
            dirty: BTreeSet::new(),
            #[cfg(test)]
            fuse: None,
        }
    }

    /// The directory at `root`, from which other writers are kept out where the system locks
    /// directories.
    ///
    /// # Errors
    /// When another one is writing.
    pub(crate) fn held(root: &Path, fsync: bool) -> Result<Self> {
        // First: tidying up takes away what another writer may be at.
        let folder = Self { _lock: lock(root)?, ..Self::new(root, fsync) };
        folder.tidy()?;
        Ok(folder)
    }

    /// Removes a file that a crash has left half written.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn tidy(&self) -> Result<()> {
        self.unlink(&self.root.join(WRITING))
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

impl Place for Folder {
    fn name(&self, key: &str) -> String {
        self.root.join(key).display().to_string()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) => Err(Error::new(path.display(), e)),
        }
    }

    fn list(&self) -> Result<Listed> {
        let mut listed = Listed::default();
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(listed),
            Err(e) => return Err(Error::new(self.root.display(), e)),
        };
        for entry in entries.filter_map(std::result::Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let folder = entry.path().is_dir();
            if folder { listed.folders.push(name) } else { listed.files.push(name) }
        }
        Ok(listed)
    }

    fn chunks(self: Arc<Self>) -> Result<Arc<dyn ReadableStorageTraits>> {
        let files = FilesystemStore::new(&self.root);
        Ok(Arc::new(files.map_err(|e| Error::new(self.root.display(), e))?))
    }
}

impl Writing for Folder {
    fn place(&self) -> &dyn Place {
        self
    }

    fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
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

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        if self.get(key)?.as_deref() == Some(bytes) { Ok(()) } else { self.put(key, bytes) }
    }

    fn exist(&self, keys: &[String]) -> Result<Vec<bool>> {
        Ok(keys.iter().map(|key| self.root.join(key).exists()).collect())
    }

    fn remove(&mut self, key: &str) -> Result<()> {
        #[cfg(test)]
        self.burn()?;
        let path = self.root.join(key);
        if path.is_dir() {
            return fs::remove_dir_all(&path).map_err(|e| Error::new(path.display(), e));
        }
        self.unlink(&path)?;
        // Folders stand for nothing: those that are empty now go as well.
        let inside = |folder: &&Path| folder.starts_with(&self.root) && *folder != self.root;
        let mut folders = path.ancestors().skip(1).take_while(inside);
        while folders.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for folder in std::mem::take(&mut self.dirty) {
            if self.fsync {
                let sync = File::open(&folder).and_then(|folder| folder.sync_all());
                sync.map_err(|e| Error::new(folder.display(), e))?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.put(ROOT, bytes)?;
        self.flush()
    }
}

/// Keeps other writers out of the store at `path`; nothing where the system locks no directories.
fn lock(path: &Path) -> Result<Option<File>> {
    std::fs::create_dir_all(path).map_err(|e| Error::new(path.display(), e))?;
    let Ok(folder) = File::open(path) else { return Ok(None) };
    let begun = Instant::now();
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if begun.elapsed() > TAKEOVER => {
                let why = "is being written by another job; end that one, or choose another path";
                return Err(Error::new(path.display(), why));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
