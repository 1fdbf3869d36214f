//! Where a study looks on: stream by stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use physicnet_operators::experts::Consulted;
use physicnet_operators::quantization::{Coded, saw};
use physicnet_operators::scoring::Settled;
use physicnet_stream::{Cadence, Forecast, Frame, SensorId, Time};

use super::cases::{Case, Cases, CodeMap, Fields, Motion};
use super::contest::Tail;
use super::spectra::Taker;
use super::{About, Atlas, CHANNELS, Desk, SIDE, Study, atlas, errors, gains, spectra};
use crate::render::resized;

/// Arrows along the longer side of a field.
const ARROWS: usize = 14;
/// Frames before the forecast that a case shows.
const PAST: usize = 3;
/// Frames whose motion and codes wait for their forecast to settle, at most.
const WAITING: usize = 4096;
/// The products whose errors are mapped beside the served one.
pub(crate) const MAPPED: [&str; 2] = ["advection", "persistence"];
/// The product that gains are measured against.
pub(crate) const REFERENCE: &str = "persistence";

/// What of a sensor waits until its forecasts settle, by valid time.
#[derive(Default)]
pub(super) struct Recent {
    motion: BTreeMap<Time, Motion>,
    codes: BTreeMap<Time, CodeMap>,
}

impl Recent {
    fn bound(&mut self) {
        while self.motion.len() > WAITING {
            self.motion.pop_first();
        }
        while self.codes.len() > WAITING {
            self.codes.pop_first();
        }
    }
}

impl Study {
    /// Code maps.
    pub(crate) fn coded(&self) -> impl FnMut(&Coded) + 'static {
        let desk = self.0.clone();
        move |coded| {
            let (Some(desk), Some((codes, shape))) = (&desk, coded.map()) else { return };
            let head = &coded.frame.head;
            if head.filled() || coded.seat.candidate {
                return;
            }
            if let Some(taken) = atlas::Taken::of(coded) {
                let mut findings = desk.findings();
                let atlas = findings.atlas.get_or_insert_with(|| Atlas::new(&taken, &desk.about));
                atlas.add(&taken);
            }
            let (frame, cell) = (&coded.frame, coded.seat.net.config.stride());
            let seen = |(at, code): (usize, &u32)| {
                (frame.missing == 0.0 || saw(frame, at, cell)).then_some(*code)
            };
            let seen = codes.iter().enumerate().map(seen).collect();
            let mut recent = desk.recent();
            let recent = recent.entry(head.sensor.clone()).or_default();
            recent.codes.insert(head.valid_time, (shape, seen));
            recent.bound();
        }
    }

    /// How far forecasts move things by their first lead.
    pub(crate) fn consulted(&self) -> impl FnMut(&Consulted) + 'static {
        let desk = self.0.clone();
        move |consulted| {
            let Some(desk) = desk.as_ref().filter(|_| !consulted.window.seat.candidate) else {
                return;
            };
            let frame = &consulted.window.newest().coded.frame;
            let [height, width] = [frame.extent.height, frame.extent.width];
            let Ok(motion) = consulted.motion(1) else { return };
            let (dx, dy) = motion.split_at(height * width);
            let [rows, columns] = fitted([height, width], ARROWS);
            let shrunk = |plane| resized(plane, width, [columns, rows]);
            let mut recent = desk.recent();
            let recent = recent.entry(frame.head.sensor.clone()).or_default();
            recent.motion.insert(frame.head.valid_time, ([rows, columns], shrunk(dx), shrunk(dy)));
            recent.bound();
        }
    }

    /// Forecasts with all that came of them.
    pub(crate) fn settled(&self) -> impl FnMut(&Settled) + 'static {
        let desk = self.0.clone();
        let mut bench = Bench::default();
        move |settled| {
            if let Some(desk) = &desk {
                bench.take(desk, settled);
            }
        }
    }
}

/// The sides of a field whose longer side is to be at most `most`.
fn fitted([height, width]: [usize; 2], most: usize) -> [usize; 2] {
    let step = height.max(width).div_ceil(most).max(1);
    [height.div_ceil(step), width.div_ceil(step)]
}

/// What one worker has at hand.
#[derive(Default)]
struct Bench {
    takers: HashMap<[usize; 2], Taker>,
    series: HashMap<SensorId, Series>,
}

/// What is remembered of a sensor.
#[derive(Default)]
struct Series {
    /// The last reference time and its number.
    last: Option<(Time, i64)>,
    /// The end of each series of losses.
    tails: Tails,
}

impl Series {
    /// The number of a reference time, in cadences. From one to the next it is counted right however
    /// they jitter; from a common beginning, times half a cadence off would be now this, now that.
    fn number(&mut self, at: Time, cadence: Cadence) -> i64 {
        let after = |(before, number): (Time, i64)| number + cadence.steps(before, at);
        let number = self.last.map_or(0, after);
        self.last = Some((at, number));
        number
    }
}

/// By channel, product and lead.
type Tails = BTreeMap<(usize, Arc<str>, usize), Tail>;
/// Something of each channel.
type OfChannels<T> = Vec<(usize, T)>;

impl Bench {
    fn take(&mut self, desk: &Desk, settled: &Settled) {
        let Settled { forecast, observed, .. } = settled;
        let about = &desk.about;
        let at = forecast.reference_time;
        let mut recent = desk.recent();
        let (mut motion, mut codes) = (None, None);
        if let Some(recent) = recent.get_mut(&forecast.sensor) {
            (motion, codes) = (recent.motion.get(&at).cloned(), recent.codes.get(&at).cloned());
            recent.motion = recent.motion.split_off(&(at + 1));
            recent.codes = recent.codes.split_off(&(at + 1));
        }
        drop(recent);
        if observed.iter().all(Option::is_none) {
            return;
        }
        let losses = losses(forecast, observed);
        let gains = gains::taken(forecast, observed, REFERENCE);
        let (errors, spectra) = self.fields(about, forecast, observed);
        let known = about.sensors.iter().find(|sensor| sensor.id == forecast.sensor);

        let mut findings = desk.findings();
        findings.forecasts += 1;
        let (first, last) = findings.period.unwrap_or((at, at));
        findings.period = Some((first.min(at), last.max(at)));
        let series = self.series.entry(forecast.sensor.clone()).or_default();
        let number = series.number(at, forecast.cadence).div_euclid(about.stride as i64);
        for Losses { channel, lead, pairs, .. } in &losses {
            for (product, ours, theirs) in pairs {
                let key = (*channel, Arc::clone(product), *lead);
                let tail = series.tails.entry(key.clone()).or_default();
                findings.contests.entry(key).or_default().add(tail, number, *ours, *theirs);
            }
        }
        for (key, taken) in gains {
            findings.gains.entry(key).or_default().add(&taken);
        }
        let channels = forecast.shape[1].min(CHANNELS);
        findings.cases.resize_with(channels, Cases::default);
        for channel in 0..channels {
            let of_channel: Vec<(f64, f64)> = losses
                .iter()
                .filter(|losses| losses.channel == channel)
                .filter_map(|losses| losses.against(REFERENCE))
                .collect();
            let mean = |part: fn(&(f64, f64)) -> f64| {
                of_channel.iter().map(part).sum::<f64>() / of_channel.len() as f64
            };
            let (loss, reference) = (mean(|l| l.0), mean(|l| l.1));
            let cases = &mut findings.cases[channel];
            // What lacks leads, at the end of the archive say, cannot be compared with the others.
            let whole = of_channel.len() == forecast.shape[0];
            if whole && loss.is_finite() && cases.wants(loss, reference) {
                let mut fields = fields(about, settled, channel);
                (fields.motion, fields.codes) = (motion.clone(), codes.clone());
                let case = Case {
                    sensor: forecast.sensor.clone(),
                    reference_time: at,
                    cadence: forecast.cadence,
                    loss,
                    reference,
                    fields: Arc::new(fields),
                };
                cases.add(&case, about.horizon);
            }
        }
        let Some(on) = known.and_then(|sensor| findings.on(&sensor.grid)) else {
            findings.elsewhere += 1;
            return;
        };
        on.forecasts += 1;
        errors.iter().for_each(|(channel, taken)| on.errors[*channel].add(taken));
        spectra.iter().for_each(|(channel, taken)| on.spectra[*channel].add(taken));
    }

    /// What the fields of the shown leads say, by channel.
    fn fields(
        &mut self,
        about: &About,
        forecast: &Forecast,
        observed: &[Option<Arc<Frame>>],
    ) -> (OfChannels<errors::Taken>, OfChannels<spectra::Taken>) {
        let [_, channels, height, width] = forecast.shape;
        let size = [height, width];
        let taker = self.takers.entry(size).or_insert_with(|| Taker::new(size, about.periodic));
        let served = Arc::clone(&forecast.served().name);
        let (mut errors, mut spectra) = (Vec::new(), Vec::new());
        for lead in about.leads() {
            let Some(frame) = observed.get(lead - 1).and_then(Option::as_ref) else { continue };
            for channel in 0..channels {
                let o = plane(&frame.data, channel, size);
                let products = || {
                    let all = forecast.products.iter();
                    all.map(|product| (&product.name, product.field(forecast.shape, lead, channel)))
                };
                for (name, p) in products().filter(|_| channel < CHANNELS) {
                    if *name == served || MAPPED.contains(&&**name) {
                        errors.push((channel, errors::Taken::of(lead, name, p, o, width)));
                    }
                }
                // A product that has nothing at this lead takes no part; the others share a mask.
                let mut mask: Vec<bool> = o.iter().map(|value| value.is_finite()).collect();
                let there: Vec<_> =
                    products().filter(|(_, p)| p.iter().any(|value| value.is_finite())).collect();
                for (_, p) in &there {
                    mask.iter_mut().zip(*p).for_each(|(inside, v)| *inside &= v.is_finite());
                }
                if 2 * mask.iter().filter(|inside| **inside).count() < mask.len() {
                    continue;
                }
                let taken = spectra::Taken {
                    lead,
                    observed: taker.take(o, &mask),
                    products: there
                        .into_iter()
                        .map(|(name, p)| (Arc::clone(name), taker.take(p, &mask)))
                        .collect(),
                };
                spectra.push((channel, taken));
            }
        }
        (errors, spectra)
    }
}

/// Plane `at` of fields of this size.
pub(super) fn plane(data: &[f32], at: usize, [height, width]: [usize; 2]) -> &[f32] {
    data.chunks_exact((height * width).max(1)).nth(at).unwrap_or_default()
}

/// The losses of one lead and channel: of the served product and of each other one, over the
/// pixels that both and the observation have.
struct Losses {
    channel: usize,
    lead: usize,
    pairs: Vec<(Arc<str>, f64, f64)>,
}

impl Losses {
    fn against(&self, product: &str) -> Option<(f64, f64)> {
        let pair = self.pairs.iter().find(|(name, ..)| **name == *product);
        pair.map(|(_, ours, theirs)| (*ours, *theirs))
    }
}

/// Over how many pixels `o`, `p` and `q` all are, and the squared errors of `p` and of `q` there.
pub(super) fn squares(o: &[f32], p: &[f32], q: &[f32]) -> (f64, f64, f64) {
    let mut sums = (0.0, 0.0, 0.0);
    for ((o, p), q) in o.iter().zip(p).zip(q) {
        let o = f64::from(*o);
        let (a, b) = (f64::from(*p) - o, f64::from(*q) - o);
        if a.is_finite() && b.is_finite() {
            sums.0 += 1.0;
            sums.1 += a * a;
            sums.2 += b * b;
        }
    }
    sums
}

fn losses(forecast: &Forecast, observed: &[Option<Arc<Frame>>]) -> Vec<Losses> {
    let [_, channels, height, width] = forecast.shape;
    let mut all = Vec::new();
    for (lead, frame) in observed.iter().enumerate() {
        let Some(frame) = frame else { continue };
        for channel in 0..channels {
            let o = plane(&frame.data, channel, [height, width]);
            let served = forecast.served().field(forecast.shape, lead + 1, channel);
            let mut pairs = Vec::new();
            for product in &forecast.products[1..] {
                let other = product.field(forecast.shape, lead + 1, channel);
                let (n, ours, theirs) = squares(o, served, other);
                if n > 0.0 {
                    pairs.push((Arc::clone(&product.name), ours / n, theirs / n));
                }
            }
            all.push(Losses { channel, lead: lead + 1, pairs });
        }
    }
    all
}

/// What a case looks like.
fn fields(about: &About, settled: &Settled, channel: usize) -> Fields {
    let Settled { forecast, observed, past } = settled;
    let [_, _, height, width] = forecast.shape;
    let size = [height, width];
    let shape = fitted(size, SIDE);
    let shrunk = |plane: &[f32]| resized(plane, width, [shape[1], shape[0]]);
    let frame = |frame: &Frame| {
        let back = forecast.cadence.steps(frame.valid_time, forecast.reference_time);
        (back, shrunk(plane(&frame.data, channel, size)))
    };
    let lead = |lead: usize| {
        let came = observed.get(lead - 1)?.as_ref()?;
        let p = forecast.served().field(forecast.shape, lead, channel);
        Some((lead, shrunk(plane(&came.data, channel, size)), shrunk(p)))
    };
    Fields {
        shape,
        past: past[past.len().saturating_sub(PAST)..].iter().map(|f| frame(f)).collect(),
        leads: about.leads().into_iter().filter_map(lead).collect(),
        motion: None,
        codes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_times_are_numbered_one_by_one_however_they_jitter() {
        let cadence = Cadence::new(100).unwrap();
        let mut series = Series::default();
        // Half a cadence after the steps from the epoch, and now a little more, now a little less.
        let numbers = [149, 250, 349, 651, 751, 849].map(|at| series.number(at, cadence));
        assert_eq!(numbers, [0, 1, 2, 5, 6, 7]);
        // A clock that was set.
        assert_eq!(series.number(450, cadence), 3);
    }
}
