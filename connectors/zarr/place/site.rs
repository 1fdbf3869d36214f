//! A URL as an object store and a prefix in it, with what the environment says of who asks.

use std::collections::HashMap;
use std::error::Error as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, GetOptions, GetRange, ObjectStore,
    ObjectStoreExt, PutMode, PutPayload, RetryConfig, UpdateVersion,
};
use physicnet_stream::{Error, Result};

use super::runtime::{handle, wait};
use super::{Listed, ROOT, redacted};

/// How long who asks may take to be known: elsewhere than in a cloud nobody answers.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Objects under a URL.
#[derive(Clone)]
pub(super) struct Site {
    store: Arc<dyn ObjectStore>,
    /// As errors show it, without a slash at its end.
    url: String,
    /// What all keys begin with.
    prefix: String,
    scheme: Scheme,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    S3,
    Google,
    Http,
}

/// What became of a put under a condition.
pub(super) enum Put {
    /// It is there, as this version.
    Done(UpdateVersion),
    /// The condition does not hold.
    Refused,
}

impl Site {
    /// The objects under `path`, which is a URL.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let url = path.to_string_lossy().trim_end_matches('/').to_owned();
        let shown = redacted(&url);
        let wrong = |why: &str| Error::new(&shown, why);
        let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "http" | "https" => Scheme::Http,
            _ => return Err(wrong("is no URL of a store: s3://, gs:// or https://")),
        };
        if bucket.is_empty() {
            return Err(wrong("names no bucket: s3://BUCKET/PATH"));
        }
        let (root, prefix) = match scheme {
            Scheme::Http => (url.clone(), String::new()),
            _ => (url[..url.len() - rest.len() + bucket.len()].to_owned(), prefix.to_owned()),
        };
        let store = shared(&root, || match scheme {
            Scheme::S3 => s3(bucket),
            Scheme::Google => google(bucket),
            Scheme::Http => http(&root),
        })?;
        let site = Self { store, url: shown, prefix, scheme };
        site.key("")?;
        Ok(site)
    }

    /// The objects of `store`, for tests.
    #[cfg(test)]
    pub(super) fn over(store: impl ObjectStore) -> Self {
        let (url, prefix) = ("test://store".to_owned(), "store".to_owned());
        Self { store: Arc::new(store), url, prefix, scheme: Scheme::S3 }
    }

    /// What errors call the object under `key`.
    pub(super) fn name(&self, key: &str) -> String {
        if key.is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) }
    }

    /// Whether it is only there to be read.
    pub(super) fn is_read_only(&self) -> bool {
        self.scheme == Scheme::Http
    }

    /// The objects beside, under a name that begins like this one's.
    pub(super) fn beside(&self, suffix: &str) -> Self {
        let grown = |text: &str| format!("{text}{suffix}");
        Self { url: grown(&self.url), prefix: grown(&self.prefix), ..self.clone() }
    }

    fn key(&self, key: &str) -> Result<Key> {
        let text = [&*self.prefix, key].into_iter().filter(|part| !part.is_empty());
        let text = text.collect::<Vec<_>>().join("/");
        Key::parse(&text).map_err(|e| Error::new(self.name(key), e))
    }

    /// The bytes of an object, or a part of them; `None` where there is none.
    pub(super) async fn get(
        &self,
        key: &str,
        range: Option<GetRange>,
    ) -> Result<Option<(Vec<u8>, UpdateVersion)>> {
        let options = GetOptions { range, ..GetOptions::default() };
        let found = match self.store.get_opts(&self.key(key)?, options).await {
            Ok(found) => found,
            Err(error) => return self.absent(key, error).map(|()| None),
        };
        let version =
            UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = found.bytes().await.map_err(|e| self.told(key, &e))?;
        Ok(Some((bytes.into(), version)))
    }

    /// The length of an object; `None` where there is none.
    pub(super) async fn length(&self, key: &str) -> Result<Option<u64>> {
        match self.store.head(&self.key(key)?).await {
            Ok(found) => Ok(Some(found.size)),
            Err(error) => self.absent(key, error).map(|()| None),
        }
    }

    /// The first parts of what follows `key`.
    pub(super) async fn list(&self, key: &str) -> Result<Listed> {
        if self.is_read_only() {
            let why = "has neither a zarr.json with consolidated metadata nor a .zmetadata, and \
                       what else there is cannot be listed over HTTP; look at how it is spelt, or \
                       consolidate the store: zarr.consolidate_metadata(path)";
            return Err(Error::new(&self.url, why));
        }
        let at = self.key(key)?;
        let listed = self.store.list_with_delimiter(Some(&at)).await;
        let listed = listed.map_err(|e| self.told(key, &e))?;
        let name = |key: Key| key.filename().map(str::to_owned);
        let objects = listed.objects.into_iter().filter_map(|object| name(object.location));
        let folders = listed.common_prefixes.into_iter().filter_map(name);
        Ok(Listed { files: objects.collect(), folders: folders.collect() })
    }

    pub(super) async fn put(&self, key: &str, bytes: PutPayload) -> Result<()> {
        let put = self.store.put(&self.key(key)?, bytes).await;
        put.map(|_| ()).map_err(|e| self.told(key, &e))
    }

    /// Puts an object where there is `version` of it, or none.
    pub(super) async fn put_over(
        &self,
        key: &str,
        bytes: Vec<u8>,
        version: Option<UpdateVersion>,
    ) -> Result<Put> {
        let (at, mode) = (self.key(key)?, version.map_or(PutMode::Create, PutMode::Update));
        let mut left = 5;
        loop {
            let put = self.store.put_opts(&at, bytes.clone().into(), mode.clone().into());
            let error = match put.await {
                Ok(done) => {
                    let (e_tag, version) = (done.e_tag, done.version);
                    return Ok(Put::Done(UpdateVersion { e_tag, version }));
                }
                Err(error) => error,
            };
            // An answer may have been lost on its way: what is there may be what was put.
            let (refused, unsure) = match &error {
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. } => (true, true),
                object_store::Error::Generic { .. } => (false, true),
                _ => (false, false),
            };
            if unsure
                && let Some((there, version)) = self.get(key, None).await?
                && there == bytes
            {
                return Ok(Put::Done(version));
            }
            if refused {
                return Ok(Put::Refused);
            }
            left -= 1;
            if left == 0 || !unsure {
                return Err(self.told(key, &error));
            }
        }
    }

    /// Removes all that lies within `key`, or else the object of this name.
    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        let (mut folders, mut objects) = (vec![key.to_owned()], Vec::new());
        while let Some(next) = folders.pop() {
            let within = self.list(&next).await?;
            let whole = |name| if next.is_empty() { name } else { format!("{next}/{name}") };
            objects.extend(within.files.into_iter().map(whole));
            folders.extend(within.folders.into_iter().map(whole));
        }
        if objects.is_empty() {
            objects.push(key.to_owned());
        }
        for object in objects {
            if let Err(error) = self.store.delete(&self.key(&object)?).await {
                self.absent(&object, error)?;
            }
        }
        Ok(())
    }

    /// Whether an error is but that there is no such object.
    fn absent(&self, key: &str, error: object_store::Error) -> Result<()> {
        match &error {
            object_store::Error::NotFound { .. } if !chain(&error).contains("NoSuchBucket") => {
                Ok(())
            }
            _ => Err(self.told(key, &error)),
        }
    }

    /// An error, and what to do about it.
    fn told(&self, key: &str, error: &object_store::Error) -> Error {
        let said = chain(error);
        let (who, endpoint) = match self.scheme {
            Scheme::S3 => ("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
            Scheme::Google => ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BASE_URL"),
            Scheme::Http => ("the server", "the URL"),
        };
        let denied = matches!(
            error,
            object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
        );
        let way = if said.contains("NoSuchBucket") {
            "there is no such bucket: make it, or look at how it is spelt".to_owned()
        } else if denied && self.scheme == Scheme::Http {
            "the server refuses it: name what may be read without a password".to_owned()
        } else if denied {
            format!(
                "refused: {who} say who asks, and the bucket's policy what they may (without the \
                 right to list, what is not there is refused as well)"
            )
        } else {
            format!("look at {endpoint} and at whether the store is up")
        };
        Error::new(self.name(key), format!("{way}: {said}"))
    }
}

/// What an error says and what lies behind it, each once and without the pages of a server.
fn chain(error: &object_store::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = error.source();
    }
    let said = redacted(&said);
    match said.char_indices().nth(600) {
        Some((end, _)) => format!("{}...", &said[..end]),
        None => said,
    }
}

/// The store under `root`, one for all who want it: its connections are kept open.
fn shared(
    root: &str,
    make: impl FnOnce() -> Result<Arc<dyn ObjectStore>>,
) -> Result<Arc<dyn ObjectStore>> {
    static STORES: Mutex<Option<HashMap<String, Arc<dyn ObjectStore>>>> = Mutex::new(None);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_default();
    if let Some(store) = stores.get(root) {
        return Ok(Arc::clone(store));
    }
    handle()?;
    let store = make()?;
    stores.insert(root.to_owned(), Arc::clone(&store));
    Ok(store)
}

/// Half a minute and more of a store that is down goes by unnoticed.
fn patience() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(10),
        base: 3.0,
    };
    RetryConfig { backoff, max_retries: 10, retry_timeout: Duration::from_secs(180) }
}

/// Once again, and no more: for asking who asks.
fn brief() -> RetryConfig {
    RetryConfig { max_retries: 1, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() }
}

fn s3(bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let what = format!("s3://{bucket}");
    let build = |retry| {
        // Single deletes: not every store that speaks S3 knows the other, and here they are few.
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let store = builder.with_disable_bulk_delete(true).with_retry(retry).build();
        store.map_err(|e| Error::new(&what, chain(&e)))
    };
    let first = build(brief())?;
    if !set("AWS_SKIP_SIGNATURE") {
        let way = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true";
        known(&what, Arc::clone(first.credentials()), way)?;
    }
    answers(&what, first, "AWS_ENDPOINT_URL")?;
    Ok(Arc::new(build(patience())?))
}

fn google(bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let what = format!("gs://{bucket}");
    let build = |retry| {
        let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
        let store = builder.with_retry(retry).build();
        store.map_err(|e| Error::new(&what, chain(&e)))
    };
    let first = build(brief())?;
    if !set("GOOGLE_SKIP_SIGNATURE") {
        let way = "set GOOGLE_APPLICATION_CREDENTIALS to an account's file, or \
                   GOOGLE_SKIP_SIGNATURE=true";
        known(&what, Arc::clone(first.credentials()), way)?;
    }
    answers(&what, first, "GOOGLE_BASE_URL")?;
    Ok(Arc::new(build(patience())?))
}

fn http(url: &str) -> Result<Arc<dyn ObjectStore>> {
    let build = |retry| {
        // The URL itself says whether it is meant.
        let options = ClientOptions::new().with_allow_http(url.starts_with("http://"));
        let builder = HttpBuilder::new().with_url(url).with_client_options(options);
        builder.with_retry(retry).build().map_err(|e| Error::new(redacted(url), chain(&e)))
    };
    answers(&redacted(url), build(brief())?, "the URL")?;
    Ok(Arc::new(build(patience())?))
}

fn set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| ["1", "true"].contains(&&*value.to_lowercase()))
}

/// Whether it is known who asks.
fn known<C: Send + Sync + 'static>(
    what: &str,
    provider: Arc<dyn CredentialProvider<Credential = C>>,
    way: &str,
) -> Result<()> {
    let asked = wait(async move {
        match tokio::time::timeout(INTRODUCTION, provider.get_credential()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("nobody answers who knows".to_owned()),
        }
    })?;
    asked.map_err(|why| {
        let why = format!("no credentials: {way} for what everybody may read ({why})");
        Error::new(what, why)
    })
}

/// Whether there is anybody at the other end: later on, much is tried again that fails.
fn answers(what: &str, store: impl ObjectStore, named: &str) -> Result<()> {
    let asked = wait(async move {
        match store.head(&Key::from(ROOT)).await {
            Err(error @ object_store::Error::Generic { .. }) => Err(chain(&error)),
            _ => Ok(()),
        }
    })?;
    asked.map_err(|said| {
        let way = if said.contains("scheme is not allowed") {
            "plain http is used only where AWS_ALLOW_HTTP=true says so".to_owned()
        } else {
            format!("nobody answers: look at {named} and at whether the store is up")
        };
        Error::new(what, format!("{way}: {said}"))
    })
}
