//! The whole network as a GPU computes its layers, beside the CPU; and on a GPU.

use std::path::Path;

use super::*;
use crate::layers::gpu::{everywhere, tests};
use crate::model::{PhysicNet, Precision};

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
fn a_network_of_a_gpus_kernels_is_the_same() {
    for (at, config) in networks().iter().enumerate() {
        let expected = told(config, &Device::Cpu);
        // All weights but the codebook's have gradients.
        assert!(expected.len() > 30, "{}", expected.len());
        let found = everywhere(|| told(config, &Device::Cpu));
        // What one layer rounds, the next ones amplify.
        tests::alike(&format!("network {at}"), &found, &expected, 1e-4);
    }
}

/// Waves that travel, as a network sees them: `(1, history, side, side, channels)`.
fn waves(config: &ModelConfig, side: usize) -> Batch {
    let (history, channels) = (config.history, config.variables.len());
    let value = |at: usize| {
        let (k, pixel) = (at % channels, at / channels);
        let [x, y, t] = [pixel % side, pixel / side % side, pixel / side / side];
        let [x, y, t] = [x, y, t].map(|v| v as f32);
        let turn = std::f32::consts::TAU / side as f32;
        let wave = |a: f32, b: f32| (turn * (a * (x - t) + b * (y - 0.5 * t)) + k as f32).sin();
        wave(1.0, 2.0) + 0.5 * wave(-3.0, 2.0) + 0.25 * wave(5.0, 7.0)
    };
    let dims = [1, history, side, side, channels];
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    let frames = Tensor::from_vec(values, &dims, &Device::Cpu).unwrap();
    let mask = frames.ones_like().unwrap();
    let flow =
        Tensor::from_vec([-1.0_f32, -0.5].repeat(side * side), (1, side, side, 2), &Device::Cpu);
    Batch { frames, mask, flow: flow.unwrap(), view: None }
}

#[test]
fn half_precision_costs_what_the_docs_say() {
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    for file in ["demo/checkpoint.safetensors", "radar/rain.safetensors"] {
        let checkpoint = Checkpoint::load(&Path::new(configs).join(file)).unwrap();
        let batch = waves(&checkpoint.config, 64);
        let mean = |precision| {
            let net = checkpoint.network_in(&Device::Cpu, precision).unwrap();
            everywhere(|| net.forward(&batch).unwrap().mean)
        };
        let square = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let exact = mean(Precision::F32);
        for (precision, least, most) in
            [(Precision::Bf16, 1e-4, 1e-2), (Precision::F16, 1e-5, 1e-3)]
        {
            let apart = (mean(precision) - &exact).unwrap();
            let apart = (square(&apart) / square(&exact)).sqrt();
            assert!((least..most).contains(&apart), "{file}, {precision:?}: {apart:e}");
        }
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
