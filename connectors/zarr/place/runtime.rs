//! One thread for all that is on its way to and from object stores.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use physicnet_stream::{Error, Result};
use tokio::runtime::{Builder, Handle};

/// The runtime, which lives as long as the program. It is there before any client of a store is.
pub(super) fn handle() -> Result<&'static Handle> {
    static HANDLE: OnceLock<std::result::Result<Handle, String>> = OnceLock::new();
    let started = HANDLE.get_or_init(|| {
        // The client asks for whatever is the program's; it fails only where that is set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("objects".into()).spawn(run).map_err(|e| e.to_string())?;
        Ok(handle)
    });
    started.as_ref().map_err(|e| Error::new("object stores", format!("cannot start: {e}")))
}

/// What a future will have come to.
pub(super) struct Coming<T>(Receiver<T>);

impl<T> Coming<T> {
    /// Waits for it.
    pub(super) fn wait(self) -> Result<T> {
        let gone = |_| Error::new("object stores", "the thread that waits for them has ended");
        self.0.recv().map_err(gone)
    }
}

/// Begins `future`, which goes on whether or not its end is waited for.
pub(super) fn begin<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<Coming<T>> {
    let (sender, receiver) = sync_channel(1);
    handle()?.spawn(async move {
        // Nobody may want it any more.
        let _ = sender.send(future.await);
    });
    Ok(Coming(receiver))
}

/// Does `future` and waits for its end.
pub(super) fn wait<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    begin(future)?.wait()
}
