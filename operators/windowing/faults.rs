//! Faults: what a sensor reports and no weather brought is taken for missing.
//!
//! A stuck block, a disturbed line or a noisy frame has values like any others; only their pattern is
//! one that training hardly saw, and its latent lies far from every code. That of a storm may, too, but
//! a storm stays, or comes from near by: so a latent is doubted only where it is a stranger.

use std::ops::Range;
use std::rc::Rc;

use super::operator::{Flow, Slot};
use crate::cropping::{Cropped, Extent};
use crate::layers::Boundary;
use crate::quantization::Coded;

/// How many times as far from its code a doubted latent lies as what is usual near it: the furthest
/// latent of a frame there, in the lower quartile of the window's frames.
const STRANGER: f32 = 3.0;
/// How many cells away is near.
const NEAR: isize = 4;

/// Takes for missing what the frames of a window, oldest first, show in cells whose latents lie more than
/// `limit` from their codes and [`STRANGER`] times as far as the furthest near it in a quarter of the
/// frames; and in the cells around them. That a latent near a hole is strange is the hole's doing.
///
/// A frame that no longer is as it was is a copy; it keeps its features, which recall what it lacks.
pub(super) fn doubt(slots: &mut [Rc<Slot>], limit: f32) {
    let apart: Option<Vec<_>> = slots.iter().map(|slot| slot.coded.apart.as_deref()).collect();
    let (Some(apart), Some(newest)) = (apart, slots.last()) else { return };
    let config = &newest.coded.seat.net.config;
    let Extent { rows, columns, .. } = newest.coded.frame.extent;
    let cells =
        Cells { size: [rows, columns].map(|n| n / config.stride()), boundary: config.boundary };
    let strange = |slot: &Slot, far: f32, cell: usize| {
        far > limit && far > STRANGER * cells.usual(&apart, cell) && cells.whole(&slot.coded, cell)
    };
    let faulty: Vec<Vec<usize>> = (slots.iter().zip(&apart))
        .map(|(slot, frame)| {
            let each = frame.iter().enumerate();
            each.filter(|(cell, far)| strange(slot, **far, *cell)).map(|(cell, _)| cell).collect()
        })
        .collect();
    if faulty.iter().all(Vec::is_empty) {
        return;
    }
    for (slot, doubted) in slots.iter_mut().zip(&faulty) {
        if !doubted.is_empty() {
            let coded =
                Coded { frame: without(&slot.coded, doubted, &cells), ..(*slot.coded).clone() };
            *slot = Rc::new(Slot { coded: Rc::new(coded), flow: Flow::default() });
        }
    }
    if let Some(newest) = slots.last_mut() {
        // Its flow leads to a frame that may have changed.
        let coded = Rc::clone(&newest.coded);
        *newest = Rc::new(Slot { coded, flow: Flow::default() });
    }
}

/// The latent cells of a frame.
struct Cells {
    size: [usize; 2],
    boundary: Boundary,
}

impl Cells {
    /// Those up to `reach` rows and columns away, and itself.
    fn around(&self, cell: usize, reach: isize) -> impl Iterator<Item = usize> {
        let (&Self { size: [height, width], boundary }, reach) = (self, -reach..=reach);
        let (row, column) = ((cell / width) as isize, (cell % width) as isize);
        reach.clone().flat_map(move |y| {
            let start = boundary.index(row + y, height) * width;
            reach.clone().map(move |x| start + boundary.index(column + x, width))
        })
    }

    /// Whether everything in the cell and in those beside it was measured.
    fn whole(&self, coded: &Coded, cell: usize) -> bool {
        self.around(cell, 1)
            .flat_map(|cell| values(coded, cell))
            .all(|row| coded.frame.values[row].iter().all(|value| !value.is_nan()))
    }

    /// How far the furthest latent near a cell lies from its code in a quarter of the frames, at most.
    fn usual(&self, apart: &[&[f32]], cell: usize) -> f32 {
        let furthest =
            |frame: &&[f32]| self.around(cell, NEAR).map(|near| frame[near]).fold(0.0, f32::max);
        let mut each: Vec<f32> = apart.iter().map(furthest).collect();
        let quarter = each.len() / 4;
        *each.select_nth_unstable_by(quarter, f32::total_cmp).1
    }
}

/// Where the values of a cell lie in its frame, row by row.
fn values(coded: &Coded, cell: usize) -> impl Iterator<Item = Range<usize>> {
    let Extent { height, width, columns, .. } = coded.frame.extent;
    let (stride, depth) =
        (coded.seat.net.config.stride(), coded.frame.values.len() / (height * width));
    let across = columns / stride;
    let (top, left) = (cell / across * stride, cell % across * stride);
    let right = (left + stride).min(width);
    (top..(top + stride).min(height))
        .map(move |y| (y * width + left) * depth..(y * width + right) * depth)
}

/// The frame with these cells and those around them missing.
fn without(coded: &Coded, doubted: &[usize], cells: &Cells) -> Cropped {
    let frame = &coded.frame;
    let mut shown = frame.values.as_ref().clone();
    for cell in doubted.iter().flat_map(|&cell| cells.around(cell, 1)) {
        values(coded, cell).for_each(|row| shown[row].fill(f32::NAN));
    }
    let missing = shown.iter().filter(|value| value.is_nan()).count();
    let missing = missing as f32 / shown.len().max(1) as f32;
    Cropped { values: Rc::new(shown), missing, ..frame.clone() }
}
