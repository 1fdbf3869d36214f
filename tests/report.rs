//! The report of an evaluation: its numbers, and how it looks in a real browser.

use std::path::Path;
use std::process::Command;

use physicnet_stream::Frame;
use serde_json::Value;

use crate::house::{MINUTE, browser, checkpoint, frame, job, python, run, site, store};

/// The page and its JSON of an evaluation with these further arguments.
fn reported(folder: &Path, name: &str, arguments: &[&str]) -> (String, Value) {
    let path = |end: &str| folder.join(format!("{name}.{end}")).to_str().unwrap().to_owned();
    let (page, json) = (path("html"), path("json"));
    run(&[arguments, &["--no-ssim", "--report", &page, "--json", &json]].concat());
    let page = std::fs::read_to_string(page).unwrap();
    (page, serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
}

/// The value of an attribute of a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

/// The rows of tables whose tag has `attribute`: the tag, and the numbers in its cells.
fn rows<'a>(page: &'a str, with: &str) -> Vec<(&'a str, Vec<f64>)> {
    let rows = page.split("<tr").skip(1).filter_map(|row| row.split("</tr>").next());
    let rows = rows.filter(|row| attribute(row, with).is_some());
    rows.map(|row| {
        let cells = row.split("<td>").skip(1).map(|cell| cell.split("</td>").next().unwrap());
        (row, cells.map(|cell| cell.parse().unwrap_or(f64::NAN)).collect())
    })
    .collect()
}

fn same(shown: f64, value: &Value, what: &str) {
    match value.as_f64() {
        // Five digits are shown.
        Some(value) => {
            assert!((shown - value).abs() <= 1e-4 * value.abs() + 5e-6, "{what}: {shown} {value}");
        }
        None => assert!(shown.is_nan(), "{what}: {shown}"),
    }
}

#[test]
fn the_page_says_the_numbers_of_the_json() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 40);
    let job = job(at, "out", "");
    let job = job.to_str().unwrap();
    let arguments = ["evaluate", job, "--thresholds=-0.5,0,0.5"];
    let (page, json) = reported(at, "one", &arguments);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    // Nothing on the page comes from elsewhere.
    assert!(!page.contains("://") && !page.contains("<script src"), "it names other places");

    let (_, data) = page.split_once("id=\"evaluation\">").unwrap();
    let data = data.split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data, json);

    let products = &json["variables"][0]["products"];
    let mut seen = 0;
    for (tag, cells) in rows(&page, "data-score") {
        let (score, product) =
            (attribute(tag, "data-score").unwrap(), attribute(tag, "data-product").unwrap());
        let (mean, leads) = cells.split_last().unwrap();
        same(*mean, &products[product]["mean"][score], score);
        for (lead, shown) in leads.iter().enumerate() {
            same(*shown, &products[product]["leads"][lead][score], score);
            seen += 1;
        }
    }
    // Six products at two leads: at least mse, rmse, mae, bias, corr, rel_l2, and four of three
    // thresholds each.
    assert!(seen >= 6 * 2 * (6 + 12), "{seen} scores are on the page");
    let mut seen = 0;
    for (tag, cells) in rows(&page, "data-fss") {
        let [threshold, product, lead] =
            ["data-fss", "data-product", "data-lead"].map(|name| attribute(tag, name).unwrap());
        let lead: usize = lead.parse().unwrap();
        // Windows of 1, 2 and 4 pixels, up to half of the shorter side, which is 12.
        assert_eq!(cells.len(), 3);
        for (power, shown) in cells.iter().enumerate() {
            let score = format!("fss_{threshold}_{}", 1 << power);
            same(*shown, &products[product]["leads"][lead - 1][&score], &score);
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * 6 * 2 * 3);

    // Five sensors of 40 frames, of which two begin a window and one has no lead to verify.
    assert_eq!(json["forecasts"], 5 * 37);
    for contest in json["contests"].as_array().unwrap() {
        let [lead, against] = ["lead", "against"].map(|key| &contest[key]);
        let lead = lead.as_u64().unwrap() as usize;
        let leads = |product: &str| &products[product]["leads"][lead - 1];
        assert_eq!(contest["count"].as_f64(), leads("physicnet")["pairs"].as_f64());
        // The same pixels in every forecast: the mean loss is the mean squared error.
        for (name, product) in [("ours", "physicnet"), ("theirs", against.as_str().unwrap())] {
            let (loss, mse) = (&contest[name], &leads(product)["mse"]);
            let (loss, mse) = (loss.as_f64().unwrap(), mse.as_f64().unwrap());
            assert!((loss - mse).abs() < 1e-9 * mse.abs().max(1e-9), "{name} {loss} {mse}");
        }
    }
    let spectra = &json["spectra"][0]["leads"][0];
    let pairs = &products["physicnet"]["leads"][0]["pairs"];
    assert_eq!(spectra["pairs"].as_f64(), pairs.as_f64());
    assert_eq!(spectra["truth"].as_array().unwrap().len(), 8);
    assert!(json["codes"]["perplexity"].as_f64().unwrap() >= 1.0);
    let worst = &json["cases"][0]["worst"];
    assert!(worst[0]["mse"].as_f64() >= worst[1]["mse"].as_f64(), "{worst}");

    // Workers cannot be seen in it.
    let (two, _) = reported(at, "two", &[&arguments[..], &["--workers", "2"]].concat());
    assert_eq!(two, page);
}

#[test]
fn fractions_are_those_of_the_definition_at_every_scale() {
    use physicnet_operators::scoring::{Fss, Metrics, Scores, Sums};
    let (height, width) = (13_i64, 19_i64);
    let field = |seed: usize| -> Vec<f32> {
        (0..(height * width) as usize).map(|i| ((i * 7919 + seed * 131) % 1009) as f32).collect()
    };
    let (p, mut o) = (field(1), field(2));
    o[5] = f32::NAN;
    let mut fss = Vec::new();
    for threshold in [200.0, 600.0, 950.0] {
        fss.extend([1, 2, 4, 8, 16].map(|scale| Fss { threshold, scale }));
    }
    let metrics = Metrics { fss, ..Metrics::default() };
    let found = Scores::from(&Sums::of(&p, &o, width as usize, &metrics)).fss;
    for (Fss { threshold, scale }, found) in metrics.fss.iter().zip(found) {
        // What is missing in either counts as 0 in both, and so does what lies outside.
        let above = |field: &[f32], y: i64, x: i64| {
            let inside = (0..height).contains(&y) && (0..width).contains(&x);
            let at = (y * width + x) as usize;
            inside && p[at].is_finite() && o[at].is_finite() && f64::from(field[at]) >= *threshold
        };
        let (scale, before) = (*scale as i64, *scale as i64 / 2);
        let share = |field: &[f32], y: i64, x: i64| {
            let window =
                (0..scale * scale).map(|i| (y - before + i / scale, x - before + i % scale));
            window.filter(|&(v, u)| above(field, v, u)).count() as f64 / (scale * scale) as f64
        };
        let (mut apart, mut both) = (0.0, 0.0);
        for at in 0..height * width {
            let (f, g) = (share(&p, at / width, at % width), share(&o, at / width, at % width));
            apart += (f - g).powi(2);
            both += f * f + g * g;
        }
        assert!((found - (1.0 - apart / both)).abs() < 1e-12, "{threshold} {scale}: {found}");
    }
}

#[test]
fn forecasts_of_others_are_scored_on_the_same_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let frames: Vec<Frame> = (0..30).map(|k| frame(k, k as i64 * MINUTE, 0.0)).collect();
    store(&folder.path().join("s.zarr"), &frames);
    checkpoint(&folder.path().join("model.safetensors"));
    let (data, model, own) = (path("s.zarr"), path("model.safetensors"), path("own.zarr"));
    let base = ["evaluate", "--zarr", &data, "--checkpoint", &model];
    run(&[&base[..], &["--no-ssim", "--forecasts", &own]].concat());

    let copy = format!("copy={own}");
    let (page, json) =
        reported(folder.path(), "copy", &[&base[..], &["--against", &copy]].concat());
    let products = &json["variables"][0]["products"];
    assert_eq!(products["copy"], products["physicnet"]);
    assert!(page.contains("copy is physicnet in every number here"));
    let verdict = json["contests"].as_array().unwrap().iter().find(|c| c["against"] == "copy");
    assert_eq!(verdict.unwrap()["difference"], 0.0);
    assert!(verdict.unwrap()["p"].is_null());

    for (against, why) in [
        (format!("mean={own}"), "mean is scored already"),
        (format!("other={data}"), "has no coordinate of lead times"),
        (format!("other={}", path("nowhere.zarr")), "nowhere.zarr"),
        ("other".to_owned(), "write NAME=STORE"),
    ] {
        let mut command = crate::house::physicnet();
        let output = command.args(base).args(["--against", &against]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{against}: {said}");
    }

    // Written by xarray, with other units of the leads, rows from below, and half of the times.
    let Some(python) = python() else { return };
    let other = path("other.zarr");
    let script = "import sys, xarray as xr\n\
        ds = xr.open_zarr(sys.argv[1])[['u']].load().drop_vars(['model', 'revision', 'missing'])\n\
        ds = ds.isel(time=slice(None, None, 2), y=slice(None, None, -1))\n\
        ds = ds.drop_encoding()\n\
        ds['prediction_timedelta'].encoding = {'units': 'minutes', 'dtype': 'float64'}\n\
        ds.to_zarr(sys.argv[2], zarr_format=2)\n";
    let output = Command::new(python).args(["-c", script, &own, &other]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let against = format!("half={other}");
    let (_, json) =
        reported(folder.path(), "half", &[&base[..], &["--against", &against]].concat());
    let leads = |product: &str| &json["variables"][0]["products"][product]["leads"][0];
    // Reference times 2 to 28 were verified at the first lead: 27, of which 14 are there.
    assert_eq!(
        (&leads("physicnet")["pairs"], &leads("half")["pairs"]),
        (&27.0.into(), &14.0.into())
    );
    assert!((leads("half")["coverage"].as_f64().unwrap() - 14.0 / 27.0).abs() < 1e-12);
    let contest = json["contests"].as_array().unwrap().iter().find(|c| c["against"] == "half");
    let contest = contest.unwrap();
    assert_eq!((&contest["count"], &contest["difference"]), (&14.into(), &0.0.into()));
}

#[test]
fn who_lacks_forecasts_is_compared_over_those_that_both_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // It moves faster and faster: late forecasts are worse than early ones.
    let frames: Vec<Frame> = (0..30).map(|k| frame(k * k / 8, k as i64 * MINUTE, 0.0)).collect();
    store(&folder.path().join("s.zarr"), &frames);
    checkpoint(&folder.path().join("model.safetensors"));
    let (data, model, early) = (path("s.zarr"), path("model.safetensors"), path("early.zarr"));
    let base = ["evaluate", "--zarr", &data, "--checkpoint", &model];
    let until = ["--no-ssim", "--forecasts", &early, "--to", "1970-01-01T00:10"];
    run(&[&base[..], &until].concat());

    let against = format!("early={early}");
    let rival = [&base[..], &["--against", &against]].concat();
    let (page, json) = reported(folder.path(), "all", &rival);
    let mse = |product: &str| &json["variables"][0]["products"][product]["mean"]["mse"];
    assert_ne!(mse("early"), mse("physicnet"));
    let card = |page: &str| -> String {
        let card = page.split("<h4>Against early</h4>").nth(1).unwrap();
        card.split("</article>").next().unwrap().to_owned()
    };
    assert!(card(&page).contains(">0.0 % above<"), "{}", card(&page));
    // The gain of the few forecasts that it has, beside those that persistence made of the same.
    let gain = |json: &Value, product: &str| {
        let mut gains = json["gains"].as_array().unwrap().iter();
        let found = gains.find(|gain| gain["product"] == product && gain["lead"] == 1);
        found.and_then(|gain| gain["gain"].as_f64())
    };
    let over_all = |product: &str| {
        let mse = |of: &str| json["variables"][0]["products"][of]["leads"][0]["mse"].as_f64();
        1.0 - mse(product).unwrap() / mse("persistence").unwrap()
    };
    assert_eq!(gain(&json, "persistence"), Some(0.0));
    assert!((gain(&json, "physicnet").unwrap() - over_all("physicnet")).abs() < 1e-9);
    assert!((gain(&json, "early").unwrap() - over_all("early")).abs() > 1e-3);

    let late = [&rival[..], &["--from", "1970-01-01T00:15"]].concat();
    let (page, json) = reported(folder.path(), "late", &late);
    assert_eq!(card(&page), "<p class=\"big\">no common forecasts</p>");
    assert!(gain(&json, "early").is_none());
}

#[test]
fn each_source_is_read_from_its_own_first_window_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let hour = 60 * MINUTE;
    let fast: Vec<Frame> = (0..20).map(|k| frame(k, 5 * hour + k as i64 * MINUTE, 0.0)).collect();
    let slow: Vec<Frame> = (0..12).map(|k| frame(k, k as i64 * hour, 0.0)).collect();
    store(&at.join("fast.zarr"), &fast);
    store(&at.join("slow.zarr"), &slow);
    checkpoint(&at.join("model.safetensors"));
    let job = at.join("job.yaml");
    let text = "sources: [{type: zarr, path: AT/fast.zarr}, {type: zarr, path: AT/slow.zarr}]\n\
                model: {checkpoint: AT/model.safetensors}\n";
    std::fs::write(&job, text.replace("AT", at.to_str().unwrap())).unwrap();
    let json = at.join("out.json");
    let from = ["--from", "1970-01-01T05:05", "--no-ssim", "--json", json.to_str().unwrap()];
    run(&[&["evaluate", job.to_str().unwrap()], &from[..]].concat());
    let json: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    // The minutes 5 to 18, and the hours 6 to 10.
    let first = &json["variables"][0]["products"]["physicnet"]["leads"][0];
    assert_eq!(first["pairs"], 14.0 + 5.0);
}

#[test]
fn what_cannot_be_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let path = |name: &str| at.join(name).to_str().unwrap().to_owned();
    let frames: Vec<Frame> = (0..6).map(|k| frame(k, k as i64 * MINUTE, 0.0)).collect();
    store(&at.join("s.zarr"), &frames);
    let refused = |arguments: &[&str], why: &str| {
        let output = crate::house::physicnet().arg("evaluate").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
        assert!(!at.join("out.zarr").exists(), "{arguments:?} ran");
    };
    let (data, out) = (path("s.zarr"), path("out.zarr"));
    let base = ["--zarr", &data, "--horizon", "2", "--forecasts", &out];
    std::fs::write(at.join("file"), "").unwrap();
    for flag in ["--report", "--json"] {
        let below = path("file/it");
        refused(&[&base[..], &[flag, &below]].concat(), &format!("{flag}: {below} cannot be"));
        refused(&[&base[..], &[flag, at.to_str().unwrap()]].concat(), "cannot be written");
    }
    let job = at.join("job.yaml");
    checkpoint(&at.join("model.safetensors"));
    let text = "sources: [{type: kafka, cluster: {brokers: 'localhost:1'}, topics: [frames], \
                like: AT/s.zarr}]\nmodel: {checkpoint: AT/model.safetensors}\n";
    std::fs::write(&job, text.replace("AT", at.to_str().unwrap())).unwrap();
    refused(&[job.to_str().unwrap()], "go on for ever");
}

#[test]
fn a_browser_shows_and_prints_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(python) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    site(at, 40);
    let job = job(at, "out", "");
    let asked = ["--thresholds", "0,0.5", "--ensemble", "5"];
    reported(at, "page", &[&["evaluate", job.to_str().unwrap()], &asked[..]].concat());
    let pictures = root.join("target/report");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut look = Command::new(python);
    look.arg(root.join("tests/python/report.py")).args([at.join("page.html"), pictures]);
    let output = look.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
