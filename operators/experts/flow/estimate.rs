//! The coarse-to-fine estimate: search, densify and refine at every level.

use super::plane::Plane;
use super::refine::{Refinement, refine};
use super::search::{PATCH, densify, search};
use crate::layers::Boundary;

/// How far beyond a periodic boundary the images are continued before the pyramid, in pixels.
const WRAP: usize = 32;

/// What trades the time of an estimate for its quality.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowConfig {
    /// The finest pyramid level that is searched: 0 is full resolution, each further level half of it.
    pub finest: usize,
    /// Pixels between the patches of a level.
    pub stride: usize,
    /// Descent steps a patch may take, in both passes together.
    pub iterations: usize,
    /// Weight of smoothness in the refinement.
    pub smoothness: f32,
    /// Weight of constant brightness in the refinement.
    pub brightness: f32,
    /// Weight of constant gradient in the refinement.
    pub gradient: f32,
    /// Linearisations of the refinement, each solved by `sweeps` of over-relaxation.
    pub rounds: usize,
    /// Sweeps of over-relaxation for each linearisation.
    pub sweeps: usize,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            finest: 1,
            stride: 4,
            iterations: 25,
            smoothness: 14.0,
            brightness: 5.0,
            gradient: 10.0,
            rounds: 5,
            sweeps: 5,
        }
    }
}

/// Dense backward flow `v` with `newest(p) ~ previous(p + v(p))`, as [`FlowConfig::default`] has it.
///
/// The images are `[y][x]` intensities in 0..255 (see [`rain_intensity`](super::rain_intensity) and
/// [`pair_intensity`](super::pair_intensity)); values beyond are clipped, and NaN reads 0, so a caller that has
/// missing pixels should fill them alike in both images. The result is `[y][x][dx, dy]` in pixels and always finite.
///
/// # Panics
/// If a slice does not hold `height * width` values.
pub fn estimate(
    newest: &[f32],
    previous: &[f32],
    height: usize,
    width: usize,
    boundary: Boundary,
) -> Vec<f32> {
    estimate_with(&FlowConfig::default(), newest, previous, height, width, boundary)
}

/// [`estimate`] under another configuration.
///
/// # Panics
/// If a slice does not hold `height * width` values.
pub fn estimate_with(
    config: &FlowConfig,
    newest: &[f32],
    previous: &[f32],
    height: usize,
    width: usize,
    boundary: Boundary,
) -> Vec<f32> {
    assert_eq!(newest.len(), height * width, "the newest image has one value a pixel");
    assert_eq!(previous.len(), height * width, "the previous image has one value a pixel");
    if height * width == 0 {
        return Vec::new();
    }
    let before = if boundary == Boundary::Periodic { WRAP } else { 0 };
    let coarsest = coarsest(height + 2 * before, width + 2 * before);
    let finest = config.finest.min(coarsest);
    // Sides that every level halves exactly; the coarsest level holds a patch.
    let fit = |n: usize| (n + 2 * before).next_multiple_of(1 << coarsest).max(PATCH << coarsest);
    let size = (fit(height), fit(width));
    let pyramid = |image: &[f32]| {
        let mut levels = vec![Plane::padded(image, (height, width), before, size, boundary)];
        for level in 0..coarsest {
            levels.push(levels[level].halved());
        }
        levels
    };
    let (newest, previous) = (pyramid(newest), pyramid(previous));

    let weights = Refinement::from(config);
    let mut flow = [
        Plane::zeros(newest[coarsest].height, newest[coarsest].width),
        Plane::zeros(newest[coarsest].height, newest[coarsest].width),
    ];
    for level in (finest..=coarsest).rev() {
        if level < coarsest {
            flow = flow.map(|component| component.doubled(2.0));
        }
        let (to, from) = (&newest[level], &previous[level]);
        let patches = search(to, from, &flow, config.stride.clamp(1, PATCH), config.iterations);
        flow = densify(to, from, &patches);
        refine(to, from, &mut flow, &weights);
    }
    for _ in 0..finest {
        flow = flow.map(|component| component.doubled(2.0));
    }

    let mut out = Vec::with_capacity(2 * height * width);
    for y in 0..height {
        for x in 0..width {
            let at = (y + before) * size.1 + x + before;
            out.extend(
                flow.each_ref()
                    .map(|component| component.data[at])
                    .map(|v| if v.is_finite() { v } else { 0.0 }),
            );
        }
    }
    out
}

/// The level at which the longer side is about four patches, as long as the shorter one holds a patch.
fn coarsest(height: usize, width: usize) -> usize {
    let (short, long) = (height.min(width), height.max(width));
    let wanted = (long as f32 / (4 * PATCH) as f32 + 0.5).log2().max(0.0) as usize;
    let possible = (short / PATCH).max(1).ilog2() as usize;
    wanted.min(possible)
}

impl From<&FlowConfig> for Refinement {
    fn from(config: &FlowConfig) -> Self {
        let &FlowConfig {
            finest: _,
            stride: _,
            iterations: _,
            smoothness,
            brightness,
            gradient,
            rounds,
            sweeps,
        } = config;
        Self { smoothness, brightness, gradient, rounds, sweeps }
    }
}
