//! A source of one's own, in a job like any other.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use physicnet::config::{Job, parse};
use physicnet::engine;
use physicnet_connectors::{Feed, Next, Reader, Sink, Source};
use physicnet_stream::{Axis, Cadence, Forecast, Frame, Grid, Sensor, Stop, Variable};

const SECOND: i64 = 1_000_000_000;

/// A line of thermometers over a bar that is heated at one end, as if read from an instrument.
struct Bar {
    sensor: Arc<Sensor>,
}

impl Bar {
    fn new() -> Result<Self> {
        let variables = vec![Variable { name: "temperature".into(), units: "K".into() }];
        let grid = Grid { variables, y: Axis::index("y", 4), x: Axis::index("x", 64) };
        let cadence = Cadence::new(SECOND)?;
        Ok(Self { sensor: Arc::new(Sensor { id: "bar".into(), grid, cadence }) })
    }
}

impl Feed for Bar {
    fn sensors(&self) -> Vec<Arc<Sensor>> {
        vec![Arc::clone(&self.sensor)]
    }

    /// After a restart `from` is the first frame that is still needed: seek to it here.
    fn open(&self, sensor: &Sensor, from: u64) -> physicnet_stream::Result<Reader> {
        let (id, shape, mut offset) = (sensor.id.clone(), sensor.grid.shape(), from);
        Ok(Box::new(move || {
            if offset == 60 {
                return Ok(Next::End);
            }
            // An instrument that has nothing yet would say `Next::Later`, and be asked again.
            let along = |pixel: usize| (pixel % shape[2]) as f32;
            let warmed = |x: f32| 293.0 + 80.0 * (-x / (1.0 + offset as f32).sqrt()).exp();
            let data = (0..shape.iter().product()).map(|pixel| warmed(along(pixel))).collect();
            let frame = Frame::new(id.clone(), offset as i64 * SECOND, offset, shape, data);
            offset += 1;
            Ok(Next::Frame(frame))
        }))
    }
}

/// Runs a job over the bar, with `tell` as one of its sinks.
pub(crate) fn forecast(tell: impl Fn(&Forecast) + Send + Sync + 'static) -> Result<()> {
    // The rest of the job is a file's; it may name sinks, scoring, a dashboard as well.
    let job: Job =
        parse("sources: []\nmodel: {untrained: {horizon: 6, expert: persistence}}", false)?;
    let sources = vec![Source::Own(Arc::new(Bar::new()?))];
    let checkpoint = job.checkpoint(&sources[0].sensors()?)?;
    let mut parts = job.assemble(sources, checkpoint)?;
    parts.sinks.push(Sink::Call(Arc::new(tell)));
    engine::run(parts, &job.cluster(), &Stop::default())
}

fn main() -> Result<()> {
    forecast(|forecast| {
        let (from, hot) = (forecast.reference_time / SECOND, forecast.served().data[0]);
        _ = writeln!(std::io::stdout(), "from second {from}: {hot:.1} K at the hot end");
    })
}
