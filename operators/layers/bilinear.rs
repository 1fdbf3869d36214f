//! Bilinear look-ups, sixteen places at a time.
//!
//! Where a place lies is worked out in vectors. The four pixels around each pixel stand side by
//! side in a table, so that a look-up is one load, and what lies past a border is settled when the
//! table is made. No multiply-add is fused: vectors and portable loop give the same bits.

use super::Boundary;

/// Places that are worked out together.
pub(crate) const LANES: usize = 16;

/// What one look-up costs, in multiply-adds of a convolution.
pub(crate) const LOOK_UP: usize = 100;

/// Where one axis of the places lies: the two indices around each, the share of the second, and
/// 1 where the coordinate moves with the step (0 where it is clamped).
pub(crate) struct Axis {
    pub(super) low: [i32; LANES],
    pub(super) high: [i32; LANES],
    pub(super) share: [f32; LANES],
    pub(super) free: [f32; LANES],
}

impl Axis {
    /// `step` pixels from `at` on a side of `len` pixels; a step that is not finite counts as none.
    #[inline(always)]
    pub(crate) fn new(
        at: &[f32; LANES],
        step: &[f32; LANES],
        len: usize,
        boundary: Boundary,
    ) -> Self {
        let (size, last) = (len as f32, (len - 1) as f32);
        let mut axis =
            Self { low: [0; LANES], high: [0; LANES], share: [0.0; LANES], free: [1.0; LANES] };
        let mut to = [0.0; LANES];
        for j in 0..LANES {
            to[j] = at[j] + if step[j].is_finite() { step[j] } else { 0.0 };
        }
        match boundary {
            Boundary::Open => {
                for (j, to) in to.into_iter().enumerate() {
                    let inside = to.max(0.0).min(last);
                    // On the last pixel the share is 0: no displacement gives exactly the image.
                    let low = inside.floor();
                    axis.low[j] = whole(low);
                    axis.high[j] = whole((low + 1.0).min(last));
                    axis.share[j] = inside - low;
                    axis.free[j] = if inside == to && last > 0.0 { 1.0 } else { 0.0 };
                }
            }
            Boundary::Periodic => {
                for (j, to) in to.into_iter().enumerate() {
                    let floor = to.floor();
                    let low = (floor - size * (floor / size).floor()).max(0.0).min(last);
                    axis.low[j] = whole(low);
                    axis.high[j] = whole(if low == last { 0.0 } else { low + 1.0 });
                    axis.share[j] = to - floor;
                }
            }
        }
        axis
    }
}

/// The largest side that places can be told on.
pub(crate) const LONGEST: usize = 1 << 22;

/// A whole number below [`LONGEST`] as one. A cast would ask what to do with all others, one by one.
#[inline(always)]
fn whole(value: f32) -> i32 {
    const UNITS: f32 = (1 << 23) as f32;
    (value + UNITS).to_bits() as i32 - UNITS.to_bits() as i32
}

/// One channel of an image: at each pixel its value, that of the next one to the right, and of the
/// two below these.
pub(crate) struct Quads {
    columns: usize,
    values: Vec<[f32; 4]>,
}

impl Quads {
    /// Channel `k` of an image `[y][x][channels]`.
    pub(crate) fn new(
        image: &[f32],
        (rows, columns): (usize, usize),
        (channels, k): (usize, usize),
        boundary: Boundary,
    ) -> Self {
        let mut values = Vec::with_capacity(rows * columns);
        let row = |y: usize| &image[y * columns * channels..][..columns * channels];
        for y in 0..rows {
            let (upper, lower) = (row(y), row(boundary.index(y as isize + 1, rows)));
            let quad = |x: usize, next: usize| {
                let (x, next) = (x * channels + k, next * channels + k);
                [upper[x], upper[next], lower[x], lower[next]]
            };
            values.extend((1..columns).map(|next| quad(next - 1, next)));
            values.push(quad(columns - 1, boundary.index(columns as isize, columns)));
        }
        Self { columns, values }
    }

    /// The values at some places. `VECTORS` says that the processor has AVX2.
    #[inline(always)]
    pub(crate) fn at<const VECTORS: bool>(&self, x: &Axis, y: &Axis) -> [f32; LANES] {
        #[cfg(target_arch = "x86_64")]
        if VECTORS {
            // SAFETY: the caller says that the processor has the features.
            #[allow(unsafe_code)]
            return unsafe { super::avx2::mix(&self.values, self.columns as i32, x, y) };
        }
        std::array::from_fn(|j| {
            let at = y.low[j] as usize * self.columns + x.low[j] as usize;
            let [a, b, c, d] = self.values[at];
            let (upper, lower) = (a + (b - a) * x.share[j], c + (d - c) * x.share[j]);
            upper + (lower - upper) * y.share[j]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Kernel, run};
    use super::*;

    struct LookUp<'a>(&'a Quads, &'a Axis, &'a Axis, &'a mut [f32; LANES]);

    impl Kernel for LookUp<'_> {
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            *self.3 = self.0.at::<FMA>(self.1, self.2);
        }
    }

    #[test]
    fn vectors_and_the_portable_loop_give_the_same_bits() {
        let value = |at: usize| (1.7 * at as f32).sin() * 1e3_f32.powi(at as i32 % 3 - 1);
        for (rows, columns, channels) in [(1, 1, 1), (3, 7, 2), (20, 33, 3)] {
            let image: Vec<f32> = (0..rows * columns * channels).map(value).collect();
            for boundary in [Boundary::Open, Boundary::Periodic] {
                for k in 0..channels {
                    let quads = Quads::new(&image, (rows, columns), (channels, k), boundary);
                    let step =
                        |phase: f32| std::array::from_fn(|j| 30.0 * (j as f32 + phase).sin());
                    let x = Axis::new(&[1.0; LANES], &step(0.0), columns, boundary);
                    let y = Axis::new(&[2.0; LANES], &step(0.5), rows, boundary);
                    let mut fast = [0.0; LANES];
                    run(LookUp(&quads, &x, &y, &mut fast));
                    assert_eq!(fast.map(f32::to_bits), quads.at::<false>(&x, &y).map(f32::to_bits));
                }
            }
        }
    }
}
