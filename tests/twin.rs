//! The network beside its twin in PyTorch: the same weights, the same inputs, the same outputs.

#[path = "../benches/network/case.rs"]
mod case;

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use physicnet::config::parse;
use physicnet_connectors::synthetic::{Recording, SyntheticSource};
use physicnet_operators::model::{Batch, Checkpoint, PhysicNet, Stored};
use physicnet_stream::Frame;

/// The largest difference that counts as none, as a share of the field's range.
const TOLERANCE: f32 = 1e-5;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The largest difference as a share of the range.
fn difference(ours: &Tensor, twins: &Tensor) -> f32 {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap();
    let one = |tensor: Tensor| tensor.to_scalar::<f32>().unwrap();
    let twins = flat(twins);
    let off = (flat(ours) - &twins).unwrap().abs().unwrap().max(0).unwrap();
    one(off) / (one(twins.max(0).unwrap()) - one(twins.min(0).unwrap())).max(1e-12)
}

/// `benches/peers/twin.py golden tests/golden` wrote them, with PyTorch 2.15.0.
#[test]
fn small_networks_of_every_part_say_what_pytorch_says() {
    for name in ["plain", "full", "persistent", "trained", "holed"] {
        let at = root().join("tests/golden");
        let net = Checkpoint::load(&at.join(format!("{name}.safetensors"))).unwrap();
        let net = net.network(&Device::Cpu).unwrap();
        let path = at.join(format!("{name}.case.safetensors"));
        let case = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let [frames, mask, flow] = ["frames", "mask", "flow"].map(|name| case[name].clone());
        let ours = case::outputs(&net, &Batch { frames, mask, flow, view: None }).unwrap();
        // Three inputs, and one of every output.
        assert_eq!(case.len(), ours.len() + 3, "{name}");
        for (output, ours) in ours {
            let twins = &case[output];
            assert_eq!(ours.dims(), twins.dims(), "{name}: {output}");
            let float = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
            let off = difference(&float(&ours), &float(twins));
            assert!(off < TOLERANCE, "{name}: {output} differs by {off:e}");
        }
    }
}

/// A Python with PyTorch and ONNX Runtime (benches/peers/requirements-network.txt): half a gigabyte
/// and more, so nobody must have it.
fn python() -> Option<PathBuf> {
    let own = root().join(".venv/bin/python");
    let python = std::env::var_os("PHYSICNET_PYTHON").map_or(own, PathBuf::from);
    imports(&python, "onnxruntime, onnxscript, safetensors, torch").then_some(python)
}

fn imports(python: &Path, what: &str) -> bool {
    let told = Command::new(python).arg("-c").arg(format!("import {what}")).output();
    told.is_ok_and(|told| told.status.success())
}

#[test]
fn the_demo_says_what_pytorch_and_onnx_runtime_say() {
    let Some(python) = python() else {
        eprintln!("no Python with PyTorch and ONNX Runtime; not tested");
        return;
    };
    let checkpoint = root().join("configs/demo/checkpoint.safetensors");
    let net = Checkpoint::load(&checkpoint).unwrap().network(&Device::Cpu).unwrap();
    let text = "{field: {kind: navier_stokes, size: 64}, seed: 7}";
    let simulated: SyntheticSource = parse(text, false).unwrap();
    let mut recording = Recording::new(&simulated, 0).unwrap();
    let mut next = || recording.next_frame().unwrap().unwrap();
    let flow: Vec<Frame> = (0..net.config.history).map(|_| next()).collect();
    let mut gaps = flow.clone();
    gaps.iter_mut().for_each(|frame| frame.data[500..900].fill(f32::NAN));
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut random = flow.clone();
    random.iter_mut().flat_map(|frame| &mut frame.data).for_each(|value| *value = noise());
    let batch = |window| case::batch(&net, recording.sensor(), &[window]).unwrap();
    let [flow, gaps, random] = [flow, gaps, random].map(batch);
    // Along a flow of noise, paths part by as much as rounding moved them apart.
    let random = Batch { flow: flow.flow.clone(), ..random };

    let folder = tempfile::tempdir().unwrap();
    let mut command = twin(&python, &["check", checkpoint.to_str().unwrap()]);
    for (name, batch) in [("flow", flow), ("gaps", gaps), ("random", random)] {
        let path = folder.path().join(name);
        case::save(&net, &batch, None, &path).unwrap();
        command.arg(path);
    }
    succeeds(command);
}

/// `twin.py`, ready to be run.
fn twin(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(root().join("benches/peers/twin.py")).args(arguments);
    command
}

fn succeeds(mut command: Command) {
    let told = command.output().unwrap();
    let [out, err] = [&told.stdout, &told.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(told.status.success(), "{out}{err}");
    eprintln!("{out}");
}

/// The way there and back: our network, trained on in PyTorch, forecasts here what it forecasts
/// there, and better than before.
#[test]
fn weights_that_pytorch_trained_load_here_and_say_what_they_say_there() {
    let Some(python) = python() else {
        eprintln!("no Python with PyTorch and ONNX Runtime; not tested");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let demo = root().join("configs/demo/checkpoint.safetensors");
    let net = Checkpoint::load(&demo).unwrap().network(&Device::Cpu).unwrap();
    let simulated: SyntheticSource =
        parse("{field: {kind: navier_stokes, size: 32}}", false).unwrap();
    let mut recording = Recording::new(&simulated, 0).unwrap();
    let frames: Vec<Frame> = (0..40).map(|_| recording.next_frame().unwrap().unwrap()).collect();
    let (history, horizon) = (net.config.history, net.config.horizon);
    let starts = [0, 10, 20];
    let windows = starts.map(|start| frames[start..start + history].to_vec());
    let batch = || case::batch(&net, recording.sensor(), &windows).unwrap();
    let futures = starts.map(|start| frames[start + history..][..horizon].to_vec());
    let target = case::target(&net, recording.sensor(), &futures).unwrap();
    case::save(&net, &batch(), Some(target.clone()), &at("taught")).unwrap();
    let [taught, trained] = ["taught", "trained.safetensors"].map(at);
    let (taught, trained) = (text(&taught), text(&trained));
    succeeds(twin(&python, &["train", &text(&demo), &taught, &trained, "--steps", "30"]));

    let after = Checkpoint::load(Path::new(&trained)).unwrap();
    assert!(after.provenance.steps >= 30 && after.id != net.id);
    let after = after.network(&Device::Cpu).unwrap();
    let error = |net: &PhysicNet| {
        let off = (net.forward(&batch()).unwrap().mean - &target).unwrap().abs().unwrap();
        off.mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    assert!(error(&after) < 0.95 * error(&net), "{} {}", error(&after), error(&net));
    case::save(&after, &batch(), None, &at("case")).unwrap();
    succeeds(twin(&python, &["check", &trained, &text(&at("case"))]));
}

#[test]
fn weights_that_pytorch_halved_load_here_and_say_what_they_say_there() {
    let Some(python) = python() else {
        eprintln!("no Python with PyTorch and ONNX Runtime; not tested");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let demo = root().join("configs/demo/checkpoint.safetensors");
    let known = Checkpoint::load(&demo).unwrap();
    let simulated: SyntheticSource =
        parse("{field: {kind: navier_stokes, size: 32}}", false).unwrap();
    let mut recording = Recording::new(&simulated, 0).unwrap();
    let window: Vec<Frame> =
        (0..known.config.history).map(|_| recording.next_frame().unwrap().unwrap()).collect();
    for (cast, stored) in [("half", Stored::F16), ("bfloat16", Stored::Bf16)] {
        let (half, case, again) = (at(cast), at("case"), at("again"));
        let mut command = Command::new(&python);
        command.arg("-c").arg(HALVE).arg(cast).arg(&demo).arg(&half);
        succeeds(command);
        let read = Checkpoint::load(half.as_ref()).unwrap();
        assert_eq!((read.stored, &read.usage), (stored, &known.usage));
        // Both round to the nearest.
        Checkpoint { stored, ..known.clone() }.save(again.as_ref()).unwrap();
        let again = Checkpoint::load(again.as_ref()).unwrap();
        for (name, weight) in &read.weights {
            let values = |of: &Tensor| of.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(weight), values(&again.weights[name]), "{name}");
        }
        assert_ne!(read.id, known.id);

        let net = read.network(&Device::Cpu).unwrap();
        let batch = case::batch(&net, recording.sensor(), std::slice::from_ref(&window)).unwrap();
        case::save(&net, &batch, None, case.as_ref()).unwrap();
        succeeds(twin(&python, &["check", &half, &case]));
    }
}

/// As docs/training.md has it.
const HALVE: &str = "
import sys
from safetensors import safe_open
from safetensors.torch import load_file, save_file
cast, whole, half = sys.argv[1:]
weights = {name: getattr(weight, cast)() for name, weight in load_file(whole).items()}
save_file(weights, half, safe_open(whole, 'pt').metadata())
";

/// What the network is timed beside (`scripts/bench`) is the same network.
#[test]
fn tract_says_what_pytorch_says() {
    let Some(python) = python().filter(|python| imports(python, "tract")) else {
        eprintln!("no Python with PyTorch, ONNX Runtime and tract; not tested");
        return;
    };
    let check = r#"
import sys, torch
sys.path.insert(0, "benches/peers")
import speed, twin
network = twin.Twin.load("configs/demo/checkpoint.safetensors")
network.recalls = False
whole = twin.Some(network, ["mean"])
frames = torch.randn(1, network.config.history, 1, 16, 16)
inputs = (frames, torch.ones_like(frames), torch.full((1, 2, 16, 16), 0.7))
with torch.inference_mode():
    expected = whole(*inputs)[0]
said = torch.from_numpy(speed.in_tract(whole, inputs)()[0].to_numpy())
assert twin.difference(said, expected) < twin.TOLERANCE, twin.difference(said, expected)
"#;
    let mut command = Command::new(python);
    command.args(["-c", check]).current_dir(root());
    succeeds(command);
}
