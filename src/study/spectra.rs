//! How much of a field's variance lies at which wavelength.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_operators::scoring::Fixed;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Sums of spectra: by lead, of what was observed and of each product.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spectra {
    leads: BTreeMap<usize, OfLead>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct OfLead {
    /// Of all fields.
    observed: Sum,
    /// Of those that each product has forecast, and what was observed of the same.
    products: BTreeMap<Arc<str>, (Sum, Sum)>,
}

/// The spectra of some fields.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    fields: u64,
    spectra: Vec<Fixed>,
}

impl Sum {
    fn add(&mut self, spectrum: &[f64]) {
        self.fields += 1;
        self.spectra.resize(spectrum.len(), Fixed::default());
        self.spectra.iter_mut().zip(spectrum).for_each(|(s, v)| *s += Fixed::new(*v));
    }

    fn mean(&self) -> Vec<f64> {
        self.spectra.iter().map(|sum| sum.get() / self.fields as f64).collect()
    }
}

/// The spectra of one observed field and of all forecasts of it.
pub(super) struct Taken {
    pub(super) lead: usize,
    pub(super) observed: Vec<f64>,
    pub(super) products: Vec<(Arc<str>, Vec<f64>)>,
}

impl Spectra {
    pub(super) fn add(&mut self, taken: &Taken) {
        let sums = self.leads.entry(taken.lead).or_default();
        sums.observed.add(&taken.observed);
        for (name, spectrum) in &taken.products {
            let (own, truth) = sums.products.entry(Arc::clone(name)).or_default();
            own.add(spectrum);
            truth.add(&taken.observed);
        }
    }

    /// The leads of which there are spectra.
    pub fn leads(&self) -> Vec<usize> {
        self.leads.keys().copied().collect()
    }

    /// How many fields were observed at a lead.
    pub fn pairs(&self, lead: usize) -> u64 {
        self.leads.get(&lead).map_or(0, |sums| sums.observed.fields)
    }

    /// The mean spectrum of what was observed at a lead: element b - 1 is the variance at
    /// [`wavelength`] b.
    pub fn observed(&self, lead: usize) -> Vec<f64> {
        self.leads.get(&lead).map(|sums| sums.observed.mean()).unwrap_or_default()
    }

    /// The mean spectrum of a product at a lead, over the fields that it has.
    pub fn product(&self, lead: usize, product: &str) -> Vec<f64> {
        self.of(lead, product).map(|(own, _)| own.mean()).unwrap_or_default()
    }

    /// The mean spectrum of what was observed, over the fields that a product has: what it is to be
    /// held against.
    pub fn beside(&self, lead: usize, product: &str) -> Vec<f64> {
        self.of(lead, product).map(|(_, truth)| truth.mean()).unwrap_or_default()
    }

    fn of(&self, lead: usize, product: &str) -> Option<&(Sum, Sum)> {
        self.leads.get(&lead)?.products.get(product)
    }
}

/// The wavelength of element `bin`, counted from 1, in pixels.
pub fn wavelength(bin: usize, [height, width]: [usize; 2]) -> f64 {
    height.max(width) as f64 / bin as f64
}

/// Takes spectra of fields of one size.
pub(super) struct Taker {
    size: [usize; 2],
    rows: Arc<dyn Fft<f64>>,
    columns: Arc<dyn Fft<f64>>,
    /// What each pixel is weighed with; everywhere 1 where the domain wraps around.
    window: Vec<f64>,
    /// The mean square of that.
    power: f64,
    /// The element that each mode belongs to, counted from 1; 0 for none.
    bins: Vec<usize>,
}

impl Taker {
    pub(super) fn new([height, width]: [usize; 2], periodic: bool) -> Self {
        let mut planner = FftPlanner::new();
        let longest = height.max(width);
        let hann = |at: usize, n: usize| {
            let angle = std::f64::consts::TAU * (at as f64 + 0.5) / n as f64;
            if periodic { 1.0 } else { 0.5 - 0.5 * angle.cos() }
        };
        let place = |at: usize| (at / width.max(1), at % width.max(1));
        let window: Vec<f64> =
            (0..height * width).map(place).map(|(y, x)| hann(y, height) * hann(x, width)).collect();
        let cycles = |at: usize, n: usize| at.min(n - at) as f64 / n as f64;
        let bins = (0..height * width).map(place).map(|(y, x)| {
            let frequency = cycles(y, height).hypot(cycles(x, width));
            let bin = (frequency * longest as f64).round() as usize;
            if bin <= longest / 2 { bin } else { 0 }
        });
        Self {
            size: [height, width],
            rows: planner.plan_fft_forward(width),
            columns: planner.plan_fft_forward(height),
            power: window.iter().map(|w| w * w).sum::<f64>() / window.len().max(1) as f64,
            bins: bins.collect(),
            window,
        }
    }

    /// The spectrum of the pixels of `field` in `mask`: its mean is taken away, what lies outside
    /// of the mask is 0, and open borders are faded out by a Hann window. The elements add up to
    /// the variance, but for the corners of the plane of modes, where only diagonal waves lie.
    pub(super) fn take(&self, field: &[f32], mask: &[bool]) -> Vec<f64> {
        let [height, width] = self.size;
        let inside = || field.iter().zip(mask).filter(|(_, inside)| **inside);
        let count = inside().count().max(1) as f64;
        let mean = inside().map(|(value, _)| f64::from(*value)).sum::<f64>() / count;
        let weigh = |((value, &inside), weight): ((&f32, &bool), &f64)| {
            Complex::new(if inside { (f64::from(*value) - mean) * weight } else { 0.0 }, 0.0)
        };
        let mut plane: Vec<_> = field.iter().zip(mask).zip(&self.window).map(weigh).collect();
        self.rows.process(&mut plane);
        let mut turned: Vec<_> = (0..width)
            .flat_map(|x| (0..height).map(move |y| y * width + x))
            .map(|at| plane[at])
            .collect();
        self.columns.process(&mut turned);
        let mut spectrum = vec![0.0; height.max(width) / 2];
        let scale = 1.0 / (self.power * ((height * width) as f64).powi(2));
        for (at, mode) in turned.iter().enumerate() {
            let (x, y) = (at / height, at % height);
            if let bin @ 1.. = self.bins[y * width + x] {
                spectrum[bin - 1] += mode.norm_sqr() * scale;
            }
        }
        spectrum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(height: usize, width: usize) -> Vec<f32> {
        (0..height * width).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 + 3.0).collect()
    }

    /// The definition, mode by mode.
    fn oracle(
        field: &[f32],
        mask: &[bool],
        [height, width]: [usize; 2],
        periodic: bool,
    ) -> Vec<f64> {
        use std::f64::consts::TAU;
        let hann = |at: usize, n: usize| {
            let s = (TAU * (at as f64 + 0.5) / (2 * n) as f64).sin();
            if periodic { 1.0 } else { s * s }
        };
        let n = (height * width) as f64;
        let inside: Vec<f64> =
            field.iter().zip(mask).filter(|(_, m)| **m).map(|(v, _)| f64::from(*v)).collect();
        let mean = inside.iter().sum::<f64>() / inside.len() as f64;
        let (mut weighed, mut power) = (Vec::new(), 0.0);
        for (at, (value, inside)) in field.iter().zip(mask).enumerate() {
            let weight = hann(at / width, height) * hann(at % width, width);
            power += weight * weight / n;
            weighed.push(if *inside { (f64::from(*value) - mean) * weight } else { 0.0 });
        }
        let longest = height.max(width);
        let mut spectrum = vec![0.0; longest / 2];
        for ky in -((height as i64 - 1) / 2)..=height as i64 / 2 {
            for kx in -((width as i64 - 1) / 2)..=width as i64 / 2 {
                let (fy, fx) = (ky as f64 / height as f64, kx as f64 / width as f64);
                let bin = ((fy * fy + fx * fx).sqrt() * longest as f64).round() as usize;
                if bin == 0 || bin > longest / 2 {
                    continue;
                }
                let (mut re, mut im) = (0.0, 0.0);
                for (at, value) in weighed.iter().enumerate() {
                    let angle = TAU * (fy * (at / width) as f64 + fx * (at % width) as f64);
                    re += value * angle.cos();
                    im -= value * angle.sin();
                }
                spectrum[bin - 1] += (re * re + im * im) / (n * n * power);
            }
        }
        spectrum
    }

    #[test]
    fn spectra_equal_a_slow_transform() {
        for (size, periodic) in
            [([12, 17], false), ([16, 16], true), ([9, 6], true), ([7, 20], false)]
        {
            let field = field(size[0], size[1]);
            let mask: Vec<bool> = (0..field.len()).map(|i| i % 11 != 3).collect();
            let found = Taker::new(size, periodic).take(&field, &mask);
            let expected = oracle(&field, &mask, size, periodic);
            assert_eq!(found.len(), size[0].max(size[1]) / 2);
            for (bin, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < 1e-12, "{size:?} {}: {a} {b}", bin + 1);
            }
        }
    }

    #[test]
    fn a_product_that_lacks_fields_is_the_mean_of_those_that_it_has() {
        let mut spectra = Spectra::default();
        let of = |name: &str, spectrum: &[f64]| (Arc::from(name), spectrum.to_vec());
        let taken =
            |observed: &[f64], products| Taken { lead: 1, observed: observed.to_vec(), products };
        spectra.add(&taken(&[4.0, 2.0], vec![of("own", &[2.0, 1.0]), of("rival", &[4.0, 2.0])]));
        spectra.add(&taken(&[8.0, 4.0], vec![of("own", &[4.0, 3.0])]));
        assert_eq!((spectra.pairs(1), spectra.observed(1)), (2, vec![6.0, 3.0]));
        assert_eq!(
            (spectra.product(1, "own"), spectra.beside(1, "own")),
            (vec![3.0, 2.0], vec![6.0, 3.0])
        );
        assert_eq!(spectra.product(1, "rival"), [4.0, 2.0]);
        assert_eq!(spectra.beside(1, "rival"), [4.0, 2.0]);
        assert!(spectra.product(1, "other").is_empty() && spectra.beside(2, "own").is_empty());
    }

    #[test]
    fn a_wave_lies_at_its_length_with_its_variance() {
        let wave: Vec<f32> = (0..32 * 32)
            .map(|at| (std::f32::consts::TAU * (at % 32) as f32 / 8.0).sin() * 3.0 + 7.0)
            .collect();
        let spectrum = Taker::new([32, 32], true).take(&wave, &[true; 32 * 32]);
        // A wavelength of 8 pixels is element 4, and 3^2 / 2 is its variance.
        assert_eq!(wavelength(4, [32, 32]), 8.0);
        assert!((spectrum[3] - 4.5).abs() < 1e-5, "{spectrum:?}");
        assert!((spectrum.iter().sum::<f64>() - 4.5).abs() < 1e-5);
    }
}
