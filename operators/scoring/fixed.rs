//! Real numbers as integers, so that what was added can be taken away to the bit.

use std::ops::{AddAssign, Neg};

use serde::{Deserialize, Serialize};

/// One unit of the coarse part.
const COARSE: f64 = (1_u64 << 20) as f64;
/// One unit of the fine part: 2^100.
const FINE: f64 = (1_u128 << 100) as f64;
/// What is smaller can be summed: 2^80.
const LARGE: f64 = (1_u128 << 80) as f64;

/// A sum of real numbers in fixed point: `coarse / 2^20 + fine / 2^100`.
///
/// Two parts, because no single scale holds both the squares of a geopotential (1e11) and those
/// of a humidity (1e-8). A number below 2^80 in size keeps all the bits of its f64 down to 2^-101;
/// 2^27 such numbers fit. Addition is exact, commutative and has an inverse: a group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fixed {
    coarse: i128,
    fine: i128,
}

impl Fixed {
    /// `value` in fixed point; NaN is 0, what is too large saturates.
    pub fn new(value: f64) -> Self {
        let coarse = (value * COARSE).round();
        let rest = value - coarse / COARSE;
        // An overflowing value has no meaningful rest.
        let fine = if rest.is_finite() { (rest * FINE).round() } else { 0.0 };
        Self { coarse: coarse as i128, fine: fine as i128 }
    }

    /// The nearest f64, to within its rounding.
    pub fn get(self) -> f64 {
        self.coarse as f64 / COARSE + self.fine as f64 / FINE
    }

    /// Whether the sum is exactly nothing.
    pub fn is_zero(self) -> bool {
        self.coarse == 0 && self.fine == 0
    }

    /// Whether it is so large that a sum of such numbers may be anything.
    pub fn is_large(self) -> bool {
        self.get().abs() >= LARGE
    }

    /// The sum taken `times` times.
    pub fn times(self, times: i128) -> Self {
        Self { coarse: self.coarse.wrapping_mul(times), fine: self.fine.wrapping_mul(times) }
    }
}

impl AddAssign for Fixed {
    fn add_assign(&mut self, other: Self) {
        // Wrapping: what saturated could not be taken away again.
        self.coarse = self.coarse.wrapping_add(other.coarse);
        self.fine = self.fine.wrapping_add(other.fine);
    }
}

impl Neg for Fixed {
    type Output = Self;

    fn neg(self) -> Self {
        self.times(-1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_come_back() {
        for value in [0.0, 1.0, -0.1, 3e-9, 1.7e-20, 2.5e17, -123_456.789, 1e23] {
            let back = Fixed::new(value).get();
            assert!((back - value).abs() <= value.abs() * 2e-16 + 1e-30, "{value} {back}");
        }
        assert!(Fixed::new(f64::NAN).is_zero());
        assert!(Fixed::new(f64::INFINITY).get() > 1e30);
        let large = |value: f64| Fixed::new(value).is_large();
        assert!(large(1e25) && large(-1e60) && large(f64::NEG_INFINITY) && !large(-1e24));
    }

    #[test]
    fn a_sum_minus_its_parts_is_nothing() {
        let small = (0..100).map(|i| Fixed::new(1e9 / f64::from(1 + i * i)));
        // A fill value that nobody decoded, squared, is beyond any scale.
        let values: Vec<_> = small.chain([Fixed::new(1e80); 3]).collect();
        let mut sum = Fixed::default();
        values.iter().for_each(|&v| sum += v);
        values.iter().rev().for_each(|&v| sum += -v);
        assert!(sum.is_zero());
    }
}
