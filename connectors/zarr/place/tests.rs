//! Writers and readers of objects at the end of a line that may be cut.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::bucket::Bucket;
use super::lease::SILENCE;
use super::objects::Objects;
use super::runtime::wait;
use super::site::Site;
use super::{Place, Writing};

/// Objects in memory, and a line to them.
#[derive(Clone, Debug, Default)]
struct Wire {
    store: Arc<InMemory>,
    /// While it is, nothing is answered.
    cut: Arc<AtomicBool>,
    /// How many of the next reads fail.
    failing: Arc<AtomicUsize>,
    /// Whether it puts whatever is there.
    careless: bool,
}

impl Wire {
    async fn pass(&self) {
        while self.cut.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    /// Its one writer.
    fn held(&self) -> Bucket {
        let mut bucket = Bucket::new(Site::over(self.clone())).unwrap();
        bucket.hold().unwrap();
        bucket
    }

    /// What lies there, whatever becomes of the line.
    fn there(&self, key: &str) -> Option<String> {
        let (store, key) = (Arc::clone(&self.store), Path::from(key));
        let read = async move { store.get(&key).await.ok()?.bytes().await.ok() };
        wait(read).unwrap().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Another writer takes the lease.
    fn usurp(&self) {
        let lease = r#"{"holder": "process 7 on elsewhere", "token": "7", "beat": 0}"#;
        let store = Arc::clone(&self.store);
        let put = async move { store.put(&Path::from("store.lease"), lease.into()).await };
        wait(put).unwrap().unwrap();
    }
}

impl Display for Wire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "wire")
    }
}

#[async_trait]
impl ObjectStore for Wire {
    async fn put_opts(
        &self,
        at: &Path,
        bytes: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.pass().await;
        if self.careless && matches!(options.mode, PutMode::Update(_)) {
            options.mode = PutMode::Overwrite;
        }
        self.store.put_opts(at, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass().await;
        let fails = |left: usize| left.checked_sub(1);
        if self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            let source = "slow down".into();
            return Err(object_store::Error::Generic { store: "wire", source });
        }
        self.store.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(all)
    }

    fn list(&self, within: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(within)
    }

    async fn list_with_delimiter(&self, within: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(within).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[test]
fn what_is_on_its_way_when_the_lease_is_lost_does_not_arrive() {
    let wire = Wire::default();
    let mut old = wire.held();
    wire.set_cut(true);
    old.put("chunk", b"old").unwrap();
    sleep(SILENCE);
    wire.usurp();
    wire.set_cut(false);
    let error = old.flush().unwrap_err().to_string();
    assert!(error.contains("was lost to process 7 on elsewhere"), "{error}");
    assert_eq!(wire.there("store/chunk"), None);
}

#[test]
fn what_is_on_its_way_when_the_lease_lapses_is_sent_again_if_nobody_took_it() {
    let wire = Wire::default();
    let mut writer = wire.held();
    wire.set_cut(true);
    writer.put("chunk", b"new").unwrap();
    sleep(SILENCE);
    wire.set_cut(false);
    writer.flush().unwrap();
    writer.publish(b"root").unwrap();
    assert_eq!(wire.there("store/chunk").as_deref(), Some("new"));
    assert_eq!(wire.there("store/zarr.json").as_deref(), Some("root"));
}

#[test]
fn a_lease_that_is_another_s_is_not_given_back() {
    let wire = Wire::default();
    let old = wire.held();
    wire.usurp();
    drop(old);
    assert!(wire.there("store.lease").unwrap().contains("process 7"));
}

#[test]
fn a_store_that_puts_whatever_is_there_is_refused() {
    let wire = Wire { careless: true, ..Wire::default() };
    let error = Bucket::new(Site::over(wire)).unwrap().hold().unwrap_err().to_string();
    assert!(error.contains("does not keep `If-Match`"), "{error}");
}

#[test]
fn what_failed_ahead_of_its_time_is_asked_for_again() {
    let wire = Wire::default();
    let mut writer = wire.held();
    writer.put("chunk", b"there").unwrap();
    writer.flush().unwrap();
    let objects = Objects::new(Site::over(wire.clone()));
    wire.failing.store(1, Ordering::SeqCst);
    objects.ahead(vec!["chunk".to_owned()]);
    while wire.failing.load(Ordering::SeqCst) > 0 {
        sleep(Duration::from_millis(1));
    }
    assert_eq!(Place::get(&objects, "chunk").unwrap().as_deref(), Some(&b"there"[..]));
}
