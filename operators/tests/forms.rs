//! The whole network by the portable forms of its layers, beside the kernels; and on a GPU.

use super::*;
use crate::layers::portable::{everywhere, tests};
use crate::model::PhysicNet;

/// Networks that have every part between them.
fn networks() -> Vec<ModelConfig> {
    let whole = ModelConfig {
        sharp: true,
        local: true,
        quantization: Quantization::Hard,
        position: true,
        tendency: 2,
        ..small(2)
    };
    let other = ModelConfig { global_scale: 2, tendency: 0, skips: 2, ..whole.clone() };
    let still = ModelConfig { expert: Expert::Persistence, local: false, ..whole.clone() };
    let periodic = ModelConfig { boundary: Boundary::Periodic, ..whole.clone() };
    vec![whole, other, still, periodic]
}

/// What a network says of two windows, and the gradient of each of its weights.
fn told(config: &ModelConfig, device: &Device) -> Vec<Vec<f32>> {
    let map = VarMap::new();
    let net = PhysicNet::new(config, VarBuilder::from_varmap(&map, DType::F32, device)).unwrap();
    let vars = map.data().lock().unwrap();
    let vars: std::collections::BTreeMap<_, _> = vars.iter().collect();
    for (i, var) in vars.values().enumerate() {
        let weight = tests::Draw(i as u64).field(var.dims(), 0.1);
        var.set(&weight.to_device(device).unwrap()).unwrap();
    }
    let (rows, columns) = (2 * config.stride(), 3 * config.stride());
    let mut draw = tests::Draw(99);
    let frames = draw.field(&[2, 3, rows, columns, 2], 1.0);
    let mask = draw.field(frames.dims(), 1.0).gt(-0.8).unwrap().to_dtype(DType::F32).unwrap();
    let flow = draw.field(&[2, rows, columns, 2], 2.0);
    let out = net.forward(&Batch { frames, mask, flow, view: None }).unwrap();
    let parts = [Some(out.mean), out.global, out.sharp, out.commitment, out.correction, out.latent];
    let parts: Vec<Tensor> = parts.into_iter().flatten().collect();
    let square = |part: &Tensor| part.sqr().unwrap().mean_all().unwrap();
    let loss = parts.iter().map(square).reduce(|a, b| (a + b).unwrap()).unwrap();
    let gradients = loss.backward().unwrap();
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1().unwrap();
    let each = vars.values().filter_map(|var| gradients.get(var)).map(flat);
    parts.iter().map(flat).chain(each).collect()
}

#[test]
fn a_network_of_portable_forms_is_the_same() {
    for (at, config) in networks().iter().enumerate() {
        let expected = told(config, &Device::Cpu);
        // All weights but the codebook's have gradients.
        assert!(expected.len() > 30, "{}", expected.len());
        let found = everywhere(|| told(config, &Device::Cpu));
        // What one layer rounds, the next ones amplify.
        tests::alike(&format!("network {at}"), &found, &expected, 1e-4);
    }
}

/// Asked by scripts/gpu-check.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_says_what_the_cpu_says() {
    let device = match Device::new_cuda_with_stream(0) {
        Ok(device) => device,
        Err(error) => return eprintln!("skipped: no GPU answers ({error})"),
    };
    for case in tests::cases(24) {
        tests::alike(&case.name, &case.told(&device), &case.told(&Device::Cpu), 1e-4);
    }
    for (at, config) in networks().iter().enumerate() {
        let expected = told(config, &Device::Cpu);
        tests::alike(&format!("network {at}"), &told(config, &device), &expected, 1e-3);
    }
}
