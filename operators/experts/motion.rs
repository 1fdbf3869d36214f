//! The classical motion of a window: flow between its two newest frames.

use crate::cropping::Transform;
use crate::experts::flow;
use crate::layers::Boundary;

/// The backward flow in pixels, `(height, width, 2)`, from `newest` to `previous`: two planes
/// of one channel in transformed units, missing pixels filled. Rain is compared in decibels of
/// rate, any other field by the range of the pair.
pub fn between(
    newest: &[f32],
    previous: &[f32],
    height: usize,
    width: usize,
    transform: &Transform,
    boundary: Boundary,
) -> Vec<f32> {
    let (newest, previous) = match transform {
        Transform::LogRate { .. } => {
            let rain = |plane: &[f32]| {
                let rate: Vec<f32> = plane.iter().map(|&v| transform.inverse(v)).collect();
                flow::rain_intensity(&rate)
            };
            (rain(newest), rain(previous))
        }
        Transform::Identity
        | Transform::Standardise { .. }
        | Transform::Log1p { .. }
        | Transform::Sqrt { .. } => flow::pair_intensity(newest, previous),
    };
    flow::estimate(&newest, &previous, height, width, boundary)
}
