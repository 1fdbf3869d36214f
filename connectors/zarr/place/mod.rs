//! Where a store lies: a folder of this machine, or objects under a URL.
//!
//! Either keeps bytes under keys and replaces them whole or not at all. The order of a commit asks
//! for no more than that, so there is one order for both.
//!
//! ```text
//! commit ─► Writing ─┬─► Folder   a rename makes a file visible    one writer: a lock
//!                    └─► Bucket   a put makes an object visible    one writer: a lease
//! archive ─► Place ──┬─► Folder
//!                    └─► Objects  read ahead, some at once
//! ```

#[cfg(feature = "cloud")]
mod bucket;
mod folder;
#[cfg(feature = "cloud")]
mod lease;
#[cfg(feature = "cloud")]
mod objects;
#[cfg(feature = "cloud")]
mod runtime;
#[cfg(feature = "cloud")]
mod site;
#[cfg(all(test, feature = "cloud"))]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use physicnet_stream::Result;
use zarrs::storage::ReadableStorageTraits;

pub(crate) use folder::Folder;

/// How long another writer may take to end: a newer instance of a job takes over from an older.
const TAKEOVER: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };

/// The most chunks that are on their way at once. A crash leaves a chunk unwritten, and later ones
/// written, only within so many.
pub(crate) const AT_ONCE: u64 = 16;

/// The name of the metadata that tells what there is.
pub(crate) const ROOT: &str = "zarr.json";

/// What keys begin with.
#[derive(Default)]
pub(crate) struct Listed {
    /// Whole keys.
    pub(crate) files: Vec<String>,
    /// What stands before a slash.
    pub(crate) folders: Vec<String>,
}

impl Listed {
    /// All of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.folders.iter().chain(&self.files)
    }
}

/// A store to read from, on any thread.
pub(crate) trait Place: Send + Sync {
    /// What errors call the bytes under `key`.
    fn name(&self, key: &str) -> String;

    /// The bytes under `key`; `None` where there are none.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// The first parts of all keys.
    fn list(&self) -> Result<Listed>;

    /// The same for zarrs.
    fn chunks(self: Arc<Self>) -> Result<Arc<dyn ReadableStorageTraits>>;

    /// Whether it is so far away that [`ahead`](Self::ahead) pays.
    fn is_far(&self) -> bool {
        false
    }

    /// Begins to read what will be asked for soon.
    fn ahead(&self, _keys: Vec<String>) {}
}

/// A store to write to. What was put is sure to be there after a flush, in the order of the puts
/// but for [`AT_ONCE`] of them.
pub(crate) trait Writing: Send {
    /// The store itself, to read.
    fn place(&self) -> &dyn Place;

    /// What no other writer has, where what one before this has sent may still be on its way.
    fn token(&self) -> Option<String> {
        None
    }

    /// Puts `bytes` under `key`, replacing what was there. No reader ever sees a part of them.
    fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Puts `bytes` under `key` unless they are there already.
    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Which of `keys` there are.
    fn exist(&self, keys: &[String]) -> Result<Vec<bool>>;

    /// Removes what is under `key` or within it, if there is anything; all for no key.
    fn remove(&mut self, key: &str) -> Result<()>;

    /// Waits until all that was put would survive a power cut.
    fn flush(&mut self) -> Result<()>;

    /// Puts the root's metadata, which tells of all that was put before: a flush on either side.
    fn publish(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Whether `path` is a URL of objects and no folder.
pub fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains("://"))
}

/// What errors call the store at `path`: a URL without the password, or the signature, that it may
/// hold.
pub fn shown(path: &Path) -> String {
    redacted(&path.display().to_string())
}

/// Text whose URLs have lost what stands before their hosts, and their queries.
fn redacted(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "()\"'<>".contains(c));
        let (url, rest) = part.split_at(end.unwrap_or(part.len()));
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
        let host = host.rsplit('@').next().unwrap_or_default();
        shown.extend(["://", host, path, rest]);
    }
    shown
}

/// The store at `path`, to read.
pub(super) fn open(path: &Path) -> Result<Arc<dyn Place>> {
    #[cfg(feature = "cloud")]
    if is_url(path) {
        return Ok(Arc::new(objects::Objects::new(site::Site::open(path)?)));
    }
    local(path)?;
    Ok(Arc::new(Folder::new(path, false)))
}

/// Whether there are stores to write where `path` says; nothing is written.
pub(super) fn writable(path: &Path) -> Result<()> {
    #[cfg(feature = "cloud")]
    if is_url(path) {
        return bucket::Bucket::new(site::Site::open(path)?).map(|_| ());
    }
    local(path)
}

/// A store at `path`, to write whoever else does.
#[cfg(test)]
pub(super) fn create(path: &Path) -> Result<Box<dyn Writing>> {
    #[cfg(feature = "cloud")]
    if is_url(path) {
        return Ok(Box::new(bucket::Bucket::new(site::Site::open(path)?)?));
    }
    local(path)?;
    let folder = Folder::new(path, false);
    folder.tidy()?;
    Ok(Box::new(folder))
}

/// The store at `path` for its one writer, which is refused where there is another. With `fsync`
/// a power cut undoes nothing that was flushed; objects are always so.
pub(super) fn hold(path: &Path, fsync: bool) -> Result<Box<dyn Writing>> {
    #[cfg(feature = "cloud")]
    if is_url(path) {
        let mut bucket = bucket::Bucket::new(site::Site::open(path)?)?;
        bucket.hold()?;
        return Ok(Box::new(bucket));
    }
    local(path)?;
    Ok(Box::new(Folder::held(path, fsync)?))
}

#[cfg(feature = "cloud")]
fn local(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(not(feature = "cloud"))]
fn local(path: &Path) -> Result<()> {
    if is_url(path) {
        let why = "is a URL, and this program was built without them: build it with `cargo \
                   install --path . --features cloud`, or name a folder";
        return Err(physicnet_stream::Error::new(shown(path), why));
    }
    Ok(())
}

#[cfg(test)]
mod shows {
    use super::*;

    #[test]
    fn urls_without_what_is_secret() {
        let shown = |text: &str| shown(Path::new(text));
        assert_eq!(shown("a/b@c?.zarr"), "a/b@c?.zarr");
        assert_eq!(shown("s3://bucket/a@b/{sensor}.zarr"), "s3://bucket/a@b/{sensor}.zarr");
        assert_eq!(shown("https://user:p@ss@host:1/a.zarr?sig=x#y"), "https://host:1/a.zarr");
        assert_eq!(
            redacted("no answer (https://me:pw@host?sig=a/b) from \"gs://b/c?d\" at all?"),
            "no answer (https://host) from \"gs://b/c\" at all?"
        );
    }
}
