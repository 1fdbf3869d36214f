//! A case: windows as the network sees them and all that it says of them, for a peer to repeat.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use physicnet_operators::admission::Admitted;
use physicnet_operators::cropping::{Extent, crop, fill_missing};
use physicnet_operators::experts::between;
use physicnet_operators::model::{Batch, Outputs, PhysicNet};
use physicnet_stream::{Frame, Sensor};

/// The windows, each of one sensor's frames from the oldest on: what the stages in front of the
/// network make of them.
pub(crate) fn batch(
    net: &PhysicNet,
    sensor: &Arc<Sensor>,
    windows: &[Vec<Frame>],
) -> Result<Batch> {
    let config = &net.config;
    let (history, channels) = (config.history, config.variables.len());
    let (mut frames, mut mask, mut flow) = (Vec::new(), Vec::new(), Vec::new());
    let mut extent = None;
    for window in windows {
        ensure!(window.len() == history, "{} frames of {history}", window.len());
        let views = window.iter().map(|frame| crop(admitted(frame.clone()), sensor, config));
        let views: Vec<_> = views.collect();
        let planes: Vec<_> = views.iter().map(|view| Rc::clone(&view.values)).collect();
        let extent = *extent.insert(views[0].extent);
        for (t, view) in views.iter().enumerate() {
            frames.extend(extent.pad(&fill_missing(&planes[..=t], 1, &[]), channels));
            let known = view.values.iter().map(|value| f32::from(u8::from(!value.is_nan())));
            let mut known = extent.pad(&known.collect::<Vec<_>>(), channels);
            for (at, pixel) in known.chunks_exact_mut(channels).enumerate() {
                if at / extent.columns >= extent.height || at % extent.columns >= extent.width {
                    pixel.fill(0.0);
                }
            }
            mask.extend(known);
        }
        let first = |planes: &[Rc<Vec<f32>>]| -> Vec<f32> {
            fill_missing(planes, 1, &[]).into_iter().step_by(channels).collect()
        };
        let (newest, previous) = (first(&planes), first(&planes[..history - 1]));
        let transform = &config.variables[0].transform;
        let (height, width) = (extent.height, extent.width);
        let motion = between(&newest, &previous, height, width, transform, config.boundary);
        flow.extend(extent.pad(&motion, 2));
    }
    let extent = extent.context("no window")?;
    let (b, rows, columns) = (windows.len(), extent.rows, extent.columns);
    let shape = (b, history, rows, columns, channels);
    Ok(Batch {
        frames: Tensor::from_vec(frames, shape, &Device::Cpu)?,
        mask: Tensor::from_vec(mask, shape, &Device::Cpu)?,
        flow: Tensor::from_vec(flow, (b, rows, columns, 2), &Device::Cpu)?,
        view: None,
    })
}

/// What came after each window, lead by lead: transformed, `(B, H, W, lead * C)`, NaN where nothing was
/// measured.
pub(crate) fn target(
    net: &PhysicNet,
    sensor: &Arc<Sensor>,
    futures: &[Vec<Frame>],
) -> Result<Tensor> {
    let config = &net.config;
    let (leads, channels) = (config.horizon, config.variables.len());
    let [_, height, width] = sensor.grid.shape();
    let extent = Extent::new(height, width, config.stride());
    let depth = leads * channels;
    let mut all = Vec::new();
    for future in futures {
        ensure!(future.len() == leads, "{} frames of {leads}", future.len());
        let mut target = vec![f32::NAN; extent.rows * extent.columns * depth];
        for (lead, frame) in future.iter().enumerate() {
            let view = crop(admitted(frame.clone()), sensor, config);
            for (at, pixel) in view.values.chunks_exact(channels).enumerate() {
                let place = (at / width * extent.columns + at % width) * depth + lead * channels;
                target[place..place + channels].copy_from_slice(pixel);
            }
        }
        all.extend(target);
    }
    let shape = (futures.len(), extent.rows, extent.columns, depth);
    Ok(Tensor::from_vec(all, shape, &Device::Cpu)?)
}

/// What the network says of a batch, by name, and the codes of the newest frames.
pub(crate) fn outputs(net: &PhysicNet, batch: &Batch) -> Result<BTreeMap<&'static str, Tensor>> {
    let said = net.forward(batch)?;
    let Outputs { mean, global, sharp, warped, correction, latent, .. } = said;
    let codes = net.codebook.as_ref().zip(latent.as_ref());
    let codes = codes.map(|(book, latent)| book.codes(latent)).transpose()?;
    let all = [
        ("mean", Some(mean)),
        ("global", global),
        ("sharp", sharp),
        ("warped", Some(warped)),
        ("correction", correction),
        ("latent", latent),
        ("codes", codes),
    ];
    Ok(all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect())
}

/// The safetensors file of both, and of what came after where that is known.
pub(crate) fn save(
    net: &PhysicNet,
    batch: &Batch,
    target: Option<Tensor>,
    path: &Path,
) -> Result<()> {
    let mut all = outputs(net, batch)?;
    all.extend(target.map(|target| ("target", target)));
    let Batch { frames, mask, flow, view: _ } = batch;
    all.extend([("frames", frames.clone()), ("mask", mask.clone()), ("flow", flow.clone())]);
    let all = all.into_iter().map(|(name, tensor)| Ok((name.to_owned(), tensor.contiguous()?)));
    let all = all.collect::<Result<HashMap<_, _>>>()?;
    Ok(candle_core::safetensors::save(&all, path)?)
}

fn admitted(frame: Frame) -> Admitted {
    let Frame { sensor, valid_time, offset, shape, data, replay, scored, .. } = frame;
    let (data, plan) = (Rc::new(data), None);
    Admitted { sensor, valid_time, offset, shape, data, replay, scored, plan }
}
