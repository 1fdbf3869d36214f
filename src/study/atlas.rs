//! What each entry of the codebook looks like, and where and when it is used.

use physicnet_operators::cropping::Extent;
use physicnet_operators::quantization::{Coded, saw};
use physicnet_operators::scoring::Fixed;
use physicnet_stream::Time;

use super::About;
use super::timeline::Timeline;

/// The side of a mean patch, in cells: a cell, and what lies around it.
pub const CONTEXT: usize = 4;
/// Rows and columns of the map of where a code is used.
const PLACES: usize = 24;

/// The codebook as the evaluated frames use it. Cells that saw only missing pixels do not count.
#[derive(Clone, Debug, PartialEq)]
pub struct Atlas {
    /// Pixels along a cell.
    pub cell: usize,
    /// One for each entry.
    pub codes: Vec<Code>,
    /// When each is used.
    pub timeline: Timeline,
    /// Cells of all frames.
    pub total: u64,
    /// How often each place was seen at all, row-major over [`Code::places`].
    seen: Vec<u64>,
    /// Rows and columns of the maps of places: those of the first sensor.
    pub shape: [usize; 2],
}

/// One entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Code {
    /// Cells that it names.
    pub count: u64,
    /// Channel by channel, pixel by pixel of the patch: how many were measured, and their sum.
    patch: Vec<(u64, Fixed)>,
    /// How often it is used in each part of the frame; empty where it never is in one like the first
    /// sensor's.
    places: Vec<u64>,
}

/// What one frame adds.
pub(super) struct Taken {
    at: Time,
    cell: usize,
    shape: [usize; 2],
    seen: Vec<u64>,
    counts: Vec<u64>,
    used: Vec<Used>,
}

struct Used {
    code: usize,
    patch: Vec<(u64, f64)>,
    places: Vec<u64>,
}

impl Taken {
    /// What a frame adds; `None` without a codebook.
    pub(super) fn of(coded: &Coded) -> Option<Self> {
        let (codes, [rows, columns]) = coded.map()?;
        let config = &coded.seat.net.config;
        let (cell, channels) = (config.stride(), config.variables.len());
        let Extent { height, width, .. } = coded.frame.extent;
        let side = CONTEXT * cell;
        let shape = shape([rows, columns]);
        let mut taken = Self {
            at: coded.frame.head.valid_time,
            cell,
            shape,
            seen: vec![0; shape[0] * shape[1]],
            counts: vec![0; config.codes],
            used: Vec::new(),
        };
        let mut places = vec![None; config.codes];
        for (at, &code) in codes.iter().enumerate() {
            if coded.frame.missing > 0.0 && !saw(&coded.frame, at, cell) {
                continue;
            }
            let (row, column) = (at / columns, at % columns);
            let place = row * shape[0] / rows * shape[1] + column * shape[1] / columns;
            taken.seen[place] += 1;
            taken.counts[code as usize] += 1;
            let index = *places[code as usize].get_or_insert_with(|| {
                let patch = vec![(0, 0.0); channels * side * side];
                let places = vec![0; shape[0] * shape[1]];
                taken.used.push(Used { code: code as usize, patch, places });
                taken.used.len() - 1
            });
            let used = &mut taken.used[index];
            used.places[place] += 1;
            // The cell lies in the middle.
            let margin = (side - cell) / 2;
            for v in 0..side {
                let Some(y) = (row * cell + v).checked_sub(margin).filter(|y| *y < height) else {
                    continue;
                };
                for u in 0..side {
                    let x = (column * cell + u).checked_sub(margin).filter(|x| *x < width);
                    let Some(x) = x else { continue };
                    let pixel = &coded.frame.values[(y * width + x) * channels..][..channels];
                    for (channel, value) in pixel.iter().enumerate() {
                        if !value.is_nan() {
                            let sum = &mut used.patch[(channel * side + v) * side + u];
                            sum.0 += 1;
                            sum.1 += f64::from(*value);
                        }
                    }
                }
            }
        }
        Some(taken)
    }
}

/// Rows and columns of the parts of a frame of so many rows and columns of cells.
fn shape(cells: [usize; 2]) -> [usize; 2] {
    cells.map(|cells| cells.min(PLACES))
}

impl Atlas {
    /// An empty one, for what is like `taken`. Parts of the frame are those of the first sensor, and
    /// bins those of the fastest: which frame comes first must not be seen.
    pub(super) fn new(taken: &Taken, about: &About) -> Self {
        let cadences = about.sensors.iter().map(|sensor| sensor.cadence.nanoseconds());
        let shape = about.sensors.first().map_or(taken.shape, |sensor| {
            let [_, height, width] = sensor.grid.shape();
            let Extent { rows, columns, .. } = Extent::new(height, width, taken.cell);
            shape([rows / taken.cell, columns / taken.cell])
        });
        Self {
            cell: taken.cell,
            codes: vec![Code::default(); taken.counts.len()],
            timeline: Timeline::new(cadences.min().unwrap_or(1)),
            total: 0,
            seen: vec![0; shape[0] * shape[1]],
            shape,
        }
    }

    pub(super) fn add(&mut self, taken: &Taken) {
        self.timeline.add(taken.at, &taken.counts);
        self.total += taken.counts.iter().sum::<u64>();
        // Frames of another size have other places.
        let placed = self.shape == taken.shape;
        if placed {
            self.seen.iter_mut().zip(&taken.seen).for_each(|(sum, seen)| *sum += seen);
        }
        for used in &taken.used {
            let code = &mut self.codes[used.code];
            code.count += taken.counts[used.code];
            code.patch.resize(used.patch.len(), Default::default());
            for ((n, sum), (count, value)) in code.patch.iter_mut().zip(&used.patch) {
                *n += count;
                *sum += Fixed::new(*value);
            }
            if placed {
                code.places.resize(used.places.len(), 0);
                code.places.iter_mut().zip(&used.places).for_each(|(sum, n)| *sum += n);
            }
        }
    }

    /// The entries that are used, the most used first.
    pub fn used(&self) -> Vec<usize> {
        let mut used: Vec<usize> =
            (0..self.codes.len()).filter(|&code| self.codes[code].count > 0).collect();
        used.sort_by_key(|&code| (std::cmp::Reverse(self.codes[code].count), code));
        used
    }

    /// Two to the entropy of the shares: as many equally used codes would be as various.
    pub fn perplexity(&self) -> f64 {
        let share = |code: &Code| code.count as f64 / self.total as f64;
        let shares = self.codes.iter().map(share).filter(|share| *share > 0.0);
        shares.map(|share| -share * share.log2()).sum::<f64>().exp2()
    }

    /// The mean of a channel around the cells that a code names, as the network sees it, row-major
    /// with [`CONTEXT`] cells along a side; NaN where nothing was measured.
    pub fn patch(&self, code: usize, channel: usize) -> Vec<f32> {
        let size = (CONTEXT * self.cell).pow(2);
        let sums = self.codes[code].patch.chunks_exact(size).nth(channel).unwrap_or_default();
        sums.iter().map(|(n, sum)| (sum.get() / *n as f64) as f32).collect()
    }

    /// The share of the cells of each part of the frame that a code names; NaN where there are none.
    pub fn places(&self, code: usize) -> Vec<f32> {
        let used = self.codes[code].places.iter().copied().chain(std::iter::repeat(0));
        self.seen.iter().zip(used).map(|(seen, used)| used as f32 / *seen as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use physicnet_stream::{Axis, Cadence, Grid, Sensor, Variable};

    use super::*;

    /// A sensor of so many rows, and a frame of it that is all `code`.
    fn seen(rows: usize, minutes: i64, code: usize) -> (Arc<Sensor>, Taken) {
        let grid = Grid {
            variables: vec![Variable { name: "u".into(), units: "1".into() }],
            y: Axis::index("y", rows),
            x: Axis::index("x", 16),
        };
        let cadence = Cadence::new(60_000_000_000 * minutes).unwrap();
        let sensor = Arc::new(Sensor { id: "a".into(), grid, cadence });
        let shape = [rows / 4, 4];
        let mut counts = vec![0; 3];
        counts[code] = (shape[0] * shape[1]) as u64;
        let places = vec![1; shape[0] * shape[1]];
        let used = vec![Used { code, patch: vec![(1, 2.0); 256], places: places.clone() }];
        (sensor, Taken { at: 0, cell: 4, shape, seen: places, counts, used })
    }

    #[test]
    fn which_frame_comes_first_cannot_be_seen() {
        let (first, one) = seen(8, 10, 0);
        let (second, other) = seen(24, 1, 2);
        let about = About {
            history: 3,
            horizon: 2,
            stride: 1,
            periodic: false,
            transforms: Vec::new(),
            sensors: vec![first, second],
        };
        let of = |all: [&Taken; 2]| {
            let mut atlas = Atlas::new(all[0], &about);
            all.into_iter().for_each(|taken| atlas.add(taken));
            atlas
        };
        let atlas = of([&other, &one]);
        assert_eq!(atlas, of([&one, &other]));
        assert_eq!((atlas.used(), atlas.shape), (vec![2, 0], [2, 4]));
        // Used on another grid alone, it is nowhere on this one.
        assert_eq!(atlas.places(0), [1.0; 8]);
        assert_eq!(atlas.places(2), [0.0; 8]);
    }
}
