//! The counts under the fractions skill score of Roberts and Lean (2008), as pysteps has it.

use super::metrics::Fss;

/// For each of `all`, `[sum f^2, sum f o, sum o^2]`, where f and o count the pixels at or above its
/// threshold in the window of its scale around every pixel of two row-major fields of `width`
/// columns.
///
/// Outside the fields nothing is above, nor outside `mask`, whatever the threshold. A window of
/// even size reaches one pixel further up and left. Counts, not fractions: the score is a ratio.
pub(super) fn fss(
    p: &[f32],
    o: &[f32],
    mask: &[bool],
    width: usize,
    all: &[Fss],
) -> Vec<[i128; 3]> {
    let mut tables: Vec<(f64, [Area; 2])> = Vec::new();
    let sums = all.iter().map(|&Fss { threshold, scale }| {
        let known = tables.iter().position(|(of, _)| *of == threshold);
        let at = known.unwrap_or_else(|| {
            // Scales share what a threshold costs.
            let areas = [p, o].map(|field| Area::above(field, mask, width, threshold));
            tables.push((threshold, areas));
            tables.len() - 1
        });
        let (_, [f, o]) = &tables[at];
        products(f, o, scale.max(1))
    });
    sums.collect()
}

fn products(f: &Area, o: &Area, size: usize) -> [i128; 3] {
    let mut sums = [0; 3];
    let (mut of_f, mut of_o) = (vec![0; f.width], vec![0; o.width]);
    for y in 0..f.height {
        f.windows(y, size, &mut of_f);
        o.windows(y, size, &mut of_o);
        // A row fits where the rows together need not.
        let mut row = [0_i64; 3];
        for (&f, &o) in of_f.iter().zip(&of_o) {
            row[0] += f * f;
            row[1] += f * o;
            row[2] += o * o;
        }
        sums.iter_mut().zip(row).for_each(|(sum, row)| *sum += i128::from(row));
    }
    sums
}

/// How many pixels are above in every rectangle from the first pixel on: a summed-area table.
struct Area {
    height: usize,
    width: usize,
    /// `height + 1` rows of `width + 1` columns.
    table: Vec<i64>,
}

impl Area {
    fn above(field: &[f32], mask: &[bool], width: usize, threshold: f64) -> Self {
        let height = field.len().checked_div(width).unwrap_or(0);
        let stride = width + 1;
        let mut table = vec![0; stride * (height + 1)];
        for y in 0..height {
            let mut row = 0;
            for x in 0..width {
                let at = y * width + x;
                row += i64::from(mask[at] && f64::from(field[at]) >= threshold);
                table[(y + 1) * stride + x + 1] = table[y * stride + x + 1] + row;
            }
        }
        Self { height, width, table }
    }

    /// The counts in the windows around the pixels of row `y`.
    fn windows(&self, y: usize, size: usize, counts: &mut [i64]) {
        let span = |i: usize, len: usize| {
            let before = size / 2;
            (i.saturating_sub(before), (i + size - before).min(len))
        };
        let (top, bottom) = span(y, self.height);
        let row = |y: usize| &self.table[y * (self.width + 1)..][..=self.width];
        let (above, below) = (row(top), row(bottom));
        for (x, count) in counts.iter_mut().enumerate() {
            let (left, right) = span(x, self.width);
            *count = below[right] - above[right] - below[left] + above[left];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_above_no_threshold() {
        let (p, o) = ([1.0, f32::NAN, 3.0], [f32::NAN, 2.0, -1.0]);
        for threshold in [-2.0, 0.0, 2.0] {
            let all = [Fss { threshold, scale: 1 }];
            let observed = i128::from(-1.0 >= threshold);
            let sums = fss(&p, &o, &[false, false, true], 3, &all);
            assert_eq!(sums, [[1, observed, observed]], "{threshold}");
        }
    }

    #[test]
    fn the_table_equals_the_obvious_sum() {
        let (height, width) = (7, 9);
        let values: Vec<f32> = (0..height * width).map(|i| ((i * 7919) % 5) as f32).collect();
        let field: Vec<i64> = values.iter().map(|v| i64::from(*v >= 3.0)).collect();
        let area = Area::above(&values, &vec![true; values.len()], width, 3.0);
        for size in [1_usize, 2, 3, 4, 10, 20] {
            let mut fast = vec![0; width];
            for y in 0..height as i64 {
                area.windows(y as usize, size, &mut fast);
                for x in 0..width as i64 {
                    let (lo, hi) = (size as i64 / 2, (size - size / 2) as i64);
                    let mut sum = 0;
                    for v in (y - lo).max(0)..(y + hi).min(height as i64) {
                        for u in (x - lo).max(0)..(x + hi).min(width as i64) {
                            sum += field[v as usize * width + u as usize];
                        }
                    }
                    assert_eq!(fast[x as usize], sum, "{size} {y} {x}");
                }
            }
        }
    }
}
