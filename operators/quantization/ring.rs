//! The codes of a sensor's last frames, as counts that follow the frames exactly.

use std::collections::VecDeque;

use crate::cropping::{Cropped, Extent};

/// What one frame adds to a histogram.
pub struct Tally {
    /// Each code that it used, and how often; cells that saw missing pixels alone do not count.
    codes: Vec<(u32, u32)>,
    /// The share of missing pixels.
    missing: f32,
}

impl Tally {
    /// Counts the `codes` of a frame, row by row of its cells, `stride` pixels a side.
    pub fn of(frame: &Cropped, codes: &[u32], stride: usize) -> Self {
        let whole = frame.missing == 0.0;
        let cells = codes.iter().enumerate().filter(|(at, _)| whole || saw(frame, *at, stride));
        let mut used: Vec<u32> = cells.map(|(_, code)| *code).collect();
        used.sort_unstable();
        let alike = used.chunk_by(|a, b| a == b);
        let codes = alike.map(|same| (same[0], same.len() as u32)).collect();
        Self { codes, missing: frame.missing }
    }
}

/// Whether the cell saw a measured pixel. Every cell has pixels that are not padding.
fn saw(frame: &Cropped, cell: usize, stride: usize) -> bool {
    let Extent { height, width, columns, .. } = frame.extent;
    let depth = frame.values.len() / (height * width);
    let across = columns / stride;
    let (top, left) = (cell / across * stride, cell % across * stride);
    let right = (left + stride).min(width);
    (top..(top + stride).min(height)).any(|y| {
        let line = &frame.values[(y * width + left) * depth..(y * width + right) * depth];
        line.iter().any(|value| !value.is_nan())
    })
}

/// The last `window` frames of a sensor.
pub struct Ring {
    window: usize,
    frames: VecDeque<Tally>,
    counts: Vec<u64>,
}

impl Ring {
    /// An empty ring for a codebook of `codes` entries.
    pub fn new(window: usize, codes: usize) -> Self {
        Self { window, frames: VecDeque::new(), counts: vec![0; codes] }
    }

    /// Adds a frame; the oldest goes when there are more than `window`.
    pub fn push(&mut self, frame: Tally) {
        for &(code, count) in &frame.codes {
            self.counts[code as usize] += u64::from(count);
        }
        self.frames.push_back(frame);
        if self.frames.len() > self.window {
            for (code, count) in self.frames.pop_front().into_iter().flat_map(|old| old.codes) {
                self.counts[code as usize] -= u64::from(count);
            }
        }
    }

    /// How often each code was used; `None` before the ring is full, for a short sequence lies
    /// further from any histogram than a long one.
    pub fn counts(&self) -> Option<&[u64]> {
        (self.frames.len() == self.window).then_some(&self.counts)
    }

    /// How many frames there are, at most `window`.
    pub fn held(&self) -> usize {
        self.frames.len()
    }

    /// The share of missing pixels over the frames, 0 to 1.
    pub fn missing(&self) -> f64 {
        // Summed anew each time: a running sum would keep the rounding of frames long gone.
        let sum: f64 = self.frames.iter().map(|frame| f64::from(frame.missing)).sum();
        sum / self.frames.len().max(1) as f64
    }
}
