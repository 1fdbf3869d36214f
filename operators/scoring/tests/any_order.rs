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

    fn round(&self, scored: bool) -> Round {
        match self.clone() {
            Self::Made(_, forecast) => (vec![Forecast { scored, ..forecast }], vec![]),
            Self::Seen(_, frame) => (vec![], vec![Frame { scored, ..frame }]),
        }
    }
}

/// A history of one sensor, nothing later than `WITHIN` cadences behind the newest observation.
fn tell(seed: u64) -> Vec<Item> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut items = Vec::new();
    for step in 0..14 {
        let value = |state: &mut u64| match draw(state, 8) {
            0 => f32::NAN,
            drawn => drawn as f32 * 0.37,
        };
        for kind in 0..2 {
            let mut place = step + draw(&mut state, WITHIN as u64 + 1) as i64;
            // Some never come, some come several times.
            while place <= step + WITHIN && draw(&mut state, 5) > 0 {
                let item = if kind == 0 {
                    let values = [value(&mut state), value(&mut state)];
                    Item::Made(step, forecast("a", step, values))
                } else {
                    Item::Seen(step, frame("a", step, value(&mut state)))
                };
                items.push((place, draw(&mut state, 1000), item));
                place += 1 + draw(&mut state, 3) as i64;
            }
        }
    }
    items.sort_by_key(|(place, order, _)| (*place, *order));
    items.into_iter().map(|(_, _, item)| item).collect()
}

/// Every pair of what finally holds, one by one.
fn naive(items: &[Item]) -> BTreeMap<Key, Sums> {
    let (mut forecasts, mut frames) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        match item {
            Item::Made(step, forecast) => _ = forecasts.insert(*step, forecast),
            Item::Seen(step, frame) => _ = frames.insert(*step, frame),
        }
    }
    let mut totals = BTreeMap::<Key, Sums>::new();
    for (step, forecast) in forecasts {
        for lead in 1..=LEADS {
            let Some(frame) = frames.get(&(step + lead)) else { continue };
            let field = &forecast.products[0].data[(lead as usize - 1) * 2..][..2];
            let key =
                Key { sensor: "a".into(), product: "mean".into(), lead: lead as u32, channel: 0 };
            let sums = Sums::of(field, &frame.data, 2, &Metrics::default());
            totals.entry(key).or_default().plus_equals(&sums);
        }
    }
    totals.retain(|_, sums| !sums.is_zero());
    totals
}

#[test]
fn any_order_of_arrival_ends_with_the_same_sums() {
    let config = ScoringConfig { correct_within: WITHIN as u32, ..ScoringConfig::default() };
    for seed in 0..2_000 {
        let items = tell(seed);
        let expected = naive(&items);
        let rounds = items.iter().map(|item| item.round(false)).collect();
        assert_eq!(play(1, false, config.clone(), rounds), expected, "story {seed}");

        // Killed somewhere: what was counted is kept, and what can still meet something comes again.
        let cut = seed as usize % (items.len() + 1);
        let (before, after) = items.split_at(cut);
        let counted =
            play(1, false, config.clone(), before.iter().map(|i| i.round(false)).collect());
        let seen = before.iter().filter(|item| matches!(item, Item::Seen(..)));
        let newest = seen.map(Item::step).max().unwrap_or(0);
        let again = before.iter().filter(|item| newest - item.step() <= LEADS + WITHIN);
        let rounds = again.map(|i| i.round(true)).chain(after.iter().map(|i| i.round(false)));
        let mut totals = play(1, false, config.clone(), rounds.collect());
        for (key, sums) in counted {
            totals.entry(key).or_default().plus_equals(&sums);
        }
        totals.retain(|_, sums| !sums.is_zero());
        assert_eq!(totals, expected, "story {seed}, cut at {cut}");
    }
}
