//! What a checkpoint's codes usually are, and how far latents lie from them: counted on its training
//! data, with the weights as stored.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use physicnet_operators::admission::Admitted;
use physicnet_operators::cropping::{crop, model_input};
use physicnet_operators::model::{Checkpoint, ModelConfig, PhysicNet};
use physicnet_operators::quantization::{Ring, Tally, Usage, distance, saw};
use physicnet_stream::Frame;

use super::config::TrainConfig;
use super::data::{Data, Series};
use super::threads::on_threads;

/// Frames of the training part that are counted, spread over all of it.
const COUNTED: usize = 1024;
/// The longest sequences whose distance is taken.
const LONGEST: usize = 96;
/// Frames of all these sequences together.
const UNSEEN: usize = 2048;

/// Latents of a frame that are compared with their codes at most, spread over all of it.
const COMPARED: usize = 4096;
/// One latent of so many lies further from its code than where doubt begins.
const RARE: usize = 100;

/// Counts the codes of the checkpoint at `path` on the data of its training file, and writes
/// that into it; and where `faults` are asked for, how far a latent must lie from its code to be doubted,
/// which makes it another model. Without them nothing else changes in it, nor does the model's id.
///
/// # Errors
/// When the data do not fit the checkpoint, it has no codebook, or it cannot be written.
pub fn calibrate(config: &TrainConfig, path: &Path, faults: bool) -> Result<Usage> {
    config.validate()?;
    let checkpoint = Checkpoint::load(path)?;
    let data = Data::open(config, &mut checkpoint.config.clone())?;
    let net = checkpoint.network(&config.device.device(0)?)?;
    let (usage, far) = usage(&data, &net, config.threads)?
        .with_context(|| format!("{}: it has no codes to count", path.display()))?;
    if faults {
        let config = ModelConfig { faults: far, ..checkpoint.config };
        Checkpoint { config, usage: Some(usage.clone()), ..checkpoint }.save(path)?;
    } else {
        Checkpoint::describe(path, &usage)?;
    }
    Ok(usage)
}

/// How the codes of a checkpoint's network are used, and how far all but one in [`RARE`] of its latents
/// lie from them at most; `None` without a codebook.
pub(super) fn usage(
    data: &Data,
    net: &PhysicNet,
    threads: usize,
) -> Result<Option<(Usage, Option<f32>)>> {
    if net.encoder.is_none() || net.codebook.is_none() {
        return Ok(None);
    }
    let looks = |places: &[(&Series, usize)]| -> Result<Vec<Look>> {
        let look = |(series, frame): &(&Series, usize)| look(net, data, series, *frame);
        on_threads(threads, places, look).into_iter().collect()
    };
    let count = |part: &[Series]| -> Result<(Vec<u64>, Option<f32>)> {
        let all: Vec<_> = part.iter().flat_map(Series::places).collect();
        let every = all.len().div_ceil(COUNTED).max(1);
        let some: Vec<_> = all.into_iter().step_by(every).collect();
        let mut whole = Ring::new(some.len(), net.config.codes);
        let mut apart = Vec::new();
        for look in looks(&some)? {
            whole.push(look.tally);
            apart.extend(look.apart);
        }
        let rare = apart.len() / RARE;
        let furthest = (!apart.is_empty())
            .then(|| *apart.select_nth_unstable_by(rare, |one, other| other.total_cmp(one)).1);
        Ok((whole.counts().unwrap_or_default().to_vec(), furthest))
    };
    let [training, validation] = data.series(&net.config);
    let (counts, furthest) = count(&training)?;
    ensure!(counts.iter().any(|&count| count > 0), "data: the training part measured nothing");

    let (known, unseen) = match validation.is_empty() {
        false => (counts.clone(), validation),
        true => {
            let (rest, held) = hold_out(training);
            (count(&rest)?.0, held)
        }
    };
    let longest = unseen.iter().map(|series| series.frames.len()).max().unwrap_or_default();
    let window = longest.min(LONGEST);
    let long: Vec<_> = unseen.iter().filter(|series| series.frames.len() >= window).collect();
    let some = (UNSEEN / window.max(1)).min(long.len()).max(1);
    let every = long.len().div_ceil(some).max(1);
    let mut distances = Vec::new();
    for series in long.into_iter().step_by(every) {
        let mut ring = Ring::new(window, net.config.codes);
        let places: Vec<_> = series.places().take(UNSEEN / some).collect();
        for look in looks(&places)? {
            ring.push(look.tally);
            distances.extend(ring.counts().and_then(|seen| distance(seen, &known)));
        }
    }
    distances.sort_by(f64::total_cmp);
    let usual = distances.get((distances.len() * 99).div_ceil(100).saturating_sub(1));
    Ok(usual.map(|&usual| (Usage { counts, window, usual }, furthest)))
}

/// Takes a quarter away from the training part, to stand in for a validation part: every fourth
/// series, or of a few series the last quarter of each.
fn hold_out(training: Vec<Series>) -> (Vec<Series>, Vec<Series>) {
    if training.len() < 4 {
        return training.iter().map(Series::split).unzip();
    }
    let (mut rest, mut held) = (Vec::new(), Vec::new());
    for (at, series) in training.into_iter().enumerate() {
        if at % 4 == 3 { held.push(series) } else { rest.push(series) }
    }
    (rest, held)
}

/// What the codes say of one frame.
struct Look {
    tally: Tally,
    /// How far latents of cells that saw something lie from their codes.
    apart: Vec<f32>,
}

/// The codes of one frame, as the stream would find them.
fn look(net: &PhysicNet, data: &Data, series: &Series, frame: usize) -> Result<Look> {
    let (sensor, frame) = data.frame(series, frame)?;
    let Frame { sensor: id, valid_time, offset, shape, data, .. } = frame;
    let (data, replay, scored, plan) = (Rc::new(data), false, false, None);
    let head = Admitted { sensor: id, valid_time, offset, shape, data, replay, scored, plan };
    let frame = crop(head, sensor, &net.config);
    let stride = net.config.stride();
    let (Some(encoder), Some(codebook)) = (&net.encoder, &net.codebook) else {
        return Ok(Look { tally: Tally::of(&frame, &[], stride), apart: Vec::new() });
    };
    let features = encoder.forward(&model_input(&frame, &net.device)?, None)?;
    let map = codebook.codes(&features.latent)?;
    let codes: Vec<u32> = map.flatten_all()?.to_vec1()?;
    let every = codes.len().div_ceil(COMPARED).max(1);
    let apart = codebook.apart(&features.latent, &map)?.into_iter().enumerate().step_by(every);
    let apart = apart.filter(|(cell, _)| saw(&frame, *cell, stride)).map(|(_, apart)| apart);
    Ok(Look { tally: Tally::of(&frame, &codes, stride), apart: apart.collect() })
}
