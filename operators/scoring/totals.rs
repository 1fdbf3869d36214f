//! Running totals of the verification, over spans of valid time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use differential_dataflow::VecCollection;
use differential_dataflow::difference::{IsZero, Semigroup};
use physicnet_stream::{SensorId, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use super::operator::Pair;
use super::{Key, Sums};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
/// The grain of the last hour.
const FINE: i64 = 5 * MINUTE;

/// The valid times that scores are taken over, back from the newest observation of each sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// The last hour, to five minutes.
    Hour,
    /// The last day, to an hour.
    Day,
    /// All that was ever verified.
    All,
}

impl Span {
    /// Every span, the shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::All];
}

/// The totals of one key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    all: Sums,
    /// By hours since the epoch.
    hours: BTreeMap<i64, Sums>,
    /// By five minutes since the epoch.
    fine: BTreeMap<i64, Sums>,
}

impl Series {
    fn add(&mut self, valid_time: Time, sums: &Sums) {
        self.all.plus_equals(sums);
        for (buckets, grain) in [(&mut self.hours, HOUR), (&mut self.fine, FINE)] {
            buckets.entry(valid_time.div_euclid(grain)).or_default().plus_equals(sums);
        }
    }

    /// Lets go of what lies before the spans that end at `newest`.
    fn forget(&mut self, newest: Time) {
        let spans = [(&mut self.hours, Span::Day), (&mut self.fine, Span::Hour)];
        for (buckets, span) in spans {
            let first = first(newest, span);
            while buckets.first_key_value().is_some_and(|(at, _)| *at < first) {
                buckets.pop_first();
            }
        }
    }

    /// How many parts of spans are kept.
    #[cfg(test)]
    pub(super) fn buckets(&self) -> usize {
        self.hours.len() + self.fine.len()
    }

    fn over(&self, span: Span, newest: Time) -> Sums {
        let mut total = Sums::default();
        self.add_to(&mut total, span, newest);
        total
    }

    /// Adds what there is over a span to `total`.
    fn add_to(&self, total: &mut Sums, span: Span, newest: Time) {
        let buckets = match span {
            Span::Hour => &self.fine,
            Span::Day => &self.hours,
            Span::All => return total.plus_equals(&self.all),
        };
        buckets.range(first(newest, span)..).for_each(|(_, sums)| total.plus_equals(sums));
    }
}

/// The first bucket of the span that ends at `newest`.
fn first(newest: Time, span: Span) -> i64 {
    match span {
        Span::Hour => newest.div_euclid(FINE) - HOUR / FINE + 1,
        Span::Day => newest.div_euclid(HOUR) - 23,
        Span::All => i64::MIN,
    }
}

/// What was verified so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    series: BTreeMap<Key, Series>,
    /// The newest observation of each sensor.
    newest: BTreeMap<SensorId, Time>,
}

impl Verified {
    /// Adds one difference.
    pub fn add(&mut self, Pair { key, valid_time }: Pair, sums: &Sums) {
        let newest = self.newest.entry(key.sensor.clone()).or_insert(valid_time);
        *newest = (*newest).max(valid_time);
        let newest = *newest;
        let series = self.series.entry(key).or_default();
        series.add(valid_time, sums);
        series.forget(newest);
    }

    /// The sums over a span, without those of nothing.
    pub fn over(&self, span: Span) -> BTreeMap<Key, Sums> {
        let sums = self.series.iter().map(|(key, series)| {
            let newest = self.newest.get(&key.sensor).copied().unwrap_or(i64::MIN);
            (key.clone(), series.over(span, newest))
        });
        sums.filter(|(_, sums)| !sums.is_zero()).collect()
    }

    /// The sums over a span of one sensor.
    pub fn of(&self, sensor: &SensorId, span: Span) -> BTreeMap<Key, Sums> {
        // Keys are in the order of their sensors.
        let least = Key { sensor: sensor.clone(), product: "".into(), lead: 0, channel: 0 };
        let own = self.series.range(least..).take_while(|(key, _)| key.sensor == *sensor);
        let newest = self.newest.get(sensor).copied().unwrap_or(i64::MIN);
        let sums = own.map(|(key, series)| (key.clone(), series.over(span, newest)));
        sums.filter(|(_, sums)| !sums.is_zero()).collect()
    }

    /// The series, as a file keeps them: one by one, so that none has to hold all.
    pub fn series(&self) -> impl Iterator<Item = (&Key, &Series, Time)> {
        let newest = |key: &Key| self.newest.get(&key.sensor).copied().unwrap_or(i64::MIN);
        self.series.iter().map(move |(key, series)| (key, series, newest(key)))
    }

    /// Takes a series back from a file.
    pub fn restore(&mut self, key: Key, series: Series, newest: Time) {
        let known = self.newest.entry(key.sensor.clone()).or_insert(newest);
        *known = (*known).max(newest);
        self.series.insert(key, series);
    }
}

/// How many series are added up before whoever waits for the totals has a turn.
const TURN: usize = 256;

/// The totals of this process: complete where worker 0 runs.
#[derive(Clone, Debug, Default)]
pub struct Totals(Arc<Mutex<Verified>>);

impl Totals {
    /// What they are now.
    pub fn now(&self) -> MutexGuard<'_, Verified> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sums over a span.
    pub fn over(&self, span: Span) -> BTreeMap<Key, Sums> {
        self.now().over(span)
    }

    /// The sums over a span, of all keys that are the same by `by` together. However many there
    /// are, whoever adds meanwhile waits for no more than a few: those that come later have what
    /// was added by then.
    pub fn pooled<K: Ord>(&self, span: Span, by: impl Fn(&Key) -> K) -> BTreeMap<K, Sums> {
        let mut pooled = BTreeMap::<K, Sums>::new();
        let mut last: Option<Key> = None;
        loop {
            let verified = self.now();
            let rest = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut taken = verified.series.range((rest, Bound::Unbounded)).take(TURN).peekable();
            if taken.peek().is_none() {
                break;
            }
            let mut end = None;
            for (key, series) in taken {
                let newest = verified.newest.get(&key.sensor).copied().unwrap_or(i64::MIN);
                series.add_to(pooled.entry(by(key)).or_default(), span, newest);
                end = Some(key.clone());
            }
            drop(verified);
            last = end;
        }
        pooled.retain(|_, sums| !sums.is_zero());
        pooled
    }
}

/// Adds a collection's differences into `totals` on worker 0, as they come.
pub fn total_into<'scope>(
    sums: VecCollection<'scope, u64, Pair, Sums>,
    totals: &Totals,
) -> StreamVec<'scope, u64, ()> {
    let totals = totals.clone();
    let to_first = Exchange::new(|_: &(Pair, u64, Sums)| 0);
    sums.inner.unary(to_first, "Total", move |_cap, _info| {
        move |input, output| {
            input.for_each_stamp(|cap, batches| {
                let mut totals = totals.now();
                for (pair, _, sums) in batches.flat_map(|batch| batch.drain(..)) {
                    totals.add(pair, &sums);
                }
                // Says nothing; it names the container of the output.
                output.session(&cap).give_iterator(std::iter::empty::<()>());
            });
        }
    })
}
