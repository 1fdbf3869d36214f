//! The stages on a stream of one's own Timely program.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use physicnet_operators::prelude::*;
use physicnet_stream::{
    Axis, Cadence, Catalogue, Failure, Forecast, Frame, Grid, Sensor, Variable,
};
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Input, Inspect, Probe};

const MINUTE: i64 = 60_000_000_000;

/// Two workers, ten frames of a camera, and `tell` is shown every forecast of them.
pub(crate) fn forecast(tell: fn(&Forecast)) -> Result<(), String> {
    let workers = timely::execute(timely::Config::process(2), move |worker| {
        let camera = Arc::new(camera());
        let catalogue: Catalogue = [Arc::clone(&camera)].into_iter().collect();
        // Or `Checkpoint::load(path)`, with what `physicnet train` made.
        let variables = camera.grid.variables.iter().map(VariableConfig::for_variable);
        let model =
            ModelConfig { history: 3, horizon: 5, ..ModelConfig::classical(variables.collect()) };
        let checkpoint = Checkpoint::untrained(&model).map_err(|error| error.to_string())?;
        let net =
            Rc::new(checkpoint.network(&candle_core::Device::Cpu).map_err(|e| e.to_string())?);
        let failure = Failure::default();

        let mut frames = InputHandle::new();
        let probe = worker.dataflow::<u64, _, _>(|scope| {
            scope
                .input_from(&mut frames)
                .admit(&AdmissionConfig::default(), &catalogue, Memory::of(model.history))
                .admitted
                .appoint(&net)
                .crop(&catalogue, false, &failure)
                .encode(8, &failure)
                .quantize(8, &failure)
                .windows(false, &failure)
                .consult(&Bank::default(), 8, &failure)
                .fuse(&FuseConfig::default(), 8, &failure)
                .inspect(tell)
                .probe()
                .0
        });
        // Your own frames come here: every worker may send, each goes to the worker of its sensor.
        for minute in 0..10 {
            if worker.index() == 0 {
                frames.send(seen(&camera, minute));
            }
            frames.advance_to(minute + 1);
            worker.step_while(|| probe.less_than(frames.time()) && !failure.failed());
        }
        failure.take().map_or(Ok(()), |error| Err(error.to_string()))
    })?;
    workers.join().into_iter().try_for_each(|worker| worker?)
}

/// 32 x 48 pixels, every minute.
fn camera() -> Sensor {
    let variables = vec![Variable { name: "brightness".into(), units: "1".into() }];
    let grid = Grid { variables, y: Axis::index("y", 32), x: Axis::index("x", 48) };
    Sensor {
        id: "camera".into(),
        grid,
        cadence: Cadence::new(MINUTE).expect("a minute is positive"),
    }
}

/// A spot that moves right, two pixels a minute.
fn seen(camera: &Sensor, minute: u64) -> Frame {
    let shape @ [_, height, width] = camera.grid.shape();
    let at = |pixel: usize| {
        let (y, x) =
            ((pixel / width) as f32 - 16.0, (pixel % width) as f32 - 8.0 - 2.0 * minute as f32);
        (-(x * x + y * y) / 20.0).exp()
    };
    let data = (0..height * width).map(at).collect();
    Frame::new(camera.id.clone(), minute as i64 * MINUTE, minute, shape, data)
}

fn main() -> Result<(), String> {
    forecast(|forecast| {
        let field = &forecast.served().data[..32 * 48];
        let brightest = (0..field.len()).max_by(|&a, &b| field[a].total_cmp(&field[b]));
        let column = brightest.unwrap_or(0) % 48;
        let from = physicnet_stream::format_time(forecast.reference_time);
        _ = writeln!(std::io::stdout(), "from {from}: a minute later the spot is at x = {column}");
    })
}
