//! What a run says of itself beside its loss: curves, motion, codes, and the rate it should run at.

use std::collections::BTreeSet;

use super::*;
use crate::training::motion::Motion;

/// The rows of `metrics.csv`: step, part and value.
fn rows(out: &Path) -> Vec<(u64, String, f64)> {
    let csv = std::fs::read_to_string(out.join("metrics.csv")).unwrap();
    let row = |row: &str| {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!(fields.len(), 4, "{row}");
        (fields[0].parse().unwrap(), fields[2].to_owned(), fields[3].parse().unwrap())
    };
    csv.lines().skip(1).map(row).collect()
}

/// Width, height and pixels.
fn picture(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    (info.width, info.height, rgb)
}

#[test]
fn every_step_says_how_the_network_does_and_validations_draw_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &frames(40, false), "out");
    let mut pictures = Vec::new();
    let out = config.out.clone();
    let summary = train(&config, &Stop::default(), &mut |told| {
        let path = out.join("curves.png");
        assert!(told.step < config.validate_every || path.exists(), "step {}", told.step);
        if told.validation.is_some() {
            pictures.push(picture(&path));
        }
    });
    let Seconds { all, waited, read } = summary.unwrap().seconds;
    assert!(0.0 < waited && waited < all && read > 0.0, "{waited} and {read} of {all}");
    let rows = rows(&config.out);
    let parts = |step: u64| -> BTreeSet<&str> {
        let of = rows.iter().filter(|row| row.0 == step && !row.1.starts_with("validation"));
        of.map(|row| &*row.1).collect()
    };
    let expected = [
        "loss",
        "mean",
        "global",
        "sharp",
        "csi",
        "warp",
        "smooth",
        "norm",
        "perplexity",
        "revived",
        "displacement",
        "displacement_largest",
        "beyond_frame",
        "learning_rate",
        "waited",
        "read",
    ];
    for step in 1..=6 {
        assert_eq!(parts(step), expected.into(), "step {step}");
    }
    let of = |part: &str| -> Vec<f64> {
        rows.iter().filter(|row| row.1 == part).map(|row| row.2).collect()
    };
    let rates = (0..6).map(|step| rate_at(f64::from(step) / 6.0, &config)).collect::<Vec<_>>();
    assert_eq!(of("learning_rate"), rates);
    // The frames move by about a pixel a step, over two leads.
    for (mean, largest) in of("displacement").into_iter().zip(of("displacement_largest")) {
        assert!(0.3 < mean && mean < 3.0 && mean < largest, "{mean} {largest}");
    }
    assert!(of("beyond_frame").iter().all(|share| *share < 0.5));
    assert!(of("perplexity").iter().all(|codes| (1.0..=16.0).contains(codes)));
    // Loss, validation and rate, one below the other; at each validation they were drawn anew.
    assert_eq!(pictures.len(), 2);
    assert!(pictures[0].1 > 3 * 200 && pictures[0] != pictures[1]);
    assert_eq!(picture(&config.out.join("curves.png")), pictures[1]);
}

#[test]
fn motion_is_measured_where_the_loss_counts() {
    let folder = model();
    let planes = Planes::new(&frames(5, false), &folder);
    let mut sample = planes.sample(&folder, false, String::new()).unwrap();
    // One pixel is carried 5 to the left and 12 up, out of the frame; at the second lead nothing moves.
    let mut steps = vec![0.0_f32; SIDE * SIDE * 2 * 2];
    (steps[0], steps[1]) = (-5.0, -12.0);
    // And one by far, which does not count.
    (steps[4], steps[5]) = (1e6, 1e6);
    let mut weight = sample.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weight[2] = 0.0;
    sample.weight = Tensor::from_vec(weight, sample.weight.dims(), &Device::Cpu).unwrap();
    let steps = Tensor::from_vec(steps, (1, SIDE, SIDE, 4), &Device::Cpu).unwrap();
    let mut motion = Motion::default();
    motion.add(Motion::of(&steps, &sample).unwrap());
    let count = (SIDE * SIDE * 2 - 1) as f64;
    assert_eq!(
        motion.told(),
        [
            ("displacement", 13.0 / count),
            ("displacement_largest", 13.0),
            ("beyond_frame", 1.0 / count)
        ]
    );
}

#[test]
fn the_rate_that_is_suggested_lowers_the_loss_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(40, false), "swept");
    config.augment = Augment::default();
    config.model.local = false;
    let swept = find_rate(&config, &Stop::default(), &mut |_, _| ()).unwrap();
    let rate = swept.suggested.unwrap();
    assert!((1e-4..0.3).contains(&rate), "{rate}");
    assert!(swept.diverged.is_none_or(|diverged| rate < diverged));
    let mut files: Vec<_> = std::fs::read_dir(&config.out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["learning_rate.csv", "learning_rate.png"]);
    let csv = std::fs::read_to_string(&swept.csv).unwrap();
    let rates: Vec<f64> =
        csv.lines().skip(1).map(|row| row.split(',').next().unwrap().parse().unwrap()).collect();
    assert!((20..=100).contains(&rates.len()) && rates.contains(&rate), "{}", rates.len());
    let factor = |pair: &[f64]| pair[1] / pair[0];
    assert!(rates.windows(2).all(|pair| (factor(pair) - factor(&rates[..2])).abs() < 1e-9));
    assert!(picture(&swept.picture).0 > 400);
    // The same again, beside a state that is not looked at.
    let same = find_rate(&config, &Stop::default(), &mut |_, _| ()).unwrap();
    assert_eq!(same.suggested, Some(rate));

    let after = |learning_rate: f64, out: &str| {
        let (steps, out) = (40, folder.path().join(out));
        let config =
            TrainConfig { learning_rate, steps, out, validate_every: 40, ..config.clone() };
        let mut score = f64::NAN;
        let mut keep = |told: &Told| {
            told.validation.iter().for_each(|scores| score = scores["mae_mean"]);
        };
        train(&config, &Stop::default(), &mut keep).unwrap();
        score
    };
    let (suggested, tiny) = (after(rate, "suggested"), after(1e-3 * rate, "tiny"));
    assert!(suggested < 0.95 * tiny, "{suggested} {tiny}");
}
