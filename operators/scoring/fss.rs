//! The counts under the fractions skill score of Roberts and Lean (2008), as pysteps has it.

/// `[sum f^2, sum f o, sum o^2]`, where f and o count the pixels at or above `threshold` in the
/// `scale` x `scale` window around every pixel of two row-major fields of `width` columns.
///
/// Outside the fields nothing is above; pixels outside `mask` count as the value 0. A window of
/// even size reaches one pixel further up and left. Counts, not fractions: the score is a ratio.
pub(super) fn fss(
    p: &[f32],
    o: &[f32],
    mask: &[bool],
    width: usize,
    threshold: f64,
    scale: usize,
) -> [i64; 3] {
    let counts = |field: &[f32]| {
        let value = |(&v, &m): (&f32, &bool)| if m { f64::from(v) } else { 0.0 };
        let above = field.iter().zip(mask).map(|pixel| i64::from(value(pixel) >= threshold));
        window_sums(&above.collect::<Vec<_>>(), width, scale.max(1))
    };
    let (f, o) = (counts(p), counts(o));
    let dot = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    [dot(&f, &f), dot(&f, &o), dot(&o, &o)]
}

/// The sum over the window around every pixel, from a summed-area table.
fn window_sums(field: &[i64], width: usize, size: usize) -> Vec<i64> {
    let height = field.len().checked_div(width).unwrap_or(0);
    let stride = width + 1;
    let mut table = vec![0; stride * (height + 1)];
    for y in 0..height {
        let mut row = 0;
        for x in 0..width {
            row += field[y * width + x];
            table[(y + 1) * stride + x + 1] = table[y * stride + x + 1] + row;
        }
    }
    let span = |i: usize, len: usize| {
        let before = size / 2;
        (i.saturating_sub(before), (i + size - before).min(len))
    };
    let mut sums = Vec::with_capacity(field.len());
    for y in 0..height {
        let (top, bottom) = span(y, height);
        for x in 0..width {
            let (left, right) = span(x, width);
            let at = |y: usize, x: usize| table[y * stride + x];
            sums.push(at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_equals_the_obvious_sum() {
        let (height, width) = (7, 9);
        let field: Vec<i64> = (0..height * width).map(|i| ((i * 7919) % 5 == 0).into()).collect();
        for size in [1_usize, 2, 3, 4, 10, 20] {
            let fast = window_sums(&field, width, size);
            for y in 0..height as i64 {
                for x in 0..width as i64 {
                    let (lo, hi) = (size as i64 / 2, (size - size / 2) as i64);
                    let mut sum = 0;
                    for v in (y - lo).max(0)..(y + hi).min(height as i64) {
                        for u in (x - lo).max(0)..(x + hi).min(width as i64) {
                            sum += field[v as usize * width + u as usize];
                        }
                    }
                    assert_eq!(fast[y as usize * width + x as usize], sum, "{size} {y} {x}");
                }
            }
        }
    }
}
