//! A thread that keeps a few batches ahead of the training.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use anyhow::Result;
use physicnet_operators::model::ModelConfig;

use super::config::TrainConfig;
use super::data::Data;
use super::sample::{Sample, Sampler};

/// Batches that wait: enough to smooth over a slow chunk, few enough to stay small.
const AHEAD: usize = 3;

/// Batches from `step` on, in order, until the receiver is dropped.
pub(crate) fn load<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    data: &'env Data,
    config: &'env TrainConfig,
    model: &'env ModelConfig,
    step: u64,
) -> Receiver<Result<Vec<Sample>>> {
    let (sender, receiver) = sync_channel(AHEAD);
    scope.spawn(move || send(&sender, Sampler::new(data, config, model), config.batch, step));
    receiver
}

fn send(sender: &SyncSender<Result<Vec<Sample>>>, mut sampler: Sampler, batch: usize, first: u64) {
    for step in first.. {
        let samples: Result<Vec<Sample>> =
            (0..batch).map(|slot| sampler.training(step, slot)).collect();
        let failed = samples.is_err();
        if sender.send(samples).is_err() || failed {
            break;
        }
    }
}
