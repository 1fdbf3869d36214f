//! Fusion over a stream: the last step from tensors to a forecast in physical units.

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{Device, Result, Storage, Tensor};
use physicnet_stream::{Failure, Forecast, Product};
use timely::dataflow::StreamVec;

use crate::cropping::Extent;
use crate::experts::{Carried, Consulted, flow};
use crate::fusion::pool::Pool;
use crate::fusion::{Fused, ceiling, rollout};
use crate::layers::{join, warp_planes};
use crate::model::{Expert, ModelConfig, PhysicNet, Serve, VariableConfig};
use crate::stage::{Turn, most, stage};
use crate::windowing::Window;

/// What can go out beside the served product, which is `physicnet`.
pub const PRODUCTS: [&str; 5] = ["mean", "sharp", "persistence", "advection", "trend"];

/// What goes out with each forecast.
#[derive(Clone, Debug, Default)]
pub struct FuseConfig {
    /// Which of [`PRODUCTS`] go out beside the served one. Other names and absent heads are left out.
    pub products: Vec<String>,
    /// How many leads a forecast has: beyond the network's horizon it goes on from its own. `None`:
    /// as many as the horizon.
    pub leads: Option<usize>,
}

/// Extension trait: fuses the experts' answers into forecasts.
pub trait Fuse<'scope> {
    /// One forecast per window, in batches of at most `batch` windows of one size and network.
    fn fuse(
        self,
        config: &FuseConfig,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Forecast>;
}

impl<'scope> Fuse<'scope> for StreamVec<'scope, u64, Consulted> {
    fn fuse(
        self,
        config: &FuseConfig,
        batch: usize,
        failure: &Failure,
    ) -> StreamVec<'scope, u64, Forecast> {
        let config = config.clone();
        let mut pool = Pool::default();
        let most = most(batch, |c: &Consulted| (&c.window.seat, c.window.extent()));
        let kind = |c: &Consulted| (c.window.extent(), c.window.seat.mark());
        stage(self, "Fuse", Turn::Batch, most, failure.clone(), kind, move |all| {
            forecasts(all, &config, &mut pool)
        })
    }
}

/// The forecasts of a batch, of all their leads.
fn forecasts(
    mut all: Vec<Consulted>,
    config: &FuseConfig,
    pool: &mut Pool,
) -> Result<Vec<Forecast>> {
    let net = Rc::clone(&all[0].window.seat.net);
    let leads = config.leads.unwrap_or(net.config.horizon);
    let mut say = |all: &[Consulted], products: &[String]| -> Result<Vec<Forecast>> {
        let fused = fuse(&net, all)?;
        let one = |(i, one)| forecast(&net, products, leads, one, &fused, i, pool);
        all.iter().enumerate().map(one).collect()
    };
    let mut last = say(&all, &config.products)?;
    if leads == net.config.horizon {
        return Ok(last);
    }
    // The others are said of all leads from the start.
    let heads = config.products.iter().filter(|name| matches!(&***name, "mean" | "sharp"));
    let heads: Vec<_> = heads.cloned().collect();
    let mut rounds: Vec<_> = last.iter().map(|forecast| vec![forecast.clone()]).collect();
    for _ in 1..leads.div_ceil(net.config.horizon) {
        all = rollout::onward(&all, &last)?;
        last = say(&all, &heads)?;
        rounds.iter_mut().zip(&last).for_each(|(rounds, next)| rounds.push(next.clone()));
    }
    Ok(rounds.into_iter().map(|rounds| rollout::joined(rounds, leads)).collect())
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
    let skip = (!skips.is_empty()).then(|| join(&skips)).transpose()?;
    let mut locals = Vec::new();
    if net.config.local {
        for t in 0..=last {
            locals.extend(stack(&|c| features(c, t).and_then(|f| f.local))?);
        }
    }
    let newest = field(&|c| c.newest.clone())?;
    let Fused { mean, sharp, .. } =
        net.fusion.forward(&carried, skip.as_ref(), &newest, &locals, None)?;
    // Back from the device in one piece; the forecasts are planes in memory.
    let back = |head: Tensor| head.to_device(&Device::Cpu);
    Ok(Fused { mean: back(mean)?, global: None, sharp: sharp.map(back).transpose()? })
}

/// Everything that is said of window `i` of the batch: by the network as far as its horizon, by trend
/// and advection as far as `leads`.
fn forecast(
    net: &PhysicNet,
    products: &[String],
    leads: usize,
    consulted: &Consulted,
    fused: &Fused,
    i: usize,
    pool: &mut Pool,
) -> Result<Forecast> {
    let model = &net.config;
    let writer = Writer::new(model, &consulted.window);
    let head = |tensor: &Tensor| tensor.narrow(0, i, 1);
    let served = match (model.serve, &fused.sharp) {
        (Serve::Sharp, Some(sharp)) => head(sharp)?,
        _ => head(&fused.mean)?,
    };
    let carries = writer.follows() && model.expert == Expert::Advection;
    let advection = match consulted.advected(model) {
        Some(known) => Some(known.clone()),
        None => carries.then(|| consulted.advection(model)).transpose()?,
    };
    let data = match &advection {
        Some(carried) if carries => {
            shown(carried, |carried| shown(&served, |served| writer.served(served, carried)))??
                .into()
        }
        _ if writer.follows() => {
            // Persistence, as often as there are leads.
            let all = Tensor::cat(&vec![&consulted.newest; model.horizon], 3)?;
            shown(&all, |carried| shown(&served, |served| writer.served(served, carried)))??.into()
        }
        _ => writer.planes(&served, pool)?,
    };
    let mut said = vec![Product { name: "physicnet".into(), data }];
    for name in products {
        let data = match (name.as_str(), &fused.sharp, &advection) {
            ("mean", ..) => writer.planes(&head(&fused.mean)?, pool)?,
            ("sharp", Some(sharp), _) => writer.planes(&head(sharp)?, pool)?,
            ("persistence", ..) => writer.planes(&consulted.newest, pool)?,
            ("advection", _, Some(advection)) if leads <= model.horizon => {
                writer.planes(advection, pool)?
            }
            ("advection", ..) => writer.advected(consulted, leads, pool)?,
            ("trend", ..) => shown(&consulted.newest, |newest| writer.trend(newest, leads))?.into(),
            _ => continue,
        };
        said.push(Product { name: name.as_str().into(), data });
    }
    for (name, field) in &consulted.own {
        said.push(Product { name: Arc::clone(name), data: writer.planes(field, pool)? });
    }
    let window = &consulted.window;
    let newest = &window.newest().coded.frame;
    Ok(Forecast {
        sensor: newest.head.sensor.clone(),
        reference_time: newest.head.valid_time,
        cadence: newest.sensor.cadence,
        shape: [model.horizon, writer.channels, newest.extent.height, newest.extent.width],
        products: said,
        serving: None,
        ensemble: None,
        model: Arc::clone(&net.id),
        candidate: window.seat.candidate,
        revision: window.revision,
        missing: window.missing(),
        offset: window.offset,
        frame_time: window.frame_time,
        replay_from: window.replay_from,
        replay: window.replay,
        scored: window.scored,
    })
}

/// Shows the values of a tensor where they lie: in memory they are not copied.
fn shown<T>(tensor: &Tensor, look: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(all), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        return Ok(look(&all.as_slice()?[from..to]));
    }
    drop(storage);
    Ok(look(&tensor.flatten_all()?.to_vec1()?))
}

/// The value nearest to a threshold that is clearly above it (`side` 1) or below it (-1).
fn clear_of(threshold: f64, side: f64) -> f32 {
    // Some eight f32 to the side; beside 0, where they are dense, the smallest of full precision.
    let gap = (1e-6 * threshold.abs()).max(f64::from(f32::MIN_POSITIVE));
    (threshold + side * gap) as f32
}

/// Turns padded, channel-last, transformed planes into `(lead, channel, y, x)` physical ones.
struct Writer<'a> {
    model: &'a ModelConfig,
    window: &'a Window,
    channels: usize,
    /// Per value of a frame, `(channel, y, x)`: measured somewhere in the window. Empty where
    /// everything was.
    measured: Vec<bool>,
}

impl<'a> Writer<'a> {
    fn new(model: &'a ModelConfig, window: &'a Window) -> Self {
        let channels = model.variables.len();
        let frames = || window.slots.iter().map(|slot| &slot.coded.frame);
        let mut measured = Vec::new();
        if frames().all(|frame| frame.missing > 0.0) {
            let count = window.newest().coded.frame.values.len();
            measured.resize(count, false);
            for values in frames().map(|frame| &frame.values) {
                for (at, value) in values.iter().enumerate() {
                    measured[at % channels * (count / channels) + at / channels] |= !value.is_nan();
                }
            }
        }
        Self { model, window, channels, measured }
    }

    /// Whether what is served depends on the chosen expert's field beside it.
    fn follows(&self) -> bool {
        let bound =
            |variable: &VariableConfig| !variable.keep.is_empty() || variable.ceiling.is_some();
        self.model.variables.iter().any(bound) || self.model.ramp != [0.0, 0.0]
    }

    /// Physical values of a served plane that follows the carried one.
    fn served(&self, served: &[f32], carried: &[f32]) -> Vec<f32> {
        let mut blended = served.to_vec();
        self.blend(&mut blended, carried);
        let mut data = self.physical(&blended);
        let carried = self.physical(carried);
        self.lower(&mut data, &carried);
        self.keep(&mut data, &carried);
        data
    }

    /// Moves a served plane towards the carried field by the ramp. Where they agree the result
    /// is exactly that: an untrained forecast stays the expert's.
    fn blend(&self, served: &mut [f32], carried: &[f32]) {
        let depth = self.model.horizon * self.channels;
        let ramp: Vec<f32> = (0..depth).map(|at| self.model.ramp_at(at / self.channels)).collect();
        for (served, carried) in served.chunks_exact_mut(depth).zip(carried.chunks_exact(depth)) {
            for ((s, d), share) in served.iter_mut().zip(carried).zip(&ramp) {
                *s += share * (d - *s);
            }
        }
    }

    /// Lowers served physical values `(lead, channel, y, x)` to the highest carried ones around.
    fn lower(&self, served: &mut [f32], carried: &[f32]) {
        let extent = self.window.newest().coded.frame.extent;
        let plane = extent.height * extent.width;
        let planes = served.chunks_exact_mut(plane).zip(carried.chunks_exact(plane));
        for (depth, (served, carried)) in planes.enumerate() {
            if let Some(reach) = self.model.variables[depth % self.channels].ceiling {
                ceiling::lower(served, carried, extent.width, reach);
            }
        }
    }

    /// Keeps served physical values `(lead, channel, y, x)` between the same thresholds as the
    /// carried field, clear of them: scorers count what is above, or what is at or above, as f32 or as
    /// f64. A value already there is not touched.
    fn keep(&self, served: &mut [f32], carried: &[f32]) {
        let extent = self.window.newest().coded.frame.extent;
        let plane = extent.height * extent.width;
        for (depth, (served, carried)) in
            served.chunks_exact_mut(plane).zip(carried.chunks_exact(plane)).enumerate()
        {
            let thresholds = &self.model.variables[depth % self.channels].keep;
            // What nobody measured lies between no thresholds.
            let measured = |(value, _): &(&mut f32, &f32)| !value.is_nan();
            for (value, &d) in served.iter_mut().zip(carried).filter(measured) {
                let class = thresholds.iter().take_while(|&&t| f64::from(d) > t).count();
                if class > 0 {
                    *value = value.max(clear_of(thresholds[class - 1], 1.0));
                }
                if let Some(&above) = thresholds.get(class) {
                    *value = value.min(clear_of(above, -1.0));
                }
            }
        }
    }

    /// The physical values of `(1, rows, columns, lead * channel)`.
    fn planes(&self, tensor: &Tensor, pool: &mut Pool) -> Result<Arc<Vec<f32>>> {
        shown(tensor, |plane| pool.planes(self.count(plane), |out| self.write_physical(plane, out)))
    }

    /// How many physical values there are of a padded plane.
    fn count(&self, plane: &[f32]) -> usize {
        let Extent { height, width, rows, columns } = self.window.newest().coded.frame.extent;
        plane.len() / (rows * columns) * height * width
    }

    /// Physical values of a padded plane `(rows, columns, lead * channel)`, or of `channel` alone;
    /// NaN where the window measured nothing.
    fn physical(&self, plane: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.count(plane)];
        self.write_physical(plane, &mut out);
        out
    }

    /// The same, written over `out`.
    fn write_physical(&self, plane: &[f32], out: &mut [f32]) {
        let Extent { height, width, rows, columns } = self.window.newest().coded.frame.extent;
        let depth = plane.len() / (rows * columns);
        // Row by row, so that each is in the cache for all of its depth.
        for y in 0..height {
            let row = &plane[y * columns * depth..][..width * depth];
            for d in 0..depth {
                let line = &mut out[(d * height + y) * width..][..width];
                let pixels = line.iter_mut().zip(row.chunks_exact(depth));
                pixels.for_each(|(to, pixel)| *to = pixel[d]);
                self.invert(line, d % self.channels, y);
            }
        }
    }

    /// The newest frame carried along the classical flow, in physical values, at the network's
    /// leads and those after them up to `leads`.
    fn advected(
        &self,
        consulted: &Consulted,
        leads: usize,
        pool: &mut Pool,
    ) -> Result<Arc<Vec<f32>>> {
        let Extent { height, width, rows, columns } = self.window.newest().coded.frame.extent;
        let leads = leads.max(self.model.horizon);
        let (size, boundary) = ([rows, columns, self.channels], self.model.boundary);
        let fill = |newest: &[f32], prior: &[f32], out: &mut [f32]| {
            if (height, width) == (rows, columns) {
                warp_planes(newest, prior, size, boundary, out);
            } else {
                let mut padded = vec![0.0; leads * self.channels * rows * columns];
                warp_planes(newest, prior, size, boundary, &mut padded);
                let lines = padded.chunks_exact(columns).enumerate();
                let inside = lines.filter(|(at, _)| at % rows < height);
                for (to, (_, line)) in out.chunks_exact_mut(width).zip(inside) {
                    to.copy_from_slice(&line[..width]);
                }
            }
            for (at, line) in out.chunks_exact_mut(width).enumerate() {
                self.invert(line, at / height % self.channels, at % height);
            }
        };
        let count = leads * self.channels * height * width;
        let mut carry = |prior: &[f32]| {
            shown(&consulted.newest, |newest| pool.planes(count, |out| fill(newest, prior, out)))
        };
        match self.window.newest().flow.get() {
            // What the network was given ends at its horizon.
            Some(flow) if leads > self.model.horizon => {
                carry(&flow::displacements(flow, rows, columns, leads, boundary))
            }
            _ => shown(&consulted.prior, carry)?,
        }
    }

    /// Turns row `y` of channel `c` into physical values.
    fn invert(&self, line: &mut [f32], c: usize, y: usize) {
        let transform = self.model.variables[c].transform;
        line.iter_mut().for_each(|value| *value = transform.inverse(*value));
        if !self.measured.is_empty() {
            let Extent { height, width, .. } = self.window.newest().coded.frame.extent;
            let known = &self.measured[(c * height + y) * width..][..width];
            let unknown = line.iter_mut().zip(known).filter(|(_, known)| !**known);
            unknown.for_each(|(value, _)| *value = f32::NAN);
        }
    }

    /// The newest frame plus `lead` times its last change, per pixel, for each of `leads`.
    fn trend(&self, newest: &[f32], leads: usize) -> Vec<f32> {
        let slots = &self.window.slots;
        let before = &slots[slots.len() - 2].coded.frame;
        let then = self.physical(&before.extent.pad(&before.values, self.channels));
        let now = self.physical(newest);
        let lead = |lead: usize| {
            now.iter().zip(&then).map(move |(now, then)| {
                let step = if then.is_nan() { 0.0 } else { now - then };
                now + step * lead as f32
            })
        };
        (1..=leads).flat_map(lead).collect()
    }
}
