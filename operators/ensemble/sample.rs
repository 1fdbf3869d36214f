//! Which pixels of a frame teach: enough of them, others every time.

use physicnet_stream::Time;

use super::around::Around;
use super::mixed;
use super::ranks::{CURVE, Ranks, value};

/// Pixels of a frame that are taken in, about.
const PIXELS: usize = 4096;
/// Of those, one in so many is forecast first, to see how good that would have been.
const EACH: usize = 8;
/// Standard normal numbers of the shares 1/16, 3/16, ... 15/16.
const EIGHTHS: [f32; 8] =
    [-1.534_12, -0.887_15, -0.488_78, -0.157_31, 0.157_31, 0.488_78, 0.887_15, 1.534_12];

/// The pixels of a frame of this size that teach.
pub(super) struct Sample {
    pixels: Vec<usize>,
    salt: u64,
}

impl Sample {
    /// Every pixel of small frames, of large ones a lattice that lies elsewhere at another time.
    pub(super) fn new([height, width]: [usize; 2], valid_time: Time) -> Self {
        let step = (height * width).div_ceil(PIXELS).isqrt().max(1);
        let salt = mixed(valid_time as u64);
        let (top, left) = (salt as usize % step, (salt >> 32) as usize % step);
        let rows = (top..height).step_by(step);
        let pixels = rows.flat_map(|y| (left..width).step_by(step).map(move |x| y * width + x));
        Self { pixels: pixels.collect(), salt }
    }

    /// Teaches `ranks` what came, transformed, around these pixels. First some of it is forecast: the
    /// loss is the mean over eight quantiles of their pinball loss, which is half of what CRPS is
    /// of all quantiles.
    pub(super) fn teach(
        &self,
        ranks: &mut Ranks,
        around: &Around,
        spread: f32,
        came: impl Fn(usize) -> f32,
    ) {
        let mut curve = Vec::with_capacity(CURVE);
        if ranks.known() {
            ranks.curve(&mut curve);
        }
        let (mut loss, mut forecast) = (0.0, 0.0);
        for (number, &at) in self.pixels.iter().enumerate() {
            let (Some(place), came) = (around.place(at), came(at)) else { continue };
            if !came.is_finite() {
                continue;
            }
            if !curve.is_empty() && number % EACH == 0 {
                for (eighth, normal) in EIGHTHS.into_iter().enumerate() {
                    let below = came - value(&curve, &place, spread, normal);
                    let share = (eighth as f32 + 0.5) / EIGHTHS.len() as f32;
                    loss += if below > 0.0 { share * below } else { (share - 1.0) * below };
                }
                forecast += 1.0;
            }
            ranks.take(&place, came, spread, mixed(self.salt ^ at as u64));
        }
        ranks.lose(loss / EIGHTHS.len() as f32, forecast);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_of_a_small_frame_teaches_and_in_time_all_of_a_large_one() {
        assert_eq!(Sample::new([50, 60], 7).pixels, (0..3000).collect::<Vec<_>>());
        let mut seen = vec![false; 200 * 300];
        for time in 0..200 {
            let pixels = Sample::new([200, 300], time).pixels;
            assert!((3000..=8000).contains(&pixels.len()), "{}", pixels.len());
            pixels.into_iter().for_each(|at| seen[at] = true);
        }
        assert!(seen.into_iter().all(|seen| seen));
    }
}
