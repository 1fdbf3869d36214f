//! Checkpoints whose weights are stored in half as many bits.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

use super::*;
use crate::model::Stored;

/// The checkpoint's file with its tensors cast and called as `told` says of each.
fn file(checkpoint: &Checkpoint, told: impl Fn(&str) -> (DType, Dtype)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole");
    checkpoint.save(&path).unwrap();
    let whole = std::fs::read(path).unwrap();
    let metadata = SafeTensors::read_metadata(&whole).unwrap().1.metadata().clone();
    let bytes = |(name, weight): (&String, &Tensor)| {
        let cast = weight.to_dtype(told(name).0).unwrap();
        (name.clone(), cast.data().into_owned())
    };
    let bytes: BTreeMap<_, _> = checkpoint.weights.iter().map(bytes).collect();
    let view = |(name, weight): (&String, &Tensor)| {
        let view = TensorView::new(told(name).1, weight.dims().to_vec(), &bytes[name]);
        (name.clone(), view.unwrap())
    };
    let views: Vec<_> = checkpoint.weights.iter().map(view).collect();
    safetensors::serialize(views, metadata).unwrap()
}

fn refused(bytes: &[u8]) -> String {
    Checkpoint::from_bytes(bytes, "it").err().unwrap().to_string()
}

/// The bits of the weights once they were stored so, and of what was loaded.
fn bits(checkpoint: &Checkpoint, stored: DType) -> Vec<u32> {
    let values = |weight: &Tensor| {
        let rounded = weight.to_dtype(stored).unwrap().to_dtype(DType::F32).unwrap();
        rounded.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    checkpoint.weights.values().flat_map(values).map(f32::to_bits).collect()
}

fn kept(checkpoint: &Checkpoint, stored: Stored, path: &Path) -> (Checkpoint, u64) {
    Checkpoint { stored, ..checkpoint.clone() }.save(path).unwrap();
    (Checkpoint::load(path).unwrap(), std::fs::metadata(path).unwrap().len())
}

#[test]
fn half_weights_are_f32_once_read_and_have_the_id_of_these() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let checkpoint = shaken(&small(1));
    let (whole, size) = kept(&checkpoint, Stored::F32, &path);
    assert_eq!(whole.stored, Stored::F32);
    let mut ids = vec![Arc::clone(&whole.id)];
    for (stored, dtype) in [(Stored::F16, DType::F16), (Stored::Bf16, DType::BF16)] {
        let (half, smaller) = kept(&checkpoint, stored, &path);
        let bytes =
            whole.weights.values().map(|weight| 2 * weight.elem_count() as u64).sum::<u64>();
        // But for what the header says.
        assert!((size - smaller).abs_diff(bytes) < 99, "{size} {smaller}");
        assert_eq!(half.stored, stored);
        assert!(half.weights.values().all(|weight| weight.dtype() == DType::F32));
        assert!(bits(&half, DType::F32) == bits(&checkpoint, dtype));
        let (again, _) = kept(&half, Stored::F32, &path);
        assert_eq!((again.stored, &again.id), (Stored::F32, &half.id));
        half.network(&Device::Cpu).unwrap();
        ids.push(half.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "three files of other weights");
}

#[test]
fn a_file_may_mix_what_its_weights_are_stored_in() {
    let checkpoint = shaken(&small(1));
    let told = |name: &str| match name {
        "experts.mix.weight" => (DType::F16, Dtype::F16),
        "experts.mix.bias" => (DType::BF16, Dtype::BF16),
        _ => (DType::F32, Dtype::F32),
    };
    let mixed = Checkpoint::from_bytes(&file(&checkpoint, told), "it").unwrap();
    assert_eq!(mixed.stored, Stored::F32, "what holds them all");
    let whole = file(&mixed, |_| (DType::F32, Dtype::F32));
    assert_eq!(Checkpoint::from_bytes(&whole, "it").unwrap().id, mixed.id);
    let changed = |name: &str| {
        let [ours, theirs] = [&mixed, &checkpoint].map(|of| of.weights[name].clone());
        let off = (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap();
        off.max(0).unwrap().to_scalar::<f32>().unwrap() > 0.0
    };
    assert!(changed("experts.mix.weight") && changed("experts.mix.bias"));
    assert!(checkpoint.weights.keys().all(|name| told(name).0 != DType::F32 || !changed(name)));
}

#[test]
fn weights_of_other_types_are_refused_by_name() {
    let checkpoint = shaken(&small(1));
    // Of the last, candle knows nothing.
    let others = [(DType::F64, Dtype::F64), (DType::U8, Dtype::U8), (DType::U8, Dtype::BOOL)];
    for (cast, dtype) in others {
        let bias = "experts.mix.bias";
        let plain = (DType::F16, Dtype::F16);
        let told = |name: &str| if name == bias { (cast, dtype) } else { plain };
        let error = refused(&file(&checkpoint, told));
        let wanted = format!("config: {bias} is {dtype:?}, not F32, F16 or BF16");
        assert!(error.ends_with(&wanted), "{error}");
    }
}

#[test]
fn weights_beyond_the_range_are_named_not_made_infinite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let holding = |most: f32, stored| {
        let mut checkpoint = Checkpoint { stored, ..shaken(&small(1)) };
        let bias = checkpoint.weights.get_mut("experts.mix.bias").unwrap();
        *bias = (bias.ones_like().unwrap() * f64::from(-most)).unwrap();
        checkpoint
    };
    let largest_of_bf16 = f32::from_bits(0x7f7f_0000);
    for (most, stored, says) in [
        (65504.0, Stored::F16, "65504.0 that f16 holds"),
        (largest_of_bf16, Stored::Bf16, "3.3895314e38 that bf16 holds"),
    ] {
        let error = holding(most.next_up(), stored).save(&path).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: experts.mix.bias: "), "{error}");
        assert!(error.contains(says) && error.contains("as f32"), "{error}");
        assert!(!path.exists());
    }
    holding(65504.0, Stored::F16).save(&path).unwrap();
    let bias = Checkpoint::load(&path).unwrap().weights["experts.mix.bias"].to_vec1().unwrap();
    assert!(bias.iter().all(|&value: &f32| value == -65504.0), "{bias:?}");
    holding(70_000.0, Stored::Bf16).save(&path).unwrap();
    Checkpoint::load(&path).unwrap();

    // Of others' files: what is infinite in them.
    let bytes = file(&holding(70_000.0, Stored::F32), |_| (DType::F16, Dtype::F16));
    let error = refused(&bytes);
    assert!(error.ends_with("config: experts.mix.bias is not finite"), "{error}");
}

#[test]
fn what_codes_are_usual_is_written_beside_half_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (before, _) = kept(&shaken(&small(1)), Stored::F16, &path);
    let tensors = || {
        let bytes = std::fs::read(&path).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let told = |(name, view): (&str, TensorView)| {
            (name.to_owned(), (view.dtype(), view.data().to_vec()))
        };
        stored.iter().map(told).collect::<BTreeMap<_, _>>()
    };
    let known = tensors();
    let usage = Usage { counts: vec![3; before.config.codes], window: 9, usual: 0.2 };
    Checkpoint::describe(&path, &usage).unwrap();
    assert!(tensors() == known && known.values().all(|(dtype, _)| *dtype == Dtype::F16));
    let after = Checkpoint::load(&path).unwrap();
    assert_eq!((after.usage, after.id, after.stored), (Some(usage), before.id, Stored::F16));
}
