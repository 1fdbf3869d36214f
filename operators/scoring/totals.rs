//! Running totals of the verification, over spans of valid time.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use differential_dataflow::VecCollection;
use differential_dataflow::difference::{IsZero, Semigroup};
use physicnet_stream::{SensorId, Time};
use serde::{Deserialize, Serialize, Serializer};
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

/// Sums by the number of a stretch of time since the epoch, the oldest first. The newest comes and
/// the oldest goes with nearly every frame: nothing else moves then.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "BTreeMap<i64, Sums>")]
struct Buckets(VecDeque<(i64, Sums)>);

impl Buckets {
    fn add(&mut self, at: i64, sums: &Sums) {
        let place = match self.0.back() {
            Some((newest, _)) if *newest == at => self.0.len() - 1,
            _ => self.0.partition_point(|(known, _)| *known < at),
        };
        match self.0.get_mut(place) {
            Some((known, total)) if *known == at => total.plus_equals(sums),
            _ => self.0.insert(place, (at, sums.clone())),
        }
    }

    fn forget(&mut self, before: i64) {
        while self.0.pop_front_if(|(at, _)| *at < before).is_some() {}
    }

    fn since(&self, first: i64) -> impl Iterator<Item = &Sums> {
        let newest = self.0.iter().rev();
        newest.take_while(move |(at, _)| *at >= first).map(|(_, sums)| sums)
    }
}

impl From<BTreeMap<i64, Sums>> for Buckets {
    fn from(sums: BTreeMap<i64, Sums>) -> Self {
        Self(sums.into_iter().collect())
    }
}

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(at, sums)| (at, sums)))
    }
}

/// The totals of one key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    all: Sums,
    hours: Buckets,
    /// By five minutes.
    fine: Buckets,
}

impl Series {
    fn add(&mut self, valid_time: Time, sums: &Sums) {
        self.all.plus_equals(sums);
        self.hours.add(valid_time.div_euclid(HOUR), sums);
        self.fine.add(valid_time.div_euclid(FINE), sums);
    }

    /// Lets go of what lies before the spans that end at `newest`.
    fn forget(&mut self, newest: Time) {
        self.hours.forget(first(newest, Span::Day));
        self.fine.forget(first(newest, Span::Hour));
    }

    /// How many parts of spans are kept.
    #[cfg(test)]
    pub(super) fn buckets(&self) -> usize {
        self.hours.0.len() + self.fine.0.len()
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
        buckets.since(first(newest, span)).for_each(|sums| total.plus_equals(sums));
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
