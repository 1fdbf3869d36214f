//! Symmetries of a field and of the motion in it.

use serde::{Deserialize, Serialize};

use super::rng::Rng;

/// Shifts of a periodic domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Roll {
    /// None.
    #[default]
    None,
    /// By `s` rows and `-s` columns: right where the forcing depends on x + y alone, as in the
    /// simulated Navier-Stokes flow.
    Diagonal,
    /// By any number of rows and columns: right where nothing is fixed in space.
    Any,
}

/// Which symmetries the data has; a false one teaches wrong physics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Mirror images, for scalar fields without a preferred direction. Wrong for vorticity,
    /// which changes its sign, and for components of vectors.
    pub flips: bool,
    /// Swapped axes, under the same condition.
    pub transpose: bool,
    /// Shifts of a periodic domain.
    pub roll: Roll,
    /// The largest standard deviation, in transformed units, of noise added to the inputs; each
    /// window draws its own. Targets stay clean.
    pub noise: f64,
}

/// One symmetry, applied in the order roll, flips, transpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symmetry {
    /// Rows and columns to shift by.
    pub(crate) roll: [usize; 2],
    /// Reverse the rows.
    pub(crate) flip_y: bool,
    /// Reverse the columns.
    pub(crate) flip_x: bool,
    /// Swap rows and columns.
    pub(crate) transpose: bool,
}

impl Augment {
    /// A symmetry at random of frames of this size.
    pub(crate) fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Symmetry {
        let mut coin = || rng.bits() >> 63 == 1;
        let (flip_y, flip_x, transpose) = (coin(), coin(), coin());
        let roll = match self.roll {
            Roll::None => [0, 0],
            Roll::Diagonal => {
                let shift = rng.below(height.max(width));
                [shift % height, (width - shift % width) % width]
            }
            Roll::Any => [rng.below(height), rng.below(width)],
        };
        Symmetry {
            roll,
            flip_y: self.flips && flip_y,
            flip_x: self.flips && flip_x,
            transpose: self.transpose && transpose,
        }
    }
}

impl Symmetry {
    /// `[height, width]` afterwards.
    pub(crate) fn size(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        if self.transpose { [width, height] } else { [height, width] }
    }

    /// The image of scalars `(height, width, depth)`.
    pub(crate) fn scalars(&self, plane: &[f32], size: [usize; 2], depth: usize) -> Vec<f32> {
        let [height, width] = size;
        let [rows, columns] = self.size(size);
        let mut image = Vec::with_capacity(plane.len());
        for row in 0..rows {
            for column in 0..columns {
                let (y, x) = if self.transpose { (column, row) } else { (row, column) };
                let y = if self.flip_y { height - 1 - y } else { y };
                let x = if self.flip_x { width - 1 - x } else { x };
                let y = (y + height - self.roll[0]) % height;
                let x = (x + width - self.roll[1]) % width;
                image.extend_from_slice(&plane[(y * width + x) * depth..][..depth]);
            }
        }
        image
    }

    /// The image of displacements `(height, width, 2)`, (dx, dy): their places move and their
    /// components turn.
    pub(crate) fn vectors(&self, field: &[f32], size: [usize; 2]) -> Vec<f32> {
        let mut image = self.scalars(field, size, 2);
        for vector in image.chunks_exact_mut(2) {
            if self.flip_x {
                vector[0] = -vector[0];
            }
            if self.flip_y {
                vector[1] = -vector[1];
            }
            if self.transpose {
                vector.swap(0, 1);
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use physicnet_operators::layers::{Boundary, warp};

    use super::*;

    /// Warping the image along the image's flow is the image of the warped field: the law that
    /// vectors must turn by.
    #[test]
    fn symmetries_commute_with_advection() {
        let (h, w) = (5, 7);
        let mut rng = Rng::keyed(&[3]);
        let field: Vec<f32> = (0..h * w).map(|_| rng.normal() as f32).collect();
        let flow: Vec<f32> = (0..2 * h * w).map(|_| 1.5 * rng.normal() as f32).collect();
        let carried = |field: &[f32], flow: &[f32], [h, w]: [usize; 2]| -> Vec<f32> {
            let image = Tensor::from_slice(field, (1, h, w, 1), &Device::Cpu).unwrap();
            let flow = Tensor::from_slice(flow, (1, h, w, 2), &Device::Cpu).unwrap();
            let out = warp(&image, &flow, Boundary::Periodic).unwrap();
            out.flatten_all().unwrap().to_vec1().unwrap()
        };
        let out = carried(&field, &flow, [h, w]);
        for case in 0..16 {
            let symmetry = Symmetry {
                roll: if case & 8 > 0 { [2, 5] } else { [0, 0] },
                flip_y: case & 1 > 0,
                flip_x: case & 2 > 0,
                transpose: case & 4 > 0,
            };
            let first = symmetry.scalars(&out, [h, w], 1);
            let moved = symmetry.scalars(&field, [h, w], 1);
            let turned = symmetry.vectors(&flow, [h, w]);
            let after = carried(&moved, &turned, symmetry.size([h, w]));
            for (a, b) in first.iter().zip(&after) {
                assert!((a - b).abs() < 1e-4, "{symmetry:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn a_diagonal_roll_keeps_x_plus_y() {
        let n = 8;
        let forcing: Vec<f32> = (0..n * n).map(|i| ((i / n + i % n) % n) as f32).collect();
        let augment = Augment { roll: Roll::Diagonal, ..Augment::default() };
        for seed in 0..5 {
            let symmetry = augment.draw(n, n, &mut Rng::keyed(&[seed]));
            assert_eq!(symmetry.scalars(&forcing, [n, n], 1), forcing);
        }
    }
}
