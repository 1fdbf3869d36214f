//! Fusion over a stream: the last step from tensors to a forecast in physical units.

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use physicnet_stream::{Failure, Forecast, Product};
use timely::dataflow::StreamVec;

use crate::experts::{Carried, Consulted};
use crate::fusion::Fused;
use crate::model::{ModelConfig, PhysicNet, Serve};
use crate::stage::{most, stage};
use crate::windowing::Window;

/// What goes out with each forecast.
#[derive(Clone, Debug)]
pub struct FuseConfig {
    /// The hash of the checkpoint.
    pub model: Arc<str>,
    /// Products beside the served one, which is `physicnet`: `mean`, `sharp`, `persistence`,
    /// `advection`, `trend`. Unknown names and absent heads are left out.
    pub products: Vec<String>,
}

/// Extension trait: fuses the experts' answers into forecasts.
pub trait Fuse<'scope> {
    /// One forecast per window, in batches of at most `batch` windows of one size.
    fn fuse(
        self,
        net: &Rc<PhysicNet>,
        config: &FuseConfig,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Forecast>;
}

impl<'scope> Fuse<'scope> for StreamVec<'scope, u64, Consulted> {
    fn fuse(
        self,
        net: &Rc<PhysicNet>,
        config: &FuseConfig,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Forecast> {
        let (net, config) = (Rc::clone(net), config.clone());
        let extent = |consulted: &Consulted| consulted.window.newest().coded.frame.extent;
        let most = most(net.device.is_cpu(), batch, extent);
        stage(self, "Fuse", most, failure.clone(), extent, move |all| {
            let fused = fuse(&net, &all)?;
            let one = |(i, consulted)| forecast(&net.config, &config, consulted, &fused, i);
            all.iter().enumerate().map(one).collect()
        })
    }
}

/// The heads for a batch of windows.
fn fuse(net: &PhysicNet, all: &[Consulted]) -> Result<Fused> {
    let stack = |part: &dyn Fn(&Consulted) -> Option<Tensor>| {
        let parts: Vec<_> = all.iter().filter_map(part).collect();
        (!parts.is_empty()).then(|| Tensor::cat(&parts, 0)).transpose()
    };
    let field = |part: &dyn Fn(&Consulted) -> Tensor| {
        Tensor::cat(&all.iter().map(part).collect::<Vec<_>>(), 0)
    };
    let carried = Carried {
        trunk: stack(&|c| c.carried.trunk.clone())?,
        correction: None,
        displacement: field(&|c| c.carried.displacement.clone())?,
        warped: field(&|c| c.carried.warped.clone())?,
        tendency: stack(&|c| c.carried.tendency.clone())?,
    };
    let features = |c: &Consulted, t: usize| c.window.slots[t].coded.features.clone();
    let last = net.config.history - 1;
    let mut skips = Vec::new();
    for t in last + 1 - net.config.skips..=last {
        skips.extend(stack(&|c| features(c, t).map(|f| f.skip))?);
    }
    let skip = (!skips.is_empty()).then(|| Tensor::cat(&skips, 3)).transpose()?;
    let mut locals = Vec::new();
    if net.config.local {
        for t in 0..=last {
            locals.extend(stack(&|c| features(c, t).and_then(|f| f.local))?);
        }
    }
    let newest = field(&|c| c.newest.clone())?;
    net.fusion.forward(&carried, skip.as_ref(), &newest, &locals, None)
}

/// Everything that is said of window `i` of the batch.
fn forecast(
    model: &ModelConfig,
    config: &FuseConfig,
    consulted: &Consulted,
    fused: &Fused,
    i: usize,
) -> Result<Forecast> {
    let writer = Writer::new(model, &consulted.window);
    let head =
        |tensor: &Tensor| -> Result<Vec<f32>> { tensor.narrow(0, i, 1)?.flatten_all()?.to_vec1() };
    let plane = |tensor: &Tensor| -> Result<Vec<f32>> { tensor.flatten_all()?.to_vec1() };
    let mut served = match (model.serve, &fused.sharp) {
        (Serve::Sharp, Some(sharp)) => head(sharp)?,
        _ => head(&fused.mean)?,
    };
    let carried = plane(&consulted.advection)?;
    writer.blend(&mut served, &carried);
    let mut data = writer.physical(&served);
    writer.keep(&mut data, &carried);
    let mut products = vec![Product { name: "physicnet".into(), data }];
    for name in &config.products {
        let transformed = match (name.as_str(), &fused.sharp) {
            ("mean", _) => head(&fused.mean)?,
            ("sharp", Some(sharp)) => head(sharp)?,
            ("persistence", _) => plane(&consulted.persistence)?,
            ("advection", _) => plane(&consulted.advection)?,
            ("trend", _) => {
                let data = writer.trend(&plane(&consulted.newest)?);
                products.push(Product { name: name.as_str().into(), data });
                continue;
            }
            _ => continue,
        };
        let data = writer.physical(&transformed);
        products.push(Product { name: name.as_str().into(), data });
    }
    let window = &consulted.window;
    let newest = &window.newest().coded.frame;
    Ok(Forecast {
        sensor: newest.head.sensor.clone(),
        reference_time: newest.head.valid_time,
        cadence: newest.sensor.cadence,
        shape: [model.horizon, writer.channels, newest.extent.height, newest.extent.width],
        products,
        serving: None,
        model: Arc::clone(&config.model),
        revision: window.revision,
        missing: window.missing(),
        offset: window.offset,
        replay_from: window.replay_from,
        replay: window.replay,
        scored: window.scored,
    })
}

/// Turns padded, channel-last, transformed planes into `(lead, channel, y, x)` physical ones.
struct Writer<'a> {
    model: &'a ModelConfig,
    window: &'a Window,
    channels: usize,
    /// Per value of a frame, `(height, width, channel)`: measured somewhere in the window.
    measured: Vec<bool>,
}

impl<'a> Writer<'a> {
    fn new(model: &'a ModelConfig, window: &'a Window) -> Self {
        let mut measured = vec![false; window.newest().coded.frame.values.len()];
        for slot in &window.slots {
            let values = slot.coded.frame.values.iter();
            measured.iter_mut().zip(values).for_each(|(m, value)| *m |= !value.is_nan());
        }
        Self { model, window, channels: model.variables.len(), measured }
    }

    /// Moves a served plane towards the carried field by the ramp. Where they agree the result
    /// is exactly that: an untrained forecast stays the expert's.
    fn blend(&self, served: &mut [f32], carried: &[f32]) {
        if self.model.ramp == [0.0, 0.0] {
            return;
        }
        let depth = self.model.horizon * self.channels;
        for (at, (s, d)) in served.iter_mut().zip(carried).enumerate() {
            *s += self.model.ramp_at(at % depth / self.channels) * (d - *s);
        }
    }

    /// Keeps served physical values `(lead, channel, y, x)` between the same thresholds as the
    /// carried field; a value already there is not touched.
    fn keep(&self, served: &mut [f32], carried: &[f32]) {
        let variables = &self.model.variables;
        if variables.iter().all(|variable| variable.keep.is_empty()) {
            return;
        }
        let extent = self.window.newest().coded.frame.extent;
        let carried = self.physical(carried);
        let plane = extent.height * extent.width;
        for (depth, (served, carried)) in
            served.chunks_exact_mut(plane).zip(carried.chunks_exact(plane)).enumerate()
        {
            let thresholds = &variables[depth % self.channels].keep;
            // What nobody measured lies between no thresholds.
            let measured = |(value, _): &(&mut f32, &f32)| !value.is_nan();
            for (value, &d) in served.iter_mut().zip(carried).filter(measured) {
                let class = thresholds.iter().take_while(|&&t| d > t as f32).count();
                if class > 0 {
                    *value = value.max((thresholds[class - 1] as f32).next_up());
                }
                if let Some(&above) = thresholds.get(class) {
                    *value = value.min(above as f32);
                }
            }
        }
    }

    /// Physical values of a padded plane `(rows, columns, lead * channel)`.
    fn physical(&self, plane: &[f32]) -> Vec<f32> {
        self.collect(|pixel, depth, c| {
            self.model.variables[c].transform.inverse(plane[pixel * self.depth() + depth])
        })
    }

    /// The newest frame plus `lead` times its last change, per pixel.
    fn trend(&self, newest: &[f32]) -> Vec<f32> {
        let slots = &self.window.slots;
        let before = &slots[slots.len() - 2].coded.frame;
        let (width, columns) = (before.extent.width, before.extent.columns);
        self.collect(|pixel, depth, c| {
            let transform = self.model.variables[c].transform;
            let now = transform.inverse(newest[pixel * self.channels + c]);
            let at = (pixel / columns * width + pixel % columns) * self.channels + c;
            let then = before.values[at];
            let step = if then.is_nan() { 0.0 } else { now - transform.inverse(then) };
            now + step * (depth / self.channels + 1) as f32
        })
    }

    fn depth(&self) -> usize {
        self.model.horizon * self.channels
    }

    /// `value(padded pixel, lead * C + channel, channel)` over the frame; NaN where the window
    /// measured nothing.
    fn collect(&self, value: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
        let extent = self.window.newest().coded.frame.extent;
        let mut out = Vec::with_capacity(self.depth() * extent.height * extent.width);
        for depth in 0..self.depth() {
            let c = depth % self.channels;
            for y in 0..extent.height {
                for x in 0..extent.width {
                    let known = self.measured[(y * extent.width + x) * self.channels + c];
                    let pixel = y * extent.columns + x;
                    out.push(if known { value(pixel, depth, c) } else { f32::NAN });
                }
            }
        }
        out
    }
}
