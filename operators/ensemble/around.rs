//! What is forecast around a pixel: the values that may come there if the motion is not quite right.

/// Values around a pixel, its own near the middle of them.
pub(super) const AROUND: usize = 16;
/// How far away they are, standard deviation in pixels at the first lead: the root of the lead times as
/// far at another. Which of them is best is learnt. The first is no distance: the pixel alone.
pub(super) const REACHES: [f32; 4] = [0.0, 0.5, 1.0, 2.0];
/// Which of them counts before anything is known.
pub(super) const USUAL: usize = 2;

/// How far around it is looked how much the field varies, as a reach.
const VARIES: f32 = 1.0;

/// Kinds of pixels: by the value and by how much it varies around, in spreads of the observations.
pub(super) const KINDS: usize = (LEVELS.len() + 1) * ROUGH;
const ROUGH: usize = STEPS.len() + 1;
const LEVELS: [f32; 4] = [0.1, 0.7, 2.4, 3.8];
const STEPS: [f32; 4] = [0.02, 0.08, 0.3, 1.0];

/// A transformed field and where its neighbours lie.
pub(super) struct Around<'a> {
    field: &'a [f32],
    size: [usize; 2],
    offsets: [[i32; 2]; AROUND],
    /// Where it is looked how much the field varies, whatever the reach.
    wide: [[i32; 2]; AROUND],
    spread: f32,
}

/// What there is around one pixel.
pub(super) struct Place {
    /// In order.
    pub(super) values: [f32; AROUND],
    pub(super) kind: usize,
}

impl<'a> Around<'a> {
    /// Of a field `[y, x]` of a forecast of `lead`, under one of the [`REACHES`].
    pub(super) fn new(
        field: &'a [f32],
        size: [usize; 2],
        (reach, lead): (usize, usize),
        spread: f32,
    ) -> Self {
        let offsets = |reach: f32| {
            let sigma = reach * (lead as f32).sqrt();
            // A spiral whose distances are the quantiles of a bivariate normal distribution.
            std::array::from_fn(|k| {
                let share = (k as f32 + 0.5) / AROUND as f32;
                let (distance, angle) = ((-2.0 * (1.0 - share).ln()).sqrt(), k as f32 * 2.399_963);
                let (y, x) = angle.sin_cos();
                [sigma * distance * y, sigma * distance * x].map(|by| by.round() as i32)
            })
        };
        Self { field, size, offsets: offsets(REACHES[reach]), wide: offsets(VARIES), spread }
    }

    /// What there is around the pixel `at`; `None` where nothing is forecast. A neighbour without a
    /// forecast counts as the pixel itself.
    pub(super) fn place(&self, at: usize) -> Option<Place> {
        let own = self.field[at];
        if own.is_nan() {
            return None;
        }
        let [height, width] = self.size;
        let (y, x) = ((at / width) as i32, (at % width) as i32);
        let inside = |by: i32, length: usize| by.clamp(0, length as i32 - 1) as usize;
        let value = |[dy, dx]: [i32; 2]| {
            let value = self.field[inside(y + dy, height) * width + inside(x + dx, width)];
            if value.is_nan() { own } else { value }
        };
        let (mut values, wide) = (self.offsets.map(value), self.wide.map(value));
        let mean = wide.iter().sum::<f32>() / AROUND as f32;
        let square = wide.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / AROUND as f32;
        values.sort_unstable_by(f32::total_cmp);
        let above = |steps: &[f32], value: f32| steps.iter().filter(|step| value > **step).count();
        let kind =
            above(&LEVELS, own / self.spread) * ROUGH + above(&STEPS, square.sqrt() / self.spread);
        Some(Place { values, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_around_are_in_order_and_as_far_away_as_they_should_be() {
        let side = 101;
        let field: Vec<f32> = (0..side * side).map(|at| (at % side) as f32).collect();
        let middle = side * side / 2;
        for (reach, sigma) in REACHES.into_iter().enumerate() {
            for lead in [1, 4, 9] {
                let around = Around::new(&field, [side, side], (reach, lead), 1.0);
                let place = around.place(middle).unwrap();
                assert!(place.values.is_sorted());
                let square = place.values.iter().map(|v| (v - 50.0).powi(2)).sum::<f32>();
                let far = (square / AROUND as f32).sqrt();
                let wanted = sigma * (lead as f32).sqrt();
                assert!((far - wanted).abs() < 0.25 * wanted + 0.3, "{sigma} {lead}: {far}");
            }
        }
        let mut holes = field.clone();
        holes.iter_mut().step_by(2).for_each(|value| *value = f32::NAN);
        let around = Around::new(&holes, [side, side], (3, 4), 1.0);
        assert!(around.place(0).is_none());
        assert!(around.place(1).unwrap().values.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn kinds_tell_flat_from_rough_and_low_from_high() {
        let field: Vec<f32> = (0..64).map(|at| if at % 8 < 4 { 0.0 } else { 3.0 }).collect();
        let around = Around::new(&field, [8, 8], (3, 4), 1.0);
        let kind = |at: usize| around.place(at).unwrap().kind;
        assert!(kind(32) < kind(35) && kind(35) < kind(36));
        let alone = Around::new(&field, [8, 8], (0, 4), 1.0).place(35).unwrap();
        assert_eq!((alone.kind, alone.values), (kind(35), [0.0; AROUND]));
        assert!(kind(36) < KINDS);
    }
}
