//! Work spread over threads, whose number cannot be seen in the results.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

/// Maps `items` on up to `threads` threads; results in the order of the items.
pub(crate) fn on_threads<A: Sync, B: Send>(
    threads: usize,
    items: &[A],
    work: impl Fn(&A) -> Result<B> + Sync,
) -> Vec<Result<B>> {
    if threads < 2 || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut all: Vec<(usize, Result<B>)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(take)).collect();
        let joined = handles.into_iter().map(|handle| match handle.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}
