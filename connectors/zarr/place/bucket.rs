//! Objects to write. A put replaces an object whole, so what makes a commit visible is the put of
//! the root: it is refused where another writer has put one since.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use object_store::{PutPayload, UpdateVersion};
use physicnet_stream::{Error, Result};

use super::lease::Lease;
use super::objects::Objects;
use super::runtime::{Coming, begin, wait};
use super::site::{Put, Site};
use super::{AT_ONCE, Place, ROOT, Writing};

/// A store of objects, for its one writer.
pub(super) struct Bucket {
    site: Site,
    place: Arc<Objects>,
    lease: Option<Lease>,
    /// Puts on their way, the oldest first.
    coming: VecDeque<Coming<Result<()>>>,
    /// What lies under the keys that are only to be restored.
    known: HashMap<String, Vec<u8>>,
    /// The version of the root that this writer goes on from.
    root: Option<UpdateVersion>,
}

impl Bucket {
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn new(site: Site) -> Result<Self> {
        if site.is_read_only() {
            let why = "can only be read; write to a folder, to s3:// or to gs://";
            return Err(Error::new(site.name(""), why));
        }
        let place = Arc::new(Objects::new(site.clone()));
        let (coming, known) = (VecDeque::new(), HashMap::new());
        Ok(Self { site, place, lease: None, coming, known, root: None })
    }

    /// Keeps other writers out.
    ///
    /// # Errors
    /// When there is one, naming it.
    pub(super) fn hold(&mut self) -> Result<()> {
        self.lease = Some(Lease::take(&self.site)?);
        let site = self.site.clone();
        let root = wait(async move { site.get(ROOT, None).await })??;
        self.root = root.map(|(_, version)| version);
        Ok(())
    }

    /// Begins what changes the store, for as long as the lease is held.
    fn change<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        put: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Coming<Result<T>>> {
        match self.lease.as_ref().map(Lease::held) {
            Some(held) => begin(async move { held.during(put).await }),
            None => begin(put()),
        }
    }
}

impl Drop for Bucket {
    /// What is on its way arrives before the next writer may begin, whose chunks it would be taken for.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

impl Writing for Bucket {
    fn place(&self) -> &dyn Place {
        &*self.place
    }

    fn token(&self) -> Option<String> {
        self.lease.as_ref().map(Lease::token)
    }

    fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        // The oldest first: what is not there yet has no more than so many after it that are.
        if self.coming.len() as u64 >= AT_ONCE
            && let Some(oldest) = self.coming.pop_front()
        {
            oldest.wait()??;
        }
        let (site, to) = (self.site.clone(), key.to_owned());
        let bytes = PutPayload::from(bytes.to_vec());
        let coming = self.change(move || {
            let (site, to, bytes) = (site.clone(), to.clone(), bytes.clone());
            async move { site.put(&to, bytes).await }
        })?;
        self.coming.push_back(coming);
        self.known.remove(key);
        Ok(())
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let same = match self.known.get(key) {
            Some(known) => known == bytes,
            None => self.place.get(key)?.is_some_and(|there| there == bytes),
        };
        if !same {
            self.put(key, bytes)?;
        }
        self.known.insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn exist(&self, keys: &[String]) -> Result<Vec<bool>> {
        let ask = |key: &String| {
            let (site, key) = (self.site.clone(), key.clone());
            begin(async move { site.length(&key).await })
        };
        let coming = keys.iter().map(ask).collect::<Result<Vec<_>>>()?;
        coming.into_iter().map(|length| Ok(length.wait()??.is_some())).collect()
    }

    fn remove(&mut self, key: &str) -> Result<()> {
        self.flush()?;
        self.known.remove(key);
        let (site, key) = (self.site.clone(), key.to_owned());
        let coming = self.change(move || {
            let (site, key) = (site.clone(), key.clone());
            async move { site.remove(&key).await }
        })?;
        coming.wait()?
    }

    fn flush(&mut self) -> Result<()> {
        // All of them, whatever becomes of one: nothing may be on its way when this is given up.
        let done: Vec<Result<()>> = self.coming.drain(..).map(|put| put.wait()?).collect();
        done.into_iter().collect()
    }

    fn publish(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        let (site, bytes, version) = (self.site.clone(), bytes.to_vec(), self.root.clone());
        let coming = self.change(move || {
            let (site, bytes, version) = (site.clone(), bytes.clone(), version.clone());
            async move { site.put_over(ROOT, bytes, version).await }
        })?;
        match coming.wait()?? {
            Put::Done(version) => {
                self.root = Some(version);
                Ok(())
            }
            Put::Refused => {
                let why = "another writer has changed it meanwhile; end that one, then start again";
                Err(Error::new(self.site.name(ROOT), why))
            }
        }
    }
}
