//! The stages together: what must hold of any network, streamed or whole.

use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use physicnet_stream::{
    Axis, Cadence, Catalogue, Failure, Forecast, Frame, Grid, Sensor, Variable,
};
use timely::dataflow::operators::{Capture, Input, Inspect, Probe};

use crate::admission::{AdmissionConfig, Admit, Memory};
use crate::cropping::{Crop, Transform, View};
use crate::encoding::Encode;
use crate::experts::{Bank, Consult, Known, between};
use crate::fusion::{Fuse, FuseConfig};
use crate::layers::{Boundary, crew};
use crate::model::{Batch, Checkpoint, Expert, ModelConfig, Quantization, Serve, VariableConfig};
use crate::quantization::{Quantize, Usage};
use crate::swapping::Appoint;
use crate::windowing::Windowed;

mod faults;
mod forms;
mod missing;
mod rollout;
mod served;
mod stored;
mod whole;

pub(crate) fn small(channels: usize) -> ModelConfig {
    let variable = |c: usize| VariableConfig {
        name: format!("v{c}"),
        units: String::new(),
        transform: Transform::Identity,
        keep: Vec::new(),
        ceiling: None,
    };
    ModelConfig {
        variables: (0..channels).map(variable).collect(),
        history: 3,
        horizon: 2,
        skip: 8,
        latent: 4,
        hidden: 16,
        decoder: 8,
        codes: 8,
        ..ModelConfig::default()
    }
}

/// A checkpoint whose every weight is moved off its start, as training would.
fn shaken(config: &ModelConfig) -> Checkpoint {
    let mut checkpoint = Checkpoint::untrained(config).unwrap();
    for (i, weight) in checkpoint.weights.values_mut().enumerate() {
        let count = weight.elem_count();
        let wave = (0..count).map(|k| 0.05 * ((k * 7 + i * 13) as f32).sin()).collect::<Vec<_>>();
        let wave = Tensor::from_vec(wave, weight.dims(), &Device::Cpu).unwrap();
        *weight = (&*weight + wave).unwrap();
    }
    checkpoint
}

pub(crate) fn catalogue(sizes: &[(&str, usize, usize)], channels: usize) -> Catalogue {
    let entry = |&(name, height, width): &(&str, usize, usize)| {
        let variable = |c| Variable { name: format!("v{c}"), units: String::new() };
        let grid = Grid {
            variables: (0..channels).map(variable).collect(),
            y: Axis::index("y", height),
            x: Axis::index("x", width),
        };
        let cadence = Cadence::new(10).unwrap();
        Arc::new(Sensor { id: name.into(), grid, cadence })
    };
    sizes.iter().map(entry).collect()
}

/// A blob that drifts, so that flow finds something; different for every sensor.
pub(crate) fn frame(sensor: &Sensor, step: u64) -> Frame {
    let shape @ [channels, height, width] = sensor.grid.shape();
    let phase = sensor.id.as_str().len() as f32;
    let mut data = Vec::new();
    for c in 0..channels {
        for y in 0..height {
            for x in 0..width {
                let (y, x) = (y as f32 - 0.4 * step as f32, x as f32 - 0.7 * step as f32);
                data.push((0.5 * x + phase).sin() * (0.4 * y + c as f32).cos());
            }
        }
    }
    let valid_time = step as i64 * 10;
    Frame {
        sensor: sensor.id.clone(),
        valid_time,
        offset: step,
        shape,
        data,
        replay: false,
        scored: false,
        record: None,
    }
}

/// Streams frames through every stage and collects the forecasts by sensor and time.
fn stream(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    frames: Vec<Frame>,
    workers: usize,
    batch: usize,
    per_epoch: usize,
) -> Vec<Forecast> {
    stream_to(None, checkpoint, catalogue, frames, workers, batch, per_epoch)
}

/// The same of so many leads.
fn stream_to(
    leads: Option<usize>,
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    frames: Vec<Frame>,
    workers: usize,
    batch: usize,
    per_epoch: usize,
) -> Vec<Forecast> {
    let (send, receive) = mpsc::channel();
    let send = Arc::new(Mutex::new(send));
    let (checkpoint, catalogue) = (checkpoint.clone(), catalogue.clone());
    let products = ["mean", "sharp", "persistence", "advection", "trend"];
    let config = FuseConfig { products: products.map(str::to_owned).to_vec(), leads };
    let pieces = crew::CUT.get();
    timely::execute(timely::Config::process(workers), move |worker| {
        crew::CUT.set(pieces);
        let send = send.lock().unwrap().clone();
        let net = Rc::new(checkpoint.network(&Device::Cpu).unwrap());
        let failure = Failure::default();
        let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, frames) = scope.new_input::<Vec<Frame>>();
            let memory = Memory::of(net.config.history);
            let admitted = frames.admit(&AdmissionConfig::default(), &catalogue, memory).admitted;
            let (probe, forecasts) = admitted
                .appoint(&net)
                .crop(&catalogue, false, &failure)
                .encode(batch, &failure)
                .quantize(batch, &failure)
                .windows(false, &failure)
                .consult(&Bank::default(), batch, &failure)
                .fuse(&config, batch, &failure)
                .probe();
            let wrapped = timely::dataflow::operators::vec::Map::map(forecasts, |forecast| {
                (
                    forecast.sensor.as_str().to_owned(),
                    forecast.reference_time,
                    serde_json::to_string(&Bits::of(&forecast)).unwrap(),
                )
            });
            wrapped.capture_into(send);
            (input, probe)
        });
        for (epoch, chunk) in frames.chunks(per_epoch).enumerate() {
            if worker.index() == 0 {
                chunk.iter().for_each(|frame| input.send(frame.clone()));
            }
            input.advance_to(epoch as u64 + 1);
            worker.step();
        }
        input.close();
        worker.step_while(|| !probe.done());
        assert!(failure.take().is_none());
    })
    .unwrap();
    use timely::dataflow::operators::capture::Extract;
    let mut all: Vec<_> = receive.extract().into_iter().flat_map(|(_, rows)| rows).collect();
    all.sort();
    all.into_iter()
        .map(|(_, _, json)| serde_json::from_str::<Bits>(&json).unwrap().back())
        .collect()
}

/// A forecast whose floats survive JSON to the bit.
#[derive(serde::Serialize, serde::Deserialize)]
struct Bits(Forecast, Vec<Vec<u32>>);

impl Bits {
    fn of(forecast: &Forecast) -> Self {
        let bits = |p: &physicnet_stream::Product| p.data.iter().map(|v| v.to_bits()).collect();
        let mut bare = forecast.clone();
        bare.products.iter_mut().for_each(|product| product.data = Arc::default());
        Self(bare, forecast.products.iter().map(bits).collect())
    }

    fn back(self) -> Forecast {
        let Self(mut forecast, bits) = self;
        for (product, bits) in forecast.products.iter_mut().zip(bits) {
            product.data = Arc::new(bits.into_iter().map(f32::from_bits).collect());
        }
        forecast
    }
}

fn bits(forecasts: &[Forecast]) -> Vec<String> {
    forecasts.iter().map(|f| serde_json::to_string(&Bits::of(f)).unwrap()).collect()
}

fn product(forecast: &Forecast, name: &str) -> Vec<f32> {
    let found = forecast.products.iter().find(|product| &*product.name == name).unwrap();
    found.leads(forecast.shape).to_vec()
}

#[test]
fn untrained_the_forecast_is_the_chosen_experts() {
    for (expert, name) in [(Expert::Persistence, "persistence"), (Expert::Advection, "advection")] {
        for (sharp, local, scale) in [(false, false, 1), (true, true, 1), (true, true, 2)] {
            let config = ModelConfig {
                expert,
                sharp,
                local,
                global_scale: scale,
                tendency: 2,
                serve: if sharp { Serve::Sharp } else { Serve::Mean },
                ramp: [0.3, 0.8],
                ..small(2)
            };
            let mut config = config;
            config.variables.iter_mut().for_each(|variable| {
                variable.keep = vec![-0.3, 0.2, 0.6];
                variable.ceiling = Some(1);
            });
            let checkpoint = Checkpoint::untrained(&config).unwrap();
            let catalogue = catalogue(&[("a", 13, 18)], 2);
            let sensor = &catalogue.get(&"a".into()).unwrap();
            let frames = (0..4).map(|step| frame(sensor, step)).collect();
            let forecasts = stream(&checkpoint, &catalogue, frames, 1, 4, 1);
            assert_eq!(forecasts.len(), 2);
            for forecast in &forecasts {
                assert_eq!(forecast.shape, [2, 2, 13, 18]);
                let [mean, chosen] = ["mean", name].map(|name| product(forecast, name));
                assert_eq!(mean, chosen);
                assert_eq!(**forecast.served().data, *chosen);
            }
        }
    }
}

/// Each part alone, switched off and trained or not: untrained it is still the expert.
#[test]
fn any_part_can_be_switched_off() {
    type Off = fn(&mut ModelConfig);
    let parts: [(&str, Off); 7] = [
        ("gate", |config| config.gate = false),
        // The sharp and the local part build on it.
        ("residual", |config| {
            (config.residual, config.sharp, config.local) = (false, false, false)
        }),
        ("learned_flow", |config| config.learned_flow = false),
        ("position", |config| config.position = false),
        ("sharp", |config| config.sharp = false),
        ("local", |config| config.local = false),
        ("quantization", |config| config.quantization = Quantization::None),
    ];
    let all = ModelConfig {
        expert: Expert::Advection,
        gate: true,
        residual: true,
        position: true,
        sharp: true,
        local: true,
        quantization: Quantization::Hard,
        ..small(1)
    };
    let catalogue = catalogue(&[("a", 13, 18)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let frames: Vec<_> = (0..3).map(|step| frame(sensor, step)).collect();
    let served =
        |checkpoint: &Checkpoint| stream(checkpoint, &catalogue, frames.clone(), 1, 4, 1).remove(0);
    let whole = served(&shaken(&all));
    for (name, off) in parts {
        let mut config = all.clone();
        off(&mut config);
        let untrained = served(&Checkpoint::untrained(&config).unwrap());
        assert_eq!(**untrained.served().data, *product(&untrained, "advection"), "{name}");
        let trained = served(&shaken(&config));
        assert!(trained.served().data.iter().all(|value| value.is_finite()), "{name}");
        // Without it something else is said, unless it only adds a product of its own.
        let differs = trained.served().data != whole.served().data;
        assert!(differs || name == "sharp", "{name}");
    }
}

#[test]
fn streamed_equals_whole_to_the_bit() {
    for quantization in [Quantization::None, Quantization::Tap, Quantization::Hard] {
        let (local, skips, tendency) = (true, 2, 2);
        let config = ModelConfig { quantization, sharp: true, local, skips, tendency, ..small(1) };
        let checkpoint = shaken(&config);
        let catalogue = catalogue(&[("a", 16, 24)], 1);
        let sensor = &catalogue.get(&"a".into()).unwrap();
        let frames: Vec<_> = (0..3).map(|step| frame(sensor, step)).collect();
        let streamed = stream(&checkpoint, &catalogue, frames.clone(), 1, 4, 1);

        let net = checkpoint.network(&Device::Cpu).unwrap();
        let values: Vec<f32> = frames.iter().flat_map(|frame| frame.data.clone()).collect();
        let planes = Tensor::from_vec(values, (1, 3, 16, 24, 1), &Device::Cpu).unwrap();
        let identity = Transform::Identity;
        let v = between(&frames[2].data, &frames[1].data, 16, 24, &identity, Boundary::Open);
        let flow = Tensor::from_vec(v, (1, 16, 24, 2), &Device::Cpu).unwrap();
        let mask = planes.ones_like().unwrap();
        let whole = net.forward(&Batch { frames: planes, mask, flow, view: None }).unwrap();
        for (name, tensor) in [("mean", &whole.mean), ("sharp", &whole.sharp.unwrap())] {
            let by_lead: Vec<f32> =
                tensor.permute((0, 3, 1, 2)).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(product(&streamed[0], name), by_lead, "{quantization:?} {name}");
        }
    }
}

#[test]
fn nothing_but_the_sensor_decides_its_forecasts() {
    let checkpoint = shaken(&ModelConfig { sharp: true, ..small(1) });
    let sizes = [("a", 16, 16), ("bb", 13, 18), ("ccc", 16, 16), ("dddd", 33, 20)];
    let catalogue = catalogue(&sizes, 1);
    let sensors: Vec<_> = catalogue.known().cloned().collect();
    let together: Vec<_> =
        (0..6).flat_map(|step| sensors.iter().map(move |s| frame(s, step))).collect();
    let apart: Vec<_> =
        sensors.iter().rev().flat_map(|s| (0..6).map(move |step| frame(s, step))).collect();
    let alone = bits(&stream(&checkpoint, &catalogue, together.clone(), 1, 1, 1));
    assert_eq!(alone.len(), 4 * 4);
    for (frames, workers, batch, per_epoch) in
        [(&together, 1, 8, 24), (&together, 2, 4, 3), (&apart, 1, 3, 5), (&apart, 4, 8, 24)]
    {
        let told =
            bits(&stream(&checkpoint, &catalogue, frames.clone(), workers, batch, per_epoch));
        assert!(told == alone, "{workers} workers, batch {batch}, {per_epoch} frames an epoch");
    }
    for (pieces, workers) in [(1, 1), (2, 1), (3, 2), (7, 1)] {
        let told = || stream(&checkpoint, &catalogue, together.clone(), workers, 8, 24);
        assert!(bits(&crew::cut(pieces, told)) == alone, "kernels in {pieces} pieces");
    }
}

#[test]
fn experts_of_ones_own_go_out_beside_the_others() {
    let checkpoint = shaken(&small(2));
    let sensors = catalogue(&[("a", 18, 21)], 2);
    let told = |bank: &Bank| {
        let (checkpoint, sensors, bank) = (checkpoint.clone(), sensors.clone(), bank.clone());
        timely::execute_directly(move |worker| {
            let net = Rc::new(checkpoint.network(&Device::Cpu).unwrap());
            let failure = Failure::default();
            let config = FuseConfig { products: vec!["persistence".into()], leads: None };
            let all = Rc::new(std::cell::RefCell::new(Vec::new()));
            let seen = Rc::clone(&all);
            let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, frames) = scope.new_input::<Vec<Frame>>();
                let memory = Memory::of(net.config.history);
                let (probe, _) = frames
                    .admit(&AdmissionConfig::default(), &sensors, memory)
                    .admitted
                    .appoint(&net)
                    .crop(&sensors, false, &failure)
                    .encode(4, &failure)
                    .quantize(4, &failure)
                    .windows(false, &failure)
                    .consult(&bank, 4, &failure)
                    .fuse(&config, 4, &failure)
                    .inspect(move |forecast| seen.borrow_mut().push(forecast.clone()))
                    .probe();
                (input, probe)
            });
            let sensor = sensors.get(&"a".into()).unwrap();
            for step in 0..4 {
                input.send(frame(&sensor, step));
            }
            input.close();
            while !probe.done() && !failure.failed() {
                worker.step();
            }
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
            (all.take(), failure.take().map(|error| error.to_string()))
        })
    };
    let mut bank = Bank::default();
    bank.add("still", Expert::Persistence).unwrap();
    // The frame before the newest, though this network looks back no further than one.
    let older = |known: &Known, config: &ModelConfig| {
        Tensor::cat(&vec![&known.past[config.history - 2]; config.horizon], 3)
    };
    bank.add("older", older).unwrap();
    let (forecasts, failed) = told(&bank);
    assert_eq!((forecasts.len(), failed), (2, None));
    for forecast in &forecasts {
        assert_eq!(product(forecast, "still"), product(forecast, "persistence"));
    }
    let first = frame(&sensors.get(&"a".into()).unwrap(), 0).data;
    assert_eq!(product(&forecasts[0], "older"), first.repeat(2));

    for taken in ["advection", "physicnet", "network", "older", ""] {
        let error = bank.add(taken, Expert::Advection).unwrap_err().to_string();
        assert!(error.contains("give the expert one of its own"), "{error}");
    }
    bank.add("short", |known: &Known, _: &ModelConfig| Ok(known.newest.clone())).unwrap();
    let (forecasts, failed) = told(&bank);
    let failed = failed.unwrap();
    assert!(forecasts.is_empty() && failed.contains("expert short"), "{failed}");
}

#[test]
fn the_same_checkpoint_is_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = shaken(&small(1));
    let usage = Usage { counts: vec![3; checkpoint.config.codes], window: 9, usual: 0.2 };
    let checkpoint = Checkpoint { usage: Some(usage.clone()), ..checkpoint };
    let save = |at: usize| {
        let path = folder.path().join(at.to_string());
        checkpoint.save(&path).unwrap();
        Checkpoint::describe(&path, &usage).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = save(0);
    // The metadata of two names: one of so many would come in the other order.
    assert!((1..20).all(|at| save(at) == first));
    let again = Checkpoint::load(&folder.path().join("0")).unwrap();
    let [again, weights] = [&again, &checkpoint].map(|of| of.weights["experts.mix.weight"].clone());
    let values = |tensor: candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>();
    assert_eq!(values(again).unwrap(), values(weights).unwrap());
}

#[test]
fn a_checkpoint_says_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let checkpoint = shaken(&small(1));
    checkpoint.save(&path).unwrap();
    let back = Checkpoint::load(&path).unwrap();
    assert_eq!(back.config, checkpoint.config);
    assert_eq!(back.id.len(), 16);

    let mut broken = checkpoint.clone();
    broken.weights.remove("experts.mix.weight");
    broken.save(&path).unwrap();
    let error = Checkpoint::load(&path).err().unwrap().to_string();
    assert!(error.contains("experts.mix.weight is missing"), "{error}");

    let mut broken = checkpoint.clone();
    let bias = broken.weights.get_mut("experts.mix.bias").unwrap();
    *bias = (bias.ones_like().unwrap() * f64::NAN).unwrap();
    broken.save(&path).unwrap();
    let error = Checkpoint::load(&path).err().unwrap().to_string();
    assert!(error.contains("experts.mix.bias is not finite"), "{error}");

    let bytes = std::fs::read(&path).unwrap();
    for cut in (0..bytes.len()).step_by(997) {
        assert!(Checkpoint::from_bytes(&bytes[..cut], "cut").is_err());
    }
    assert!(Checkpoint::load(&folder.path().join("absent")).is_err());
}
