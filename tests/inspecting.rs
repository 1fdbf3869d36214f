//! What `inspect` says of stores, checkpoints and jobs.

use candle_core::{Device, Tensor};
use physicnet_operators::model::{Checkpoint, Stored};
use physicnet_stream::Frame;

use crate::house::{MINUTE, checkpoint, frame, job, physicnet, run, site, store};

fn said(arguments: &[&str]) -> String {
    String::from_utf8(run(&[&["inspect"], arguments].concat()).stdout).unwrap()
}

#[test]
fn a_store_is_told_by_its_times_and_values_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.zarr");
    let mut frames: Vec<Frame> =
        [0, 1, 2, 5, 6, 7].iter().map(|&k| frame(k, k as i64 * MINUTE, 0.0)).collect();
    for (at, value) in frames.iter_mut().flat_map(|f| f.data.iter_mut().enumerate()) {
        // A quarter is missing, the rest is 3 and 5.
        *value = if at % 4 == 0 { f32::NAN } else { 3.0 + 2.0 * (at % 2) as f32 };
    }
    store(&path, &frames);
    let picture = folder.path().join("s.png");
    let at = [path.to_str().unwrap(), picture.to_str().unwrap()];
    let text = said(&[at[0], "--show", "--picture", at[1]]);
    for line in [
        "s: 6 frames of 1 x 12 x 17, every 60 s",
        "time 1970-01-01T00:00:00Z to 1970-01-01T00:07:00Z",
        "1 irregular steps, 2 frames missing",
        "1970-01-01T00:02:00Z +3 steps",
        "u (m s-1): min 3.0000 mean 4.3333 max 5.0000 std 0.9428, 25.00 % missing, in 6 frames",
        "u of s: 01-01T00:00, 01-01T00:01",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // Six panels beside one another, half blocks in 24-bit colour, and no wider than a terminal.
    let drawn: Vec<_> = text.lines().filter(|line| line.contains('▀')).collect();
    assert!(!drawn.is_empty() && drawn.iter().all(|line| line.matches("\x1b[0m ").count() == 6));
    assert!(drawn.iter().all(|line| line.matches('▀').count() <= 80), "{text}");
    assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_checkpoint_is_told_by_its_sizes_and_its_health() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    checkpoint(&path);
    let mut known = Checkpoint::load(&path).unwrap();
    let (name, weight) = known.weights.iter_mut().next().unwrap();
    let (name, dims) = (name.clone(), format!("{:?}", weight.dims()));
    *weight = (weight.ones_like().unwrap() * -0.5).unwrap();
    let last = known.weights.values_mut().next_back().unwrap();
    *last = last.zeros_like().unwrap();
    known.save(&path).unwrap();
    let text = said(&[path.to_str().unwrap()]);
    let parameters: usize = known.weights.values().map(|weight| weight.elem_count()).sum();
    let size = std::fs::metadata(&path).unwrap().len() as f64 / f64::from(1 << 20);
    for line in [
        format!("{parameters} parameters in {} tensors (encoding ", known.weights.len()),
        format!("{size:.2} MiB in f32"),
        "hidden: 16".to_owned(),
        "physicnet calibrate".to_owned(),
        "all finite, 1 tensors are zero".to_owned(),
        format!("  {name:<36} {dims:<18} rms 5.0000e-1   largest 5.0000e-1"),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }

    // A weight that is not finite is refused by its name.
    let bias = known.weights.get_mut("experts.mix.bias").unwrap();
    let mut values: Vec<f32> = bias.to_vec1().unwrap();
    values[3] = f32::NAN;
    *bias = Tensor::from_vec(values, bias.dims(), &Device::Cpu).unwrap();
    known.save(&path).unwrap();
    let output = physicnet().args(["inspect", path.to_str().unwrap()]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("experts.mix.bias is not finite"),
        "{error}"
    );
}

#[test]
fn two_checkpoints_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (at("a.safetensors"), at("b.safetensors"));
    checkpoint(a.as_ref());
    let mut other = Checkpoint::load(a.as_ref()).unwrap();
    other.config.ramp = [0.0, 0.5];
    other.provenance.steps = 7;
    let moved = other.weights.get_mut("experts.mix.weight").unwrap();
    *moved = (&*moved * 1.25).unwrap();
    other.save(b.as_ref()).unwrap();
    let text = said(&[&a, &b]);
    assert!(!text.contains("weights: "), "{text}");
    for line in [
        "config.ramp: [0.0,0.0] -> [0.0,0.5]",
        "provenance.steps: 1 -> 7",
        &format!("  {:<36} changed by 25.000 %", "experts.mix.weight"),
        &format!("  {:<36} the same", "experts.mix.bias"),
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(text.matches("changed by").count(), 2, "one weight, and all together: {text}");
    assert!(!text.contains("config.hidden"), "{text}");

    // The same, stored in half as many bits.
    let half = at("half.safetensors");
    Checkpoint { stored: Stored::Bf16, ..other.clone() }.save(half.as_ref()).unwrap();
    let told = said(&[&half]);
    assert!(told.contains(" MiB in bf16"), "{told}");
    let told = said(&[&b, &half]);
    assert!(told.contains(r#"weights: "f32" -> "bf16""#), "{told}");
    assert!(told.contains(&format!("  {:<36} changed by 0.", "experts.mix.weight")), "{told}");

    // Of another size: what cannot be subtracted is shown by its shapes.
    other.config.latent = 6;
    let mut larger = Checkpoint::untrained(&other.config).unwrap();
    larger.provenance.steps = 7;
    larger.save(b.as_ref()).unwrap();
    let text = said(&[&a, &b]);
    assert!(text.contains("config.latent: 4 -> 6") && text.contains("] -> ["), "{text}");
}

#[test]
fn a_job_is_told_by_what_it_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path(), 9);
    let file = job(folder.path(), "out", "scoring: {}\n");
    let text = said(&[file.to_str().unwrap()]);
    let id = Checkpoint::load(&folder.path().join("model.safetensors")).unwrap().id;
    for line in [
        "  s0: u as 1 x 12 x 17, every 60 s\n".to_owned(),
        format!("model {id}: "),
        "2 leads from 3 frames".to_owned(),
        "products: physicnet, advection, mean, persistence".to_owned(),
        format!("forecasts: {}/out/s4.zarr", folder.path().display()),
        format!("rejects: {}/out/rejects", folder.path().display()),
        "in_flight: 8".to_owned(),
        "largest_gap: 2".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(!folder.path().join("out").exists(), "nothing runs");
    // Once it has run it goes on from its stores.
    run(&["run", file.to_str().unwrap()]);
    assert!(said(&[file.to_str().unwrap()]).contains("every 60 s, goes on at frame "));
}

#[test]
fn a_store_of_forecasts_is_told_by_its_leads_and_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path(), 9);
    run(&["run", job(folder.path(), "out", "").to_str().unwrap()]);
    let store = folder.path().join("out/s4.zarr");
    let store = store.to_str().unwrap();
    let text = said(&[store, "--show"]);
    for line in [
        "s4.zarr: forecasts, of 2 leads\n",
        "\nlead of 60 s: 7 forecasts of 3 x 12 x 17, every 60 s\n",
        "\nlead of 120 s: 7 forecasts of ",
        "  reference time 1970-01-01T00:02:00Z to 1970-01-01T00:08:00Z\n",
        "0 forecasts missing",
        "u of lead of 60 s: ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("sensor"), "{text}");
    let publish = ["publish", store, "--brokers", "127.0.0.1:1", "--topic", "frames"];
    let output = physicnet().args(publish).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("s4.zarr: holds forecasts, of 2 leads"), "{error}");
    assert!(error.contains("publish the store of frames"), "{error}");
}
