//! Where what came lay among the values around, as it was verified.

use serde::{Deserialize, Serialize};

use super::around::{AROUND, KINDS, Place};

/// Ranks: below all values, between two of them, above all.
const RANKS: usize = AROUND + 1;
/// Classes of how far beyond it lay, and the largest with a class of its own, in spreads.
const BEYOND: usize = 24;
const FURTHEST: f32 = 4.0;
/// How much finer classes are about 0 than there.
const BEND: f32 = 8.0;
/// Fewer pixels of a kind than this say too little: those of all kinds stand in for the rest.
const ENOUGH: f32 = 100.0;
/// As many that came next to nothing beyond stand in for the distances of a kind that has fewer: those of
/// another kind may be larger than all that a high one can add.
const NEAR: f32 = 4.0;
/// Standard normal numbers at which a rank is given: so many from `-EDGE` to `EDGE`.
const KNOTS: usize = 33;
pub(super) const EDGE: f32 = 3.2;
/// Shares at which the distance beyond is given: so many from 0 to 1, closer where it is rarer.
const TAIL: usize = 13;

/// Values of a curve: ranks by kind, then distances beyond by kind, below and above.
pub(super) const CURVE: usize = KINDS * (KNOTS + 2 * TAIL);

/// The histograms of one lead, channel and reach; empty before anything was verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ranks {
    ranks: Vec<f32>,
    beyond: Vec<f32>,
    /// The loss of late, and of how many pixels.
    loss: [f32; 2],
}

impl Ranks {
    pub(super) fn known(&self) -> bool {
        !self.ranks.is_empty()
    }

    /// The mean loss of late.
    pub(super) fn loss(&self) -> f32 {
        self.loss[0] / self.loss[1]
    }

    /// Takes in losses.
    pub(super) fn lose(&mut self, sum: f32, pixels: f32) {
        self.loss = [self.loss[0] + sum, self.loss[1] + pixels];
    }

    /// What has been counted counts `decay` times as much from now on.
    pub(super) fn fade(&mut self, decay: f32) {
        let all = self.ranks.iter_mut().chain(&mut self.beyond).chain(&mut self.loss);
        all.for_each(|count| *count *= decay);
    }

    /// Takes in a pixel: `came` at a place, both transformed; `lot` decides between equal ranks.
    pub(super) fn take(&mut self, place: &Place, came: f32, spread: f32, lot: u64) {
        self.ranks.resize(KINDS * RANKS, 0.0);
        self.beyond.resize(KINDS * 2 * BEYOND, 0.0);
        let below = place.values.iter().filter(|value| **value < came).count();
        let equal = place.values.iter().filter(|value| **value == came).count();
        // What is there already is not beyond it: flat fields stay flat.
        let (least, most) = match equal {
            0 => (below, below),
            _ => (below.max(1), (below + equal).min(AROUND - 1)),
        };
        let rank = least + (lot % (most - least + 1) as u64) as usize;
        self.ranks[place.kind * RANKS + rank] += 1.0;
        let (side, far) = match rank {
            0 => (0, place.values[0] - came),
            AROUND => (1, came - place.values[AROUND - 1]),
            _ => return,
        };
        let at = (place.kind * 2 + side) * BEYOND + class(far / spread);
        self.beyond[at] += 1.0;
    }

    /// Appends the curve by which values are drawn.
    pub(super) fn curve(&self, curve: &mut Vec<f32>) {
        filled(&self.ranks).for_each(|counts| positions(&counts, curve));
        for counts in self.beyond.as_chunks::<BEYOND>().0 {
            let mut counts = *counts;
            counts[0] += (NEAR - counts.iter().sum::<f32>()).max(0.0);
            distances(&counts, curve);
        }
    }
}

/// The curve before anything was verified: the values around come as often as one another, and nothing
/// beyond them.
pub(super) fn prior(curve: &mut Vec<f32>) {
    (0..KINDS).for_each(|_| positions(&[1.0; RANKS], curve));
    curve.resize(curve.len() + KINDS * 2 * TAIL, 0.0);
}

/// Histograms of ranks; those of all kinds stand in for what lacks to enough.
fn filled(counts: &[f32]) -> impl Iterator<Item = [f32; RANKS]> {
    let (all, _) = counts.as_chunks::<RANKS>();
    let pooled: [f32; RANKS] = std::array::from_fn(|k| all.iter().map(|one| one[k]).sum());
    let whole = pooled.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    all.iter().map(move |own| {
        let lacking = (ENOUGH - own.iter().sum::<f32>()).max(0.0) / whole;
        std::array::from_fn(|k| own[k] + lacking * pooled[k])
    })
}

/// The class of a distance: even steps of `asinh(BEND d)`.
fn class(distance: f32) -> usize {
    let share = (BEND * distance.max(0.0)).asinh() / (BEND * FURTHEST).asinh();
    ((share * BEYOND as f32) as usize).min(BEYOND - 1)
}

/// Where class `at` begins.
fn edge(at: usize) -> f32 {
    (at as f32 / BEYOND as f32 * (BEND * FURTHEST).asinh()).sinh() / BEND
}

/// Where, among so many classes, lie these shares of the counts: classes and the part of one.
fn places(counts: &[f32], shares: impl Iterator<Item = f32>) -> impl Iterator<Item = f32> {
    let all: f32 = counts.iter().sum();
    let (mut at, mut below) = (0, 0.0);
    shares.map(move |share| {
        let wanted = all * share;
        while at + 1 < counts.len() && below + counts[at] < wanted {
            below += counts[at];
            at += 1;
        }
        let within = if counts[at] > 0.0 { (wanted - below) / counts[at] } else { 0.5 };
        at as f32 + within.clamp(0.0, 1.0)
    })
}

/// Appends the ranks of the knots' normal numbers.
fn positions(counts: &[f32], curve: &mut Vec<f32>) {
    let knots = (0..KNOTS).map(|k| share(EDGE * (2.0 * k as f32 / (KNOTS - 1) as f32 - 1.0)));
    curve.extend(places(counts, knots));
}

/// Appends the distances of the tail's shares.
fn distances(counts: &[f32], curve: &mut Vec<f32>) {
    let shares = (0..TAIL).map(|k| 1.0 - (1.0 - k as f32 / (TAIL - 1) as f32).powi(2));
    curve.extend(places(counts, shares).map(|place| {
        let at = (place as usize).min(BEYOND - 1);
        edge(at) + (place - at as f32) * (edge(at + 1) - edge(at))
    }));
}

/// The transformed value that a curve gives to a standard normal number at a place.
pub(super) fn value(curve: &[f32], place: &Place, spread: f32, normal: f32) -> f32 {
    let along = (normal.clamp(-EDGE, EDGE) + EDGE) * ((KNOTS - 1) as f32 / (2.0 * EDGE));
    let rank = between(&curve[place.kind * KNOTS..][..KNOTS], along);
    let at = (rank as usize).min(AROUND);
    let share = rank - at as f32;
    let tail = |side: usize, share: f32| {
        let from = KINDS * KNOTS + (place.kind * 2 + side) * TAIL;
        let along = (1.0 - (1.0 - share).max(0.0).sqrt()) * (TAIL - 1) as f32;
        spread * between(&curve[from..][..TAIL], along)
    };
    match at {
        0 => place.values[0] - tail(0, 1.0 - share),
        AROUND => place.values[AROUND - 1] + tail(1, share),
        _ => place.values[at - 1] + share * (place.values[at] - place.values[at - 1]),
    }
}

/// The value of evenly spaced ones at a place between them.
fn between(values: &[f32], place: f32) -> f32 {
    let low = (place as usize).min(values.len() - 2);
    values[low] + (place - low as f32) * (values[low + 1] - values[low])
}

/// The share of standard normal numbers below `x`: Abramowitz and Stegun 1964, 26.2.17, to 1e-7.
pub(super) fn share(x: f32) -> f32 {
    let (size, x) = (f64::from(x.abs()), f64::from(x));
    let t = 1.0 / (1.0 + 0.231_641_9 * size);
    let terms = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    let tail = (-0.5 * size * size).exp() / std::f64::consts::TAU.sqrt() * sum;
    (if x < 0.0 { tail } else { 1.0 - tail }) as f32
}
