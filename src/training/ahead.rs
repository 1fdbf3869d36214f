//! Windows that are read while the loop computes.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use physicnet_operators::model::ModelConfig;

use super::config::TrainConfig;
use super::data::Data;
use super::sample::Sample;
use super::threads::on_threads;

/// Batches that lie ready. With the one that is read and the one that is used, four are in memory.
const READY: usize = 2;

/// The batches of a run, in their order.
pub(super) struct Ahead {
    batches: Receiver<Result<Vec<Sample>>>,
}

impl Ahead {
    /// Begins to read the batches of `steps`, each on all threads: reading that kept to one would
    /// leave the others idle where it is the slower part. It ends when this is dropped.
    pub(super) fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        data: &'scope Data,
        config: &'scope TrainConfig,
        model: &'scope ModelConfig,
        steps: Range<u64>,
    ) -> Self {
        let (send, batches) = sync_channel(READY);
        scope.spawn(move || {
            let windows: Vec<usize> = (0..config.batch).collect();
            for step in steps {
                let window = |&index: &usize| data.training(config, model, step, index);
                let batch = on_threads(config.threads, &windows, window).into_iter().collect();
                if send.send(batch).is_err() {
                    return;
                }
            }
        });
        Self { batches }
    }

    /// The next batch, and how long it was waited for.
    ///
    /// # Errors
    /// When a window cannot be read, or there is none left.
    pub(super) fn next(&self) -> Result<(Vec<Sample>, Duration)> {
        let begun = Instant::now();
        let batch = self.batches.recv().map_err(|_| anyhow!("the loader ended early"))??;
        Ok((batch, begun.elapsed()))
    }
}
