//! Checkpoints in half as many bits: of a run that is the same, and goes on as it would have.

use candle_core::DType;

use super::*;
use crate::training::state;

const FILES: [&str; 2] = ["best.safetensors", "last.safetensors"];

/// The weights as they would be read if they had been stored so.
fn rounded(config: &TrainConfig, name: &str, stored: DType) -> Vec<u8> {
    let mut checkpoint = Checkpoint::load(&config.out.join(name)).unwrap();
    for weight in checkpoint.weights.values_mut() {
        *weight = weight.to_dtype(stored).unwrap().to_dtype(DType::F32).unwrap();
    }
    let path = config.out.join("rounded");
    checkpoint.save(&path).unwrap();
    bytes(config, "rounded")
}

#[test]
fn half_weights_are_those_of_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, true);
    let whole = config(folder.path(), &frames, "whole");
    run(&whole);

    // Interrupted, and gone on with from the state.
    let mut half = config(folder.path(), &frames, "half");
    half.weights = Stored::F16;
    let stop = Stop::default();
    let asked = stop.clone();
    train(&half, &stop, &mut |told| {
        if told.step == 2 {
            asked.stop();
        }
    })
    .unwrap();
    half.resume = true;
    run(&half);
    let state = |config: &TrainConfig| {
        let (Optimiser { weights, ema, first, second, .. }, ..) =
            state::load(&config.out.join("state.safetensors")).unwrap();
        [weights, ema, first, second]
    };
    assert!(state(&half) == state(&whole));
    for name in FILES {
        let [ours, theirs] =
            [&half, &whole].map(|of| Checkpoint::load(&of.out.join(name)).unwrap());
        assert_eq!((ours.stored, theirs.stored), (Stored::F16, Stored::F32));
        assert!(bytes(&half, name) == rounded(&whole, name, DType::F16), "{name}");
        // Codes are counted with the weights as stored, scores are those of the run.
        assert!(ours.usage.is_some());
        assert_eq!(ours.provenance, theirs.provenance);
    }

    // Nothing is lost: however they are stored, it is the same run.
    run(&TrainConfig { weights: Stored::F32, ..half.clone() });
    assert!(bytes(&half, FILES[1]) == bytes(&whole, FILES[1]));
}

#[test]
fn training_begins_from_half_weights() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, false);
    let first =
        TrainConfig { weights: Stored::Bf16, steps: 1, ..config(folder.path(), &frames, "first") };
    run(&first);
    let path = first.out.join("last.safetensors");
    let known = Checkpoint::load(&path).unwrap();
    let second = TrainConfig {
        init_from: Some(path),
        steps: 1,
        learning_rate: 1e-30,
        weight_decay: 0.0,
        ..config(folder.path(), &frames, "second")
    };
    run(&second);
    let child = Checkpoint::load(&second.out.join("last.safetensors")).unwrap();
    assert_eq!(child.stored, Stored::F32);
    let parent = child.provenance.parent.unwrap();
    assert_eq!((parent.id.as_str(), parent.taken), (&*known.id, [known.weights.len(); 2]));
    // The codes move whatever the rate.
    for (name, weight) in known.weights.iter().filter(|(name, _)| !name.starts_with("quanti")) {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut pairs = values(weight).into_iter().zip(values(&child.weights[name]));
        let near = |(known, child): (f32, f32)| (known - child).abs() <= 1e-6 * known.abs() + 1e-20;
        assert!(pairs.all(near), "{name}");
    }
}

#[test]
fn a_weight_beyond_f16_ends_the_run_and_the_state_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, false);
    let first = TrainConfig { steps: 1, ..config(folder.path(), &frames, "first") };
    run(&first);
    let path = folder.path().join("large.safetensors");
    let mut large = Checkpoint::load(&first.out.join("last.safetensors")).unwrap();
    let bias = large.weights.get_mut("fusion.gate.bias").unwrap();
    *bias = (bias.ones_like().unwrap() * 7e4).unwrap();
    large.save(&path).unwrap();

    let mut second = config(folder.path(), &frames, "second");
    (second.init_from, second.weights, second.resume) = (Some(path), Stored::F16, true);
    let error = train(&second, &Stop::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("best.safetensors: fusion.gate.bias: 6999"), "{error}");
    assert!(error.contains("65504.0 that f16 holds; store the weights as f32"), "{error}");
    assert!(FILES.iter().all(|name| !second.out.join(name).exists()));

    second.weights = Stored::F32;
    run(&second);
    for name in FILES {
        let gate = Checkpoint::load(&second.out.join(name)).unwrap().weights["fusion.gate.bias"]
            .to_vec1::<f32>()
            .unwrap();
        assert!(gate.iter().all(|&bias| bias > 65504.0), "{name}: {gate:?}");
    }
}
