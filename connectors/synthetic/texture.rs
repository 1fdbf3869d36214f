//! Periodic tiles of power-law noise: the texture of rain.

use rustfft::num_complex::Complex64;

use super::fourier::Fourier;
use super::random::Random;

/// An n × n periodic field, n a power of two, of zero mean and unit variance whose amplitude
/// falls as 1 / (f + 1/40)^β with the frequency f in cycles a pixel.
pub(super) struct Texture {
    n: usize,
    values: Vec<f32>,
}

impl Texture {
    /// The tile of `random`, with n the next power of two from `least` pixels on.
    pub(super) fn new(least: usize, steepness: f64, random: &mut Random) -> Self {
        let n = least.next_power_of_two();
        let frequency = |j: usize| j.min(n - j) as f64 / n as f64;
        let mut plane: Vec<Complex64> = (0..n * n)
            .map(|i| {
                let [re, im] = random.normals();
                let f = frequency(i / n).hypot(frequency(i % n));
                Complex64::new(re, im) * (f + 1.0 / 40.0).powf(-steepness)
            })
            .collect();
        plane[0] = Complex64::default();
        Fourier::new(n, n / 2).inverse(&mut plane);
        let square = plane.iter().map(|z| z.re * z.re).sum::<f64>() / (n * n) as f64;
        let scale = square.sqrt().recip();
        Self { n, values: plane.iter().map(|z| (z.re * scale) as f32).collect() }
    }

    /// The value at (x, y) in pixels, bilinear, wrapping around.
    pub(super) fn at(&self, x: f64, y: f64) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (dx, dy) = ((x - left) as f32, (y - top) as f32);
        let mask = self.n - 1;
        // Through i64, so that negative places wrap as they should.
        let (column, row) = (left as i64 as usize & mask, top as i64 as usize & mask);
        let (right, below) = ((column + 1) & mask, (row + 1) & mask);
        let value = |row: usize, column: usize| self.values[row * self.n + column];
        let upper = value(row, column) + dx * (value(row, right) - value(row, column));
        let lower = value(below, column) + dx * (value(below, right) - value(below, column));
        upper + dy * (lower - upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_interpolates() {
        let texture = Texture::new(30, 2.0, &mut Random::new(&[1]));
        assert_eq!(texture.n, 32);
        let square: f32 = texture.values.iter().map(|z| z * z).sum();
        assert!((square / 1024.0 - 1.0).abs() < 1e-4);
        assert_eq!(texture.at(-3.0, 35.0), texture.at(29.0, 3.0));
        let middle = (texture.at(31.0, 4.0) + texture.at(32.0, 4.0)) / 2.0;
        assert!((texture.at(31.5, 4.0) - middle).abs() < 1e-6);
    }
}
