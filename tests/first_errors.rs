//! What a person meets first when something is wrong: the thing by its name, and the way out.

use std::path::Path;

use physicnet_connectors::zarr::ArchiveWriter;
use physicnet_operators::layers::Boundary;
use physicnet_operators::model::{Checkpoint, ModelConfig, VariableConfig};
use physicnet_stream::{Axis, Frame, Grid, Time, Variable};
use serde_json::{Map, Value, json};

use crate::house::{MINUTE, checkpoint, frame, physicnet, store};

/// Writes the metadata of an array; without a chunk every value is the fill.
fn array(store: &Path, name: &str, shape: &[u64], dims: &[&str], attributes: Value) {
    let file = store.join(name).join("zarr.json");
    let (chunk, kind): (Vec<u64>, _) =
        (shape.iter().map(|n| *n.max(&1)).collect(), if name == "u" { "float32" } else { "int64" });
    let told = json!({
        "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": kind,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": attributes, "dimension_names": dims,
    });
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, told.to_string()).unwrap();
    let group = json!({"zarr_format": 3, "node_type": "group", "attributes": {}});
    std::fs::write(store.join("zarr.json"), group.to_string()).unwrap();
}

/// Stores that no writer of ours leaves: without times, without frames, an ensemble as ECMWF's are.
fn odd_stores(folder: &Path) {
    let time = || json!({"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"});
    let timeless = folder.join("timeless.zarr");
    array(&timeless, "u", &[8, 8], &["y", "x"], json!({}));
    let none = folder.join("none.zarr");
    array(&none, "u", &[0, 8, 8], &["time", "y", "x"], json!({}));
    array(&none, "time", &[0], &["time"], time());
    let ensemble = folder.join("ensemble.zarr");
    array(&ensemble, "u", &[8; 5], &["number", "time", "step", "y", "x"], json!({}));
    array(&ensemble, "time", &[8], &["time"], time());
    let span = json!({"units": "seconds", "dtype": "timedelta64[s]"});
    array(&ensemble, "step", &[8], &["step"], span.clone());
    let tall = folder.join("tall.zarr");
    array(&tall, "u", &[8; 6], &["number", "time", "step", "level", "y", "x"], json!({}));
    array(&tall, "time", &[8], &["time"], time());
    array(&tall, "step", &[8], &["step"], span);
}

/// What lies in the folder that the commands are started in.
fn site(folder: &Path) {
    let series = |at: &dyn Fn(u64) -> Time| -> Vec<Frame> {
        (0..40).map(|k| frame(k, at(k) * MINUTE, 0.0)).collect()
    };
    store(&folder.join("good.zarr"), &series(&|k| k as Time));
    // Twenty minutes between some frames, hours between others.
    store(&folder.join("irregular.zarr"), &series(&|k| (k * k * k) as Time));
    let mut blind = series(&|k| k as Time);
    blind.iter_mut().for_each(|frame| frame.data.fill(f32::NAN));
    store(&folder.join("blind.zarr"), &blind);
    odd_stores(folder);
    store(&folder.join("one.zarr"), &series(&|k| k as Time)[..1]);
    store(&folder.join("back.zarr"), &series(&|k| -(k as Time)));
    store(&folder.join("shuffled.zarr"), &series(&|k| (k * 17 % 40) as Time));
    std::fs::write(folder.join("p.nc"), b"\x89HDF\r\n\x1a\n").unwrap();
    std::fs::write(folder.join("p.grib"), b"GRIB\0\0\0\x02").unwrap();
    let notes = r#"{"__metadata__":{"notes":"{}"}}     "#;
    let state = [&(notes.len() as u64).to_le_bytes()[..], notes.as_bytes()].concat();
    std::fs::write(folder.join("state.safetensors"), state).unwrap();
    let mut broken = folder.join("broken.zarr");
    store(&broken, &series(&|k| k as Time));
    broken.push("u/c/1/0/0");
    assert!(broken.exists());
    std::fs::write(broken, "no chunk").unwrap();
    let warm = Grid {
        variables: vec![Variable { name: "u".into(), units: "K".into() }],
        y: Axis::index("y", 12),
        x: Axis::index("x", 17),
    };
    let mut plain = warm.clone();
    plain.variables[0].units.clear();
    let path = folder.join("unitless.zarr");
    let mut writer = ArchiveWriter::create(&path, &plain, None, Map::new()).unwrap();
    series(&|k| k as Time).iter().for_each(|frame| writer.append(0, frame).unwrap());
    writer.finish().unwrap();
    let path = folder.join("warm.zarr");
    let mut writer = ArchiveWriter::create(&path, &warm, None, Map::new()).unwrap();
    series(&|k| k as Time).iter().for_each(|frame| writer.append(0, frame).unwrap());
    writer.finish().unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("/dev/full", folder.join("full")).unwrap();
    std::fs::create_dir(folder.join("cut")).unwrap();
    std::fs::write(folder.join("cut/state.safetensors"), [8, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    std::fs::write(folder.join("text"), "no checkpoint").unwrap();
    checkpoint(&folder.join("open.safetensors"));
    let variables =
        vec![VariableConfig::for_variable(&Variable { name: "u".into(), units: "m s-1".into() })];
    let periodic =
        ModelConfig { boundary: Boundary::Periodic, ..ModelConfig::classical(variables) };
    let periodic = Checkpoint::untrained(&periodic).unwrap();
    periodic.save(&folder.join("periodic.safetensors")).unwrap();
    let other =
        vec![VariableConfig::for_variable(&Variable { name: "v".into(), units: "".into() })];
    let other = Checkpoint::untrained(&ModelConfig::classical(other)).unwrap();
    other.save(&folder.join("other.safetensors")).unwrap();
    for (name, text) in [
        ("empty.yaml", "# nothing yet\n"),
        ("source.yaml", "source: [{type: zarr, path: good.zarr}]\n"),
        ("source-and-model.yaml", "source: []\nmodel: {checkpoint: open.safetensors}\nsinks: []\n"),
        ("absent.yaml", "sources: [{type: zarr, path: absent.zarr}]\nmodel: {untrained: {}}\n"),
        ("timeless.yaml", "sources: [{type: zarr, path: timeless.zarr}]\nmodel: {untrained: {}}\n"),
        (
            "other.yaml",
            "sources: [{type: zarr, path: good.zarr}]\nmodel: {checkpoint: other.safetensors}\n",
        ),
        (
            "periodic.yaml",
            "sources: [{type: zarr, path: good.zarr}]\nmodel: {checkpoint: periodic.safetensors}\n",
        ),
        (
            "no-rights.yaml",
            "sources: [{type: zarr, path: good.zarr}]\nmodel: {untrained: {}}\n\
             sinks: [{type: zarr, path: 'text/{sensor}.zarr'}]\n",
        ),
        ("train-absent.yaml", "data: [{path: absent.zarr}]\nout: out\n"),
        ("train-shuffled.yaml", "data: [{path: shuffled.zarr}]\nout: out\n"),
        ("train-nan.yaml", "data: [{path: good.zarr}]\nout: out\nminutes: .nan\n"),
        (
            "train-huge.yaml",
            "data: [{path: good.zarr}]\nout: out\nbatch: 1000000000\n\
             split: {train: 0.5, validation: 0.5}\n",
        ),
        ("train-netcdf.yaml", "data: [{path: p.nc}]\nout: out\n"),
        ("simulate.yaml", "field: {kind: gray_scott}\n"),
        ("train-variable.yaml", "data: [{path: good.zarr, variables: [w]}]\nout: out\n"),
        ("train-timeless.yaml", "data: [{path: timeless.zarr}]\nout: out\n"),
        ("train-irregular.yaml", "data: [{path: irregular.zarr}]\nout: out\n"),
        (
            "train-blind.yaml",
            "data: [{path: blind.zarr}]\nout: out\nsplit: {train: 0.5, validation: 0.5}\n",
        ),
        ("train-crop.yaml", "data: [{path: good.zarr}]\nout: out\ncrop: 30\n"),
        (
            "train-periodic.yaml",
            "data: [{path: good.zarr}]\nout: out\nmodel: {boundary: periodic}\n",
        ),
        (
            "train-out.yaml",
            "data: [{path: good.zarr}]\nout: text/out\nsplit: {train: 0.5, validation: 0.5}\n",
        ),
        (
            "train-transform.yaml",
            "data: [{path: good.zarr}]\nout: out\n\
             model: {variables: [{name: u, transform: {kind: log1p, scale: 0}}]}\n",
        ),
        ("train-mixed.yaml", "data: [{path: good.zarr}, {path: warm.zarr}]\nout: out\n"),
        (
            "train-cut.yaml",
            "data: [{path: good.zarr}]\nout: cut\nsplit: {train: 0.5, validation: 0.5}\n",
        ),
        ("train-init.yaml", "data: [{path: good.zarr}]\nout: out\ninit_from: absent.safetensors\n"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

const NO_ROOM: &str = "make room, and start it again";

#[test]
fn the_first_errors_name_the_thing_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path());
    let here = folder.path().canonicalize().unwrap();
    let here = format!("relative to {}", here.display());
    for (command, told) in [
        // A wrong path.
        ("inspect absent.zarr", ["absent.zarr", "look at the path"]),
        ("evaluate --zarr absent.zarr", ["absent.zarr", &here]),
        ("evaluate --zarr good.zarr --checkpoint absent", ["absent", &here]),
        ("run absent.job", ["absent.job", &here]),
        ("run absent.yaml", ["sources[0]: absent.zarr", &here]),
        ("validate absent.yaml", ["sources[0]: absent.zarr", &here]),
        ("train absent.job", ["absent.job", &here]),
        ("train train-absent.yaml", ["absent.zarr", &here]),
        ("train --find-lr train-absent.yaml", ["absent.zarr", &here]),
        ("validate train-absent.yaml", ["absent.zarr", &here]),
        ("train train-init.yaml", ["absent.safetensors", &here]),
        // Something else than was meant.
        ("inspect folder", ["folder", "no Zarr group"]),
        ("inspect text", ["text", "not a safetensors file"]),
        ("evaluate --zarr folder", ["folder", "no Zarr group"]),
        ("evaluate --zarr good.zarr --checkpoint text", ["text", "not a safetensors file"]),
        ("inspect p.nc", ["p.nc: is NetCDF", "xr.open_mfdataset"]),
        ("evaluate --zarr p.nc", ["p.nc: is NetCDF", "docs/stores.md"]),
        ("train train-netcdf.yaml", ["p.nc: is NetCDF", "docs/stores.md"]),
        ("inspect p.grib", ["p.grib: is GRIB", "cfgrib"]),
        ("evaluate --zarr text", ["text", "a Zarr store is a folder"]),
        (
            "evaluate --zarr good.zarr --checkpoint good.zarr",
            ["good.zarr", "a checkpoint is a file"],
        ),
        ("inspect good.zarr one.zarr", ["good.zarr", "two checkpoints to be compared"]),
        ("inspect train-crop.yaml", ["is a training file", "physicnet train train-crop.yaml"]),
        ("inspect simulate.yaml", ["is a simulation file", "physicnet simulate simulate.yaml"]),
        ("inspect state.safetensors", ["the state of a training", "best.safetensors"]),
        ("inspect good.zarr --picture a.jpg", ["--picture a.jpg", "PNG and no .jpg"]),
        ("inspect good.zarr --picture no/a.png", ["--picture no/a.png", "folder no is not there"]),
        ("evaluate --zarr good.zarr --report no/a.html", ["--report", "folder no is not there"]),
        ("evaluate --zarr good.zarr --json no/a.json", ["--json", "folder no is not there"]),
        (
            "evaluate --zarr good.zarr --horizon 2 --against ens=tall.zarr",
            ["u has a dim level", "ds.isel(level=0)"],
        ),
        ("inspect ensemble.zarr", ["cannot tell what dim number, or step is", "isel(number=0)"]),
        ("evaluate --zarr good.zarr --thresholds nan", ["scoring.thresholds", "finite"]),
        ("evaluate --zarr good.zarr --thresholds 1,inf", ["scoring.thresholds", "finite"]),
        ("validate train-nan.yaml", ["minutes: no finite number", "train-nan.yaml"]),
        ("validate train-huge.yaml", ["memory: about", "smaller `crop`, `batch`"]),
        ("evaluate", ["job.yaml", "--zarr"]),
        ("validate empty.yaml", ["empty.yaml", "docs/jobs.md"]),
        ("run empty.yaml", ["empty.yaml", "docs/jobs.md"]),
        ("train empty.yaml", ["empty.yaml", "docs/training.md"]),
        ("validate source.yaml", ["source.yaml: no one kind", "a job has `sources`"]),
        ("validate source-and-model.yaml", ["unknown field `source`", "`sources`"]),
        // A wrong variable.
        ("inspect good.zarr --variable w", ["no variable w", "its arrays are: time, u"]),
        ("evaluate --zarr good.zarr --variable w", ["no variable w", "its arrays are: time, u"]),
        ("train train-variable.yaml", ["no variable w", "its arrays are: time, u"]),
        ("run other.yaml", ["[\"u\"]", "choose them by the source's `variables`"]),
        // No time axis.
        ("inspect timeless.zarr", ["timeless.zarr", "units"]),
        ("evaluate --zarr timeless.zarr", ["timeless.zarr", "units"]),
        ("run timeless.yaml", ["timeless.zarr", "units"]),
        ("train train-timeless.yaml", ["timeless.zarr", "units"]),
        ("inspect one.zarr", ["one.zarr", "say the `cadence`"]),
        ("inspect back.zarr", ["times that go backwards, all 40", "sortby(\"time\")"]),
        ("evaluate --zarr back.zarr", ["times that go backwards, all 40", "sortby(\"time\")"]),
        ("inspect none.zarr", ["none.zarr", "holds no frames"]),
        ("train train-shuffled.yaml", ["irregular: ", "go backwards: put them in order"]),
        // What does not belong together, or is not whole.
        ("train train-mixed.yaml", ["warm", "the model was made for \"m s-1\""]),
        ("validate train-mixed.yaml", ["warm", "the model was made for \"m s-1\""]),
        ("train train-cut.yaml", ["cut/state.safetensors", "resume: false"]),
        ("train train-transform.yaml", ["transform of u: scale: 0", "above 0"]),
        // An irregular cadence.
        ("train train-irregular.yaml", ["its times are irregular: ", "ds.resample(time="]),
        ("validate train-irregular.yaml", ["its times are irregular: ", "ds.resample(time="]),
        ("evaluate --zarr shuffled.zarr", ["its times are irregular: ", "go backwards: put them"]),
        // All missing.
        ("train train-blind.yaml", ["measured pixel of u", "inspect --picture"]),
        ("evaluate --zarr blind.zarr", ["nothing was verified", "inspect"]),
        // A grid that cannot be divided, a checkpoint of another grid.
        ("train train-crop.yaml", ["crop: 30", "e.g. 32"]),
        ("train train-periodic.yaml", ["12 x 17", "boundary: open"]),
        ("validate train-periodic.yaml", ["12 x 17", "boundary: open"]),
        ("run periodic.yaml", ["12 x 17", "boundary: open"]),
        ("validate periodic.yaml", ["12 x 17", "boundary: open"]),
        ("evaluate --zarr good.zarr --checkpoint periodic.safetensors", ["good", "boundary: open"]),
        // No rights, no disk: what a file in the way does to whoever may do everything.
        ("run no-rights.yaml", ["sinks[0]", "name another path"]),
        ("validate no-rights.yaml", ["sinks[0]", "name another path"]),
        ("train train-out.yaml", ["text/out: cannot create it", "a file is in the way"]),
        ("inspect good.zarr --picture text/a.png", ["text", "a file is in the way"]),
        ("inspect good.zarr --picture full", ["writing the picture full", NO_ROOM]),
        ("evaluate --zarr good.zarr --json full", ["writing full", NO_ROOM]),
        ("evaluate --zarr good.zarr --report full", ["writing the report full", NO_ROOM]),
    ] {
        // The disk that is always full is Linux's.
        if told[1] == NO_ROOM && !Path::new("/dev/full").exists() {
            continue;
        }
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = physicnet().current_dir(folder.path()).args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        for word in told {
            assert!(said.contains(word), "{command}: {word}: {said}");
        }
        // The word of a file, or of a key, once.
        let lines = said.lines().filter(|line| !line.contains(" WARN ")).count();
        assert!(!said.contains("panicked") && lines <= 3, "{command}: {said}");
    }
    // Nothing half written, and no folder of a mistyped path, is left.
    assert!(!folder.path().join("no").exists());
    let files = std::fs::read_dir(folder.path()).unwrap();
    let left = files.filter(|file| {
        file.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "part")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn what_is_irregular_or_blind_is_told_by_inspect() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path());
    let said = |name: &str| {
        let arguments = name.split(' ');
        let output = physicnet().current_dir(folder.path()).arg("inspect").args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said("good.zarr").contains("0 irregular steps, 0 frames missing"));
    let irregular = said("irregular.zarr");
    assert!(irregular.contains("steps") && !irregular.contains(" 0 irregular"), "{irregular}");
    assert!(said("shuffled.zarr").contains("Z -1 steps"), "{}", said("shuffled.zarr"));
    assert!(said("unitless.zarr").contains("\n  u: min "), "{}", said("unitless.zarr"));
    assert!(said("blind.zarr").contains("nothing measured"), "{}", said("blind.zarr"));
    // A frame that cannot be decoded hides nothing else.
    assert!(said("broken.zarr").contains("40.00 % missing"), "{}", said("broken.zarr"));
    assert!(said("one.zarr --cadence 5min").contains("1 frame of 1 x 12 x 17, every 300 s"));
}
