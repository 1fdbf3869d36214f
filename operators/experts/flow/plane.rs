//! A single-channel image, its halvings and its derivatives.

use crate::layers::Boundary;

/// A row-major image of at least one pixel.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) data: Vec<f32>,
}

impl Plane {
    pub(super) fn zeros(height: usize, width: usize) -> Self {
        Self { height, width, data: vec![0.0; height * width] }
    }

    /// `source` with `before` rows and columns added on its first sides, up to `height x width` in all.
    ///
    /// Values are confined to the documented 0..255, so that no later square can overflow; what is not a number reads 0.
    pub(super) fn padded(
        source: &[f32],
        (rows, columns): (usize, usize),
        before: usize,
        (height, width): (usize, usize),
        boundary: Boundary,
    ) -> Self {
        let place = |i: usize, n: usize| match boundary {
            Boundary::Open => i.saturating_sub(before).min(n - 1),
            Boundary::Periodic => (i as isize - before as isize).rem_euclid(n as isize) as usize,
        };
        let column: Vec<usize> = (0..width).map(|x| place(x, columns)).collect();
        let mut data = Vec::with_capacity(height * width);
        for y in 0..height {
            let row = &source[place(y, rows) * columns..][..columns];
            data.extend(
                column
                    .iter()
                    .map(|&x| if row[x].is_nan() { 0.0 } else { row[x].clamp(0.0, 255.0) }),
            );
        }
        Self { height, width, data }
    }

    /// Half the size by 2 x 2 means; both sides are even by construction.
    pub(super) fn halved(&self) -> Self {
        let (height, width) = (self.height / 2, self.width / 2);
        let mut out = Self::zeros(height, width);
        for y in 0..height {
            let (a, b) = (self.row(2 * y), self.row(2 * y + 1));
            for (x, value) in out.row_mut(y).iter_mut().enumerate() {
                *value = 0.25 * (a[2 * x] + a[2 * x + 1] + b[2 * x] + b[2 * x + 1]);
            }
        }
        out
    }

    /// Twice the size by bilinear interpolation between pixel centres, values times `gain`.
    pub(super) fn doubled(&self, gain: f32) -> Self {
        let (height, width) = (self.height * 2, self.width * 2);
        let mut out = Self::zeros(height, width);
        for y in 0..height {
            let (near, far) = neighbours(y, self.height);
            let (a, b) = (self.row(near), self.row(far));
            for (x, value) in out.row_mut(y).iter_mut().enumerate() {
                let (i, j) = neighbours(x, self.width);
                *value = gain * (0.5625 * a[i] + 0.1875 * (a[j] + b[i]) + 0.0625 * b[j]);
            }
        }
        out
    }

    /// Derivatives along x and y; the nearest pixel stands for what lies outside.
    pub(super) fn gradients(&self) -> (Self, Self) {
        let (mut dx, mut dy) =
            (Self::zeros(self.height, self.width), Self::zeros(self.height, self.width));
        let last = self.width - 1;
        for y in 0..self.height {
            let row = self.row(y);
            let (above, below) =
                (self.row(y.saturating_sub(1)), self.row((y + 1).min(self.height - 1)));
            let to = dx.row_mut(y);
            to[0] = 0.5 * (row[last.min(1)] - row[0]);
            to[last] = 0.5 * (row[last] - row[last.saturating_sub(1)]);
            for (to, around) in to.iter_mut().skip(1).zip(row.windows(3)) {
                *to = 0.5 * (around[2] - around[0]);
            }
            for (to, (below, above)) in dy.row_mut(y).iter_mut().zip(below.iter().zip(above)) {
                *to = 0.5 * (below - above);
            }
        }
        (dx, dy)
    }

    pub(super) fn row(&self, y: usize) -> &[f32] {
        &self.data[y * self.width..][..self.width]
    }

    fn row_mut(&mut self, y: usize) -> &mut [f32] {
        &mut self.data[y * self.width..][..self.width]
    }
}

/// The source pixel that fine pixel `fine` lies in, and the next one on the side it leans to.
fn neighbours(fine: usize, n: usize) -> (usize, usize) {
    let near = fine / 2;
    let far = if fine.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(n - 1) };
    (near, far)
}

/// Bilinear value of `field` at a real place: coordinates are clamped when open, wrapped when periodic.
pub(super) fn bilinear(
    field: &[f32],
    height: usize,
    width: usize,
    y: f32,
    x: f32,
    boundary: Boundary,
) -> f32 {
    let (y0, y1, fy) = support(y, height, boundary);
    let (x0, x1, fx) = support(x, width, boundary);
    let top = mix(field[y0 * width + x0], field[y0 * width + x1], fx);
    let bottom = mix(field[y1 * width + x0], field[y1 * width + x1], fx);
    mix(top, bottom, fy)
}

/// The two pixels beside coordinate `at` of `n`, and the weight of the second.
#[inline(always)]
pub(super) fn support(at: f32, n: usize, boundary: Boundary) -> (usize, usize, f32) {
    let last = n - 1;
    match boundary {
        Boundary::Open => {
            // A coordinate that is not a number becomes 0 here: `max` prefers the number.
            let at = at.max(0.0).min(last as f32);
            let i = at as usize;
            (i, (i + 1).min(last), at - i as f32)
        }
        Boundary::Periodic => {
            let floor = at.floor();
            let i = (floor as i64).rem_euclid(n as i64) as usize;
            (i, if i == last { 0 } else { i + 1 }, if at.is_finite() { at - floor } else { 0.0 })
        }
    }
}

/// `a` and `b` mixed, `share` of the second; exactly `a` at 0, so that a missing `b` of no weight does no harm.
pub(super) fn mix(a: f32, b: f32, share: f32) -> f32 {
    if share == 0.0 { a } else { a + share * (b - a) }
}
