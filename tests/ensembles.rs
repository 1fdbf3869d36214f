//! Ensembles: drawn by a job, given by others, and verified as others verify them.

use std::path::Path;
use std::process::Command;

use physicnet_stream::Frame;
use serde_json::Value;

use crate::house::{MINUTE, checkpoint, frame, job, python, run, site, store};

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Frames that move on and on, with pixels that nobody measured now and then.
fn frames(count: u64) -> Vec<Frame> {
    let holed = |k: u64| {
        let mut frame = frame(k, k as i64 * MINUTE, 0.0);
        frame.data[..5].fill(f32::NAN);
        frame.data[(40 + k as usize)..(44 + k as usize)].fill(f32::NAN);
        frame
    };
    (0..count).map(holed).collect()
}

#[test]
fn the_ensemble_of_others_is_scored_as_others_score_it() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with xskillscore and pysteps; see scripts/test");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    store(&folder.path().join("s.zarr"), &frames(30));
    checkpoint(&folder.path().join("model.safetensors"));
    let (data, model, own) = (path("s.zarr"), path("model.safetensors"), path("own.zarr"));
    let base =
        ["evaluate", "--zarr", &data, "--checkpoint", &model, "--no-ssim", "--thresholds", "0.2"];
    run(&[&base[..], &["--forecasts", &own]].concat());
    // Seven members around it, one of which lacks pixels; one in four pixels is the same in all.
    let script = "import sys, numpy as np, xarray as xr\n\
        ds = xr.open_zarr(sys.argv[1])[['u']].load().drop_vars(['model', 'revision', 'missing', 'serving'])\n\
        rng = np.random.default_rng(3)\n\
        noise = rng.normal(0, 0.3, (7, *ds.u.shape))\n\
        noise[:, rng.random(ds.u.shape) < 0.25] = 0\n\
        noise[2, rng.random(ds.u.shape) < 0.01] = np.nan\n\
        noise = xr.DataArray(noise, dims=['number', *ds.u.dims])\n\
        u = (ds.u + noise).astype('f4')\n\
        u = u.transpose('time', 'number', 'prediction_timedelta', 'y', 'x')\n\
        ds = u.to_dataset(name='u').drop_encoding()\n\
        ds.chunk(time=4, number=3).to_zarr(sys.argv[2])\n\
        both = ds.expand_dims(level=2)\n\
        both.to_zarr(sys.argv[3])\n";
    let (ensemble, tall) = (path("ensemble.zarr"), path("tall.zarr"));
    let output =
        Command::new(&python).args(["-c", script, &own, &ensemble, &tall]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (against, json) = (format!("other={ensemble}"), path("ours.json"));
    run(&[&base[..], &["--against", &against, "--json", &json]].concat());
    let ours = read(&json);
    let products = &ours["variables"][0]["products"];
    let other = &products["other"];
    assert_eq!(other["ensemble"]["members"], 7);
    assert!(products["physicnet"]["ensemble"].is_null());

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut theirs = Command::new(&python);
    theirs.arg(root.join("tests/python/verify_ensemble.py")).args([&data, &ensemble, "u", "0.2"]);
    let output = theirs.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // pysteps says a word of its own first.
    let said = String::from_utf8(output.stdout).unwrap();
    let theirs: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for lead in 0..2 {
        let (own, row) = (&other["leads"][lead], &theirs[lead]);
        let near = |value: &Value, expected: &Value, what: &str| {
            let (value, expected) = (value.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((value - expected).abs() < 2e-6 * expected.abs(), "{what}: {value} {expected}");
        };
        for by in ["xskillscore", "scores", "properscoring"] {
            near(&own["crps"], &row[format!("crps_{by}")], by);
        }
        near(&own["spread"], &row["spread"], "spread");
        near(&own["brier_0.2"], &row["brier"], "brier");
        let ratio = row["spread"].as_f64().unwrap() / row["rmse"].as_f64().unwrap();
        near(&own["dispersion"], &ratio.into(), "dispersion");
        // No member equals what came, so no lots are drawn.
        assert_eq!(other["ensemble"]["leads"][lead]["ranks"], row["ranks"]);
        // Of single forecasts it is the absolute error.
        let single = &products["persistence"]["leads"][lead];
        assert_eq!(single["crps"], single["mae"]);
    }

    let mut command = crate::house::physicnet();
    let output = command.args(base).args(["--against", &format!("tall={tall}")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("u has a dim"), "{said}");
}

#[test]
fn an_own_ensemble_is_better_than_its_forecast_alone_and_the_same_for_any_workers() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 60);
    let job = job(at, "out", "");
    let evaluated = |name: &str, more: &[&str]| {
        let json = at.join(name).to_str().unwrap().to_owned();
        let base = ["evaluate", job.to_str().unwrap(), "--no-ssim", "--json", &json];
        let output = run(&[&base[..], more].concat());
        (read(&json), String::from_utf8(output.stdout).unwrap())
    };
    let (one, table) = evaluated("one.json", &["--ensemble", "10"]);
    let product = &one["variables"][0]["products"]["physicnet"];
    assert_eq!(product["ensemble"]["members"], 10);
    for lead in product["leads"].as_array().unwrap() {
        let of = |score: &str| lead[score].as_f64().unwrap();
        assert!(of("crps") < of("mae"), "{lead}");
        assert!((0.5..2.0).contains(&of("dispersion")), "{lead}");
    }
    for block in ["crps", "spread", "dispersion"] {
        assert!(table.contains(&format!("\n{block:>10} ")), "no {block}: {table}");
    }
    let (two, _) = evaluated("two.json", &["--ensemble", "10", "--workers", "2"]);
    assert_eq!(one, two);
    // Nobody asked: nothing of it.
    let (none, table) = evaluated("none.json", &[]);
    assert!(none["variables"][0]["products"]["physicnet"]["leads"][0]["crps"].is_null());
    assert!(!table.contains("crps"), "{table}");
}

#[test]
fn quantiles_are_products_and_a_killed_job_goes_on_with_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 40);
    let more = |scores: &str| {
        format!(
            "ensemble: {{memory: 20}}\nscoring: {{products: [q10, q90], store: {}}}\n",
            at.join(scores).display()
        )
    };
    let wanting = |out: &str, scores: &str| {
        let path = job(at, out, &more(scores));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[mean, advection]", "[q10, q50, q90]")).unwrap();
        path
    };
    let whole = wanting("whole", "whole.scores");
    run(&["run", whole.to_str().unwrap()]);
    let Some(python) = python() else { return };
    let looked = |name: &str| {
        let script = "import sys, glob, xarray as xr\n\
            for path in sorted(glob.glob(sys.argv[1] + '/**/*.zarr', recursive=True)):\n\
            \x20 ds = xr.open_zarr(path).sortby('time').load()\n\
            \x20 known = ds.isel(time=slice(6, None))\n\
            \x20 assert (known.u_q10 <= known.u_q50 + 1e-6).all() and (known.u_q50 <= known.u_q90 + 1e-6).all()\n\
            \x20 assert float((known.u_q90 - known.u_q10).mean()) > 0\n\
            \x20 print(path.rsplit('/', 1)[1], [float(ds[v].astype('f8').sum()) for v in ('u', 'u_q10', 'u_q50', 'u_q90')])\n";
        let folder = at.join(name);
        let output = Command::new(&python).args(["-c", script, folder.to_str().unwrap()]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = looked("whole");
    assert_eq!(told.lines().count(), 5, "{told}");

    // Stopped in the middle, twice.
    let cut = wanting("cut", "cut.scores");
    let text = std::fs::read_to_string(&cut).unwrap();
    for to in ["1970-01-01T00:13", "1970-01-01T00:27"] {
        let part = text.replace("  - {type: zarr,", &format!("  - {{to: \"{to}\", type: zarr,"));
        assert_ne!(part, text, "the job file has no source like this");
        std::fs::write(&cut, part).unwrap();
        run(&["run", cut.to_str().unwrap()]);
    }
    std::fs::write(&cut, text).unwrap();
    run(&["run", cut.to_str().unwrap()]);
    assert_eq!(looked("cut"), told);
}

#[test]
fn a_quantile_without_an_ensemble_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 10);
    let job = job(at, "out", "scoring: {products: [q10]}\n");
    let output = crate::house::physicnet().args(["run", job.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("add `ensemble: {}`"), "{said}");
}
