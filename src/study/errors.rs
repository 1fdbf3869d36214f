//! Where forecasts err: the mean error and the mean squared error of every place.

use std::collections::BTreeMap;
use std::sync::Arc;

use physicnet_operators::scoring::Fixed;

use super::SIDE;

/// Sums of errors by place, lead and product. A place is a pixel, or a square of them where the
/// grid is larger than [`SIDE`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    /// Rows and columns of places.
    pub shape: [usize; 2],
    sums: BTreeMap<(usize, Arc<str>), Vec<Place>>,
}

/// The sums of one place: how many errors, the errors, their squares.
type Place = (u64, Fixed, Fixed);

/// The errors of one field.
pub(super) struct Taken {
    pub(super) lead: usize,
    pub(super) product: Arc<str>,
    shape: [usize; 2],
    places: Vec<(u64, f64, f64)>,
}

impl Taken {
    /// Those of the forecast `p` of `o`, fields of `width` columns; only where both are.
    pub(super) fn of(lead: usize, product: &Arc<str>, p: &[f32], o: &[f32], width: usize) -> Self {
        let height = p.len() / width.max(1);
        let step = height.max(width).div_ceil(SIDE).max(1);
        let shape = [height.div_ceil(step), width.div_ceil(step)];
        let mut places = vec![(0, 0.0, 0.0); shape[0] * shape[1]];
        for (at, (p, o)) in p.iter().zip(o).enumerate() {
            let error = f64::from(*p) - f64::from(*o);
            if error.is_finite() {
                let place = at / width / step * shape[1] + at % width / step;
                let (count, sum, squares) = &mut places[place];
                *count += 1;
                *sum += error;
                *squares += error * error;
            }
        }
        Self { lead, product: Arc::clone(product), shape, places }
    }
}

impl Errors {
    pub(super) fn add(&mut self, taken: &Taken) {
        self.shape = taken.shape;
        let sums = self.sums.entry((taken.lead, Arc::clone(&taken.product))).or_default();
        sums.resize(taken.places.len(), Place::default());
        for ((n, sum, squares), (count, error, square)) in sums.iter_mut().zip(&taken.places) {
            *n += count;
            *sum += Fixed::new(*error);
            *squares += Fixed::new(*square);
        }
    }

    /// Of each place; NaN where nothing was verified, empty where there are no such forecasts.
    fn each(&self, lead: usize, product: &str, value: impl Fn(f64, f64, f64) -> f64) -> Vec<f32> {
        let sums = self.sums.get(&(lead, product.into()));
        let sums = sums.map(Vec::as_slice).unwrap_or_default();
        let of = |(n, sum, squares): &Place| value(*n as f64, sum.get(), squares.get()) as f32;
        sums.iter().map(of).collect()
    }

    /// The mean error, forecast minus observation, of each place.
    pub fn bias(&self, lead: usize, product: &str) -> Vec<f32> {
        self.each(lead, product, |n, sum, _| sum / n)
    }

    /// The mean squared error of each place.
    pub fn mse(&self, lead: usize, product: &str) -> Vec<f32> {
        self.each(lead, product, |n, _, squares| squares / n)
    }

    /// The root of that.
    pub fn rmse(&self, lead: usize, product: &str) -> Vec<f32> {
        self.each(lead, product, |n, _, squares| (squares / n).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_squares_of_pixels_and_missing_ones_do_not_count() {
        let (height, width) = (3, 2 * SIDE);
        let observed = vec![1.0; height * width];
        let mut forecast = vec![3.0; height * width];
        forecast[0] = f32::NAN;
        forecast[1] = -1.0;
        let mut errors = Errors::default();
        let name: Arc<str> = "mean".into();
        errors.add(&Taken::of(1, &name, &forecast, &observed, width));
        assert_eq!(errors.shape, [2, SIDE]);
        // Of the four pixels of the first place one is missing, one 2 below, two 2 above.
        assert_eq!(errors.mse(1, "mean")[0], 4.0);
        assert!((errors.bias(1, "mean")[0] - 2.0 / 3.0).abs() < 1e-6);
        assert_eq!(errors.rmse(1, "mean")[SIDE], 2.0);
        errors.add(&Taken::of(1, &name, &vec![f32::NAN; height * width], &observed, width));
        assert_eq!(errors.rmse(1, "mean")[SIDE], 2.0);
        assert!(errors.bias(2, "mean").is_empty() && errors.bias(1, "sharp").is_empty());
    }
}
