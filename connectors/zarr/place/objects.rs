//! Objects to read: chunks that will be asked for soon are on their way before they are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::GetRange;
use physicnet_stream::Result;
use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{
    MaybeBytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey,
};

use super::runtime::{Coming, begin, wait};
use super::site::Site;
use super::{AT_ONCE, Listed, Place};

/// A store of objects.
pub(super) struct Objects {
    site: Site,
    ahead: Mutex<Ahead>,
}

/// What has been asked for and nobody has fetched yet, the oldest first.
#[derive(Default)]
struct Ahead {
    coming: HashMap<String, Coming<Fetched>>,
    order: VecDeque<String>,
}

type Fetched = Result<Option<Vec<u8>>>;

impl Objects {
    pub(super) fn new(site: Site) -> Self {
        Self { site, ahead: Mutex::default() }
    }

    fn begin(&self, key: &str, range: Option<GetRange>) -> Result<Coming<Fetched>> {
        let (site, key) = (self.site.clone(), key.to_owned());
        begin(async move { Ok(site.get(&key, range).await?.map(|(bytes, _)| bytes)) })
    }
}

impl Place for Objects {
    fn name(&self, key: &str) -> String {
        self.site.name(key)
    }

    fn get(&self, key: &str) -> Fetched {
        let coming = {
            let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            ahead.order.retain(|known| known != key);
            ahead.coming.remove(key)
        };
        // What failed was asked for a while ago, maybe before the store was back.
        match coming.map(|coming| coming.wait().flatten()) {
            Some(Ok(found)) => Ok(found),
            Some(Err(_)) | None => self.begin(key, None)?.wait()?,
        }
    }

    fn list(&self) -> Result<Listed> {
        let site = self.site.clone();
        wait(async move { site.list("").await })?
    }

    fn chunks(self: Arc<Self>) -> Result<Arc<dyn ReadableStorageTraits>> {
        Ok(self)
    }

    fn is_far(&self) -> bool {
        true
    }

    fn ahead(&self, keys: Vec<String>) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if ahead.coming.contains_key(&key) {
                continue;
            }
            // What cannot begin now will say why when it is asked for.
            let Ok(coming) = self.begin(&key, None) else { return };
            ahead.coming.insert(key.clone(), coming);
            ahead.order.push_back(key);
        }
        // What was not asked for after all.
        while ahead.order.len() > 4 * AT_ONCE as usize {
            if let Some(oldest) = ahead.order.pop_front() {
                ahead.coming.remove(&oldest);
            }
        }
    }
}

impl ReadableStorageTraits for Objects {
    fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        let bytes = Place::get(self, key.as_str()).map_err(other)?;
        Ok(bytes.map(Into::into))
    }

    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let ranges = byte_ranges.map(|range| match range {
            ByteRange::FromStart(from, Some(length)) => GetRange::Bounded(from..from + length),
            ByteRange::FromStart(from, None) => GetRange::Offset(from),
            ByteRange::Suffix(length) => GetRange::Suffix(length),
        });
        let coming = ranges.map(|range| self.begin(key.as_str(), Some(range)));
        let coming = coming.collect::<Result<Vec<_>>>().map_err(other)?;
        let mut parts = Vec::new();
        for part in coming {
            let Some(part) = part.wait().flatten().map_err(other)? else { return Ok(None) };
            parts.push(Ok(part.into()));
        }
        Ok(Some(Box::new(parts.into_iter())))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        let (site, key) = (self.site.clone(), key.as_str().to_owned());
        wait(async move { site.length(&key).await }).flatten().map_err(other)
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

fn other(error: physicnet_stream::Error) -> StorageError {
    StorageError::Other(error.to_string())
}
