//! Forecasts and observations in any order, revised and corrected, with restarts between: against
//! a naive recomputation from what finally holds.

use super::*;

const WITHIN: i64 = 3;
const LEADS: i64 = 2;

/// A small generator: the tests need no more.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

const SENSORS: [&str; 2] = ["a", "b"];
const PRODUCTS: [&str; 2] = ["physicnet", "persistence"];
const MINUTE: i64 = 60_000_000_000;

/// Something that comes, with its step.
#[derive(Clone)]
enum Item {
    Made(i64, Forecast),
    Seen(i64, Frame),
}

impl Item {
    fn step(&self) -> i64 {
        match self {
            Self::Made(step, _) | Self::Seen(step, _) => *step,
        }
    }

    fn sensor(&self) -> &SensorId {
        match self {
            Self::Made(_, forecast) => &forecast.sensor,
            Self::Seen(_, frame) => &frame.sensor,
        }
    }

    fn round(&self, scored: bool) -> Round {
        match self.clone() {
            Self::Made(_, forecast) => (vec![Forecast { scored, ..forecast }], vec![]),
            Self::Seen(_, frame) => (vec![], vec![Frame { scored, ..frame }]),
        }
    }
}

/// A history of two sensors, nothing later than `WITHIN` cadences behind the newest observation.
struct Story {
    workers: usize,
    /// Whether all epochs are in flight together: workers that wait for each take their time.
    at_once: bool,
    config: ScoringConfig,
    cadence: i64,
    /// `[channel, y, x]`.
    shape: [usize; 3],
    items: Vec<Item>,
}

impl Story {
    fn tell(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (workers, at_once) = (1 + draw(&mut state, 3) as usize, draw(&mut state, 16) > 0);
        let channels = 1 + draw(&mut state, 2) as usize;
        // By the first all of it is of the last day and little of the last hour; by the second
        // the day is a part.
        let cadence = [20 * MINUTE, 180 * MINUTE][draw(&mut state, 2) as usize];
        // Similarity wants larger fields, and takes its time.
        let similar = seed.is_multiple_of(64);
        let [height, width] = if similar { [11, 12] } else { [2, 3] };
        let asked = |state: &mut u64| Metrics {
            thresholds: [0.3, 1.2, 2.0][..draw(state, 4) as usize].to_vec(),
            ssim: similar.then_some(Scale::Linear { minimum: 0.0, range: 3.0 }),
            fss: [(0.3, 1), (1.2, 2), (1.2, 3)][..draw(state, 4) as usize]
                .iter()
                .map(|&(threshold, scale)| Fss { threshold, scale })
                .collect(),
        };
        let config = ScoringConfig {
            channels: (0..channels).map(|_| asked(&mut state)).collect(),
            correct_within: WITHIN as u32,
            ..ScoringConfig::default()
        };
        let shape = [channels, height, width];
        let mut story = Self { workers, at_once, config, cadence, shape, items: Vec::new() };
        let mut coming = Vec::new();
        for (step, sensor) in (0..14).flat_map(|step| SENSORS.map(|sensor| (step, sensor))) {
            for kind in 0..2 {
                let mut place = step + draw(&mut state, WITHIN as u64 + 1) as i64;
                // Some never come, some come several times.
                while place <= step + WITHIN && draw(&mut state, 5) > 0 {
                    let item = if kind == 0 {
                        Item::Made(step, story.forecast(sensor, step, &mut state))
                    } else {
                        Item::Seen(step, story.frame(sensor, step, &mut state))
                    };
                    coming.push((place, draw(&mut state, 1000), item));
                    place += 1 + draw(&mut state, 3) as i64;
                }
            }
        }
        coming.sort_by_key(|(place, order, _)| (*place, *order));
        story.items = coming.into_iter().map(|(.., item)| item).collect();
        story
    }

    fn field(&self, leads: usize, state: &mut u64) -> Vec<f32> {
        let pixels = self.shape[1] * self.shape[2];
        // Each plane has a value: a span ends with the newest pair that had something to score.
        let value = |at: usize| match draw(state, 8) {
            0 if !at.is_multiple_of(pixels) => f32::NAN,
            drawn => drawn as f32 * 0.37,
        };
        (0..leads * self.shape[0] * pixels).map(value).collect()
    }

    fn frame(&self, sensor: &str, step: i64, state: &mut u64) -> Frame {
        let valid_time = step * self.cadence + step % 3;
        let data = self.field(1, state);
        Frame::new(sensor.into(), valid_time, step as u64, self.shape, data)
    }

    fn forecast(&self, sensor: &str, step: i64, state: &mut u64) -> Forecast {
        let [channels, height, width] = self.shape;
        let product = |name: &str| {
            let data = Arc::new(self.field(LEADS as usize, state));
            Product { name: name.into(), data }
        };
        Forecast {
            products: PRODUCTS.map(product).into(),
            cadence: Cadence::new(self.cadence).unwrap(),
            shape: [LEADS as usize, channels, height, width],
            reference_time: step * self.cadence + step % 3,
            ..forecast(sensor, step, [0.0; 2])
        }
    }

    fn play(&self, rounds: Vec<Round>) -> Verified {
        verify(self.workers, self.at_once, self.config.clone(), rounds)
    }

    /// Every pair of what finally holds, one by one, with the valid time of its observation.
    fn naive(&self) -> BTreeMap<Key, Vec<(i64, Sums)>> {
        let (mut forecasts, mut frames) = (BTreeMap::new(), BTreeMap::new());
        for item in &self.items {
            let at = (item.sensor().clone(), item.step());
            match item {
                Item::Made(_, forecast) => _ = forecasts.insert(at, forecast),
                Item::Seen(_, frame) => _ = frames.insert(at, frame),
            }
        }
        let [_, height, width] = self.shape;
        let pixels = height * width;
        let mut pairs = BTreeMap::<Key, Vec<(i64, Sums)>>::new();
        for ((sensor, step), forecast) in forecasts {
            for lead in 1..=LEADS {
                let Some(frame) = frames.get(&(sensor.clone(), step + lead)) else { continue };
                for product in &forecast.products {
                    for (channel, asked) in self.config.channels.iter().enumerate() {
                        let at = ((lead as usize - 1) * self.shape[0] + channel) * pixels;
                        let observed = &frame.data[channel * pixels..][..pixels];
                        let sums = Sums::of(&product.data[at..][..pixels], observed, width, asked);
                        let key = Key {
                            sensor: sensor.clone(),
                            product: Arc::clone(&product.name),
                            lead: lead as u32,
                            channel: channel as u32,
                        };
                        pairs.entry(key).or_default().push((frame.valid_time, sums));
                    }
                }
            }
        }
        pairs
    }
}

/// The pairs that lie in a span that ends with the newest pair of their sensor, added up.
fn over(pairs: &BTreeMap<Key, Vec<(i64, Sums)>>, span: Span) -> BTreeMap<Key, Sums> {
    let mut newest = BTreeMap::<&SensorId, i64>::new();
    for (key, (time, _)) in pairs.iter().flat_map(|(key, all)| all.iter().map(move |p| (key, p))) {
        let known = newest.entry(&key.sensor).or_insert(*time);
        *known = (*known).max(*time);
    }
    let mut totals = BTreeMap::<Key, Sums>::new();
    for (key, (time, sums)) in pairs.iter().flat_map(|(k, all)| all.iter().map(move |p| (k, p))) {
        let newest = newest[&key.sensor];
        // The last twelve times five minutes, and the last 24 hours, by the clock.
        let from = match span {
            Span::Hour => newest - newest % (5 * MINUTE) - 55 * MINUTE,
            Span::Day => newest - newest % (60 * MINUTE) - 23 * 60 * MINUTE,
            Span::All => i64::MIN,
        };
        if *time >= from {
            totals.entry(key.clone()).or_default().plus_equals(sums);
        }
    }
    totals.retain(|_, sums| !sums.is_zero());
    totals
}

#[test]
fn any_order_of_arrival_ends_with_the_same_sums() {
    for seed in 0..2_000 {
        let story = Story::tell(seed);
        let expected = story.naive();
        let verified = story.play(story.items.iter().map(|item| item.round(false)).collect());
        for span in Span::ALL {
            assert_eq!(verified.over(span), over(&expected, span), "story {seed}, {span:?}");
        }

        // Killed somewhere: what was counted is kept, and what can still meet something comes again.
        let cut = seed as usize % (story.items.len() + 1);
        let (before, after) = story.items.split_at(cut);
        let counted = story.play(before.iter().map(|item| item.round(false)).collect());
        let mut newest = BTreeMap::<&SensorId, i64>::new();
        for item in before.iter().filter(|item| matches!(item, Item::Seen(..))) {
            let known = newest.entry(item.sensor()).or_insert(0);
            *known = (*known).max(item.step());
        }
        let waits = |item: &&Item| {
            let newest = newest.get(item.sensor()).copied().unwrap_or(0);
            newest - item.step() <= LEADS + WITHIN
        };
        let again = before.iter().filter(waits).map(|item| item.round(true));
        let rounds = again.chain(after.iter().map(|item| item.round(false)));
        let mut totals = story.play(rounds.collect()).over(Span::All);
        for (key, sums) in counted.over(Span::All) {
            totals.entry(key).or_default().plus_equals(&sums);
        }
        totals.retain(|_, sums| !sums.is_zero());
        assert_eq!(totals, over(&expected, Span::All), "story {seed}, cut at {cut}");
    }
}
