//! The views of one frame: pure geometry.

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use physicnet_stream::{Sensor, SensorId, Time, route};

use crate::admission::Admitted;
use crate::layers::Boundary;
use crate::model::ModelConfig;

/// How a frame's pixels lie in the padded planes that the network works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Rows of the frame.
    pub height: usize,
    /// Columns of the frame.
    pub width: usize,
    /// Rows of the padded plane: the next multiple of the latent stride.
    pub rows: usize,
    /// Columns of the padded plane.
    pub columns: usize,
}

impl Extent {
    /// The extent of `height` x `width` frames under a network of this latent `stride`.
    pub fn new(height: usize, width: usize, stride: usize) -> Self {
        let (rows, columns) = (height.next_multiple_of(stride), width.next_multiple_of(stride));
        Self { height, width, rows, columns }
    }

    /// Copies `(height, width, depth)` into `(rows, columns, depth)`, repeating the last row
    /// and column.
    pub fn pad(&self, plane: &[f32], depth: usize) -> Vec<f32> {
        let mut padded = Vec::with_capacity(self.rows * self.columns * depth);
        for row in 0..self.rows {
            let start = row.min(self.height - 1) * self.width * depth;
            let line = &plane[start..start + self.width * depth];
            padded.extend_from_slice(line);
            for _ in self.width..self.columns {
                padded.extend_from_slice(&line[(self.width - 1) * depth..]);
            }
        }
        padded
    }
}

/// A local view: a crop of the padded plane, with its origin. Pixels, all even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl View {
    /// How far in from its edge a view must see to say what the whole frame would. The local
    /// level's layers reach 12 pixels.
    pub const HALO: usize = 16;

    /// A square view of a `rows` x `columns` plane, drawn by whose frame it is and when: the same
    /// in any run. `side` is even; a shorter plane is taken whole.
    pub fn draw(
        sensor: &SensorId,
        valid_time: Time,
        (rows, columns): (usize, usize),
        side: usize,
    ) -> Self {
        let mut state = route(sensor) ^ (valid_time as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut origin = |length: usize| {
            // SplitMix64's finaliser.
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            state ^= state >> 31;
            let places = length.saturating_sub(side) / 2 + 1;
            2 * (state % places as u64) as usize
        };
        let (top, left) = (origin(rows), origin(columns));
        Self { top, left, rows: side.min(rows), columns: side.min(columns) }
    }

    /// The view of a plane `(B, H / per, W / per, C)`.
    ///
    /// # Errors
    /// When the view does not lie in the plane.
    pub fn cut(&self, plane: &Tensor, per: usize) -> Result<Tensor> {
        let rows = plane.narrow(1, self.top / per, self.rows / per)?;
        rows.narrow(2, self.left / per, self.columns / per)?.contiguous()
    }

    /// What was computed of the view, `(B, rows, columns, C)`, at its place in a `height` x
    /// `width` plane of zeros, without the halo. The border of an open domain has none.
    ///
    /// # Errors
    /// When the view does not lie in the plane.
    pub fn place(
        &self,
        inside: &Tensor,
        (height, width): (usize, usize),
        boundary: Boundary,
    ) -> Result<Tensor> {
        let one = |plane: &Tensor, dim, from: usize, length: usize, whole: usize| {
            let to = from + length;
            let bordered = length == whole || boundary == Boundary::Open;
            let before = if from == 0 && bordered { 0 } else { Self::HALO };
            let after = if to == whole && bordered { 0 } else { Self::HALO };
            let known = plane.narrow(dim, before, length - before - after)?;
            known.pad_with_zeros(dim, from + before, whole - to + after)
        };
        let rows = one(inside, 1, self.top, self.rows, height)?;
        one(&rows, 2, self.left, self.columns, width)?.contiguous()
    }
}

/// One frame as the encoders see it.
#[derive(Clone)]
pub struct Cropped {
    /// The frame's provenance.
    pub head: Admitted,
    /// Whose frame it is.
    pub sensor: Arc<Sensor>,
    /// How the frame lies in the padded planes.
    pub extent: Extent,
    /// Transformed values, `(height, width, channel)`; NaN where missing.
    pub values: Rc<Vec<f32>>,
    /// The share of missing pixels, 0 to 1.
    pub missing: f32,
}

/// Transforms a frame, channel by channel, into the channel-last plane of the network.
pub fn crop(frame: Admitted, sensor: &Arc<Sensor>, config: &ModelConfig) -> Cropped {
    let [channels, height, width] = frame.shape;
    let mut values = vec![0.0; frame.data.len()];
    let mut missing = 0_usize;
    for (c, variable) in config.variables.iter().enumerate().take(channels) {
        let plane = &frame.data[c * height * width..(c + 1) * height * width];
        for (pixel, &x) in plane.iter().enumerate() {
            let y = variable.transform.forward(x);
            missing += usize::from(y.is_nan());
            values[pixel * channels + c] = y;
        }
    }
    let missing = missing as f32 / values.len().max(1) as f32;
    let extent = Extent::new(height, width, config.stride());
    // The physical values are not needed again: a window holds transformed ones.
    let head = Admitted { data: Rc::default(), ..frame };
    Cropped { head, sensor: Arc::clone(sensor), extent, values: Rc::new(values), missing }
}

/// What the encoders read: `(1, rows, columns, 2 * channel)`, the values (0 where missing)
/// and then the mask (1 where measured). Padding is marked missing.
///
/// # Errors
/// When the device cannot hold it.
pub fn model_input(cropped: &Cropped, device: &Device) -> Result<Tensor> {
    let Extent { height, width, rows, columns } = cropped.extent;
    let channels = cropped.values.len() / (height * width).max(1);
    let mut input = vec![0.0; rows * columns * 2 * channels];
    for row in 0..height {
        for column in 0..width {
            let from = &cropped.values[(row * width + column) * channels..][..channels];
            let to = &mut input[(row * columns + column) * 2 * channels..][..2 * channels];
            for (c, &value) in from.iter().enumerate() {
                if !value.is_nan() {
                    to[c] = value;
                    to[channels + c] = 1.0;
                }
            }
        }
    }
    Tensor::from_vec(input, (1, rows, columns, 2 * channels), device)
}

/// The newest plane `(height, width, channel)` with its missing pixels filled by the newest older plane
/// that measured them. What none measured is 0, the dry or mean value of a transform, or where
/// `natural` says of a channel that 0 is neither, the nearest measured pixel of its row, else of its
/// column. Planes are oldest first.
pub fn fill_missing(planes: &[Rc<Vec<f32>>], width: usize, natural: &[bool]) -> Vec<f32> {
    let Some((newest, older)) = planes.split_last() else { return Vec::new() };
    let mut filled = newest.as_ref().clone();
    let mut lacking = false;
    for (pixel, value) in filled.iter_mut().enumerate() {
        if value.is_nan() {
            let known = older.iter().rev().map(|plane| plane[pixel]).find(|y| !y.is_nan());
            *value = known.unwrap_or(f32::NAN);
            lacking |= known.is_none();
        }
    }
    let channels = natural.len().max(1);
    for channel in (0..channels).filter(|c| lacking && !natural.get(*c).unwrap_or(&true)) {
        let height = filled.len() / (width * channels).max(1);
        let at = |y: usize, x: usize| (y * width + x) * channels + channel;
        (0..height).for_each(|y| spread(&mut filled, (0..width).map(|x| at(y, x))));
        (0..width).for_each(|x| spread(&mut filled, (0..height).map(|y| at(y, x))));
    }
    filled.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 0.0);
    filled
}

/// Along these places, gives what is missing the nearest value that is not.
fn spread(values: &mut [f32], places: impl Iterator<Item = usize>) {
    let places: Vec<usize> = places.collect();
    let known: Vec<usize> = (0..places.len()).filter(|i| !values[places[*i]].is_nan()).collect();
    if known.is_empty() || known.len() == places.len() {
        return;
    }
    for (i, place) in places.iter().enumerate() {
        let after = known.partition_point(|k| *k < i);
        let around = [after.checked_sub(1), Some(after)];
        let near = around.into_iter().flatten().filter_map(|k| known.get(k).copied());
        if let Some(nearest) = near.min_by_key(|k| k.abs_diff(i)) {
            values[*place] = values[places[nearest]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_repeats_the_edge() {
        let extent = Extent::new(2, 3, 4);
        assert_eq!((extent.rows, extent.columns), (4, 4));
        let padded = extent.pad(&[1., 2., 3., 4., 5., 6.], 1);
        assert_eq!(padded[..8], [1., 2., 3., 3., 4., 5., 6., 6.]);
        assert_eq!(padded[8..], [4., 5., 6., 6., 4., 5., 6., 6.]);
    }

    #[test]
    fn where_0_means_nothing_what_nobody_measured_is_like_its_neighbours() {
        // Two channels; the first has no natural 0.
        let nan = f32::NAN;
        let plane = vec![
            nan, nan, 5., 1., nan, nan, nan, nan, //
            nan, nan, nan, nan, nan, nan, 7., 2., //
            nan, nan, nan, nan, nan, nan, nan, nan,
        ];
        let filled = fill_missing(&[Rc::new(plane)], 4, &[false, true]);
        let of = |c: usize| filled.iter().skip(c).step_by(2).copied().collect::<Vec<_>>();
        assert_eq!(of(0), [5., 5., 5., 5., 7., 7., 7., 7., 7., 7., 7., 7.]);
        assert_eq!(of(1), [0., 1., 0., 0., 0., 0., 0., 2., 0., 0., 0., 0.]);
        let nothing = fill_missing(&[Rc::new(vec![nan; 4])], 2, &[false]);
        assert_eq!(nothing, [0.0; 4]);
    }

    #[test]
    fn views_are_drawn_by_sensor_and_time() {
        let draw = |name: &str, time| View::draw(&SensorId::from(name), time, (64, 40), 48);
        assert_eq!(draw("a", 7), draw("a", 7));
        let tops: std::collections::BTreeSet<_> = (0..99).map(|t| draw("a", t * 300).top).collect();
        assert_eq!(tops, (0..9).map(|at| 2 * at).collect());
        assert!((0..99).any(|t| draw("a", t).top != draw("b", t).top));
        assert_eq!((draw("a", 0).left, draw("a", 0).columns), (0, 40));
    }

    #[test]
    fn missing_pixels_take_the_newest_measurement() {
        let planes = [vec![1., f32::NAN, 3.], vec![4., f32::NAN, f32::NAN], vec![f32::NAN; 3]];
        assert_eq!(fill_missing(&planes.map(Rc::new), 3, &[true]), [4., 0., 3.]);
    }
}
