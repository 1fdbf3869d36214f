//! How soon a run hears that it is to stop.

use super::super::run::{Halted, Run};
use super::*;

#[test]
fn a_stop_is_heard_between_the_windows_of_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &frames(40, false), "out");
    let (data, model, init) = open(&config).unwrap();
    let mut run = Run::new(&config, model, Arc::new(data), init).unwrap();
    let window = |index| run.data.training(&config, &run.model, 0, index).unwrap();
    let batch: Vec<_> = (0..config.batch).map(window).collect();
    let before = run.optimiser.weights.clone();
    let stop = Stop::default();
    stop.stop();
    let error = run.step(&batch, 1e-3, &stop).err().unwrap();
    assert!(error.is::<Halted>(), "{error}");
    assert!((run.optimiser.step, &run.optimiser.weights) == (0, &before));
    run.step(&batch, 1e-3, &Stop::default()).unwrap();
    assert!(run.optimiser.step == 1 && run.optimiser.weights != before);
}
