//! The highest values around each pixel: what a forecast of rain may not exceed.

/// Lowers `served` to the highest of `carried` within `reach` pixels of each, both `(y, x)` planes
/// of rows of `width`; the square is cut at the border. NaN of either counts for nothing and stays.
pub(super) fn lower(served: &mut [f32], carried: &[f32], width: usize, reach: usize) {
    let mut across = Vec::with_capacity(carried.len());
    carried.chunks_exact(width).for_each(|row| highest(row, 1, reach, &mut across));
    let mut around = Vec::with_capacity(carried.len());
    highest(&across, width, reach, &mut around);
    for (value, &most) in served.iter_mut().zip(&around) {
        // Not `min`: it would fill in what nobody measured.
        if *value > most {
            *value = most;
        }
    }
}

/// Appends the highest of each value and of those up to `reach` strides before and behind it.
fn highest(values: &[f32], stride: usize, reach: usize, to: &mut Vec<f32>) {
    let from = to.len();
    to.extend_from_slice(values);
    let to = &mut to[from..];
    for away in (1..=reach).map(|steps| steps * stride).take_while(|&away| away < values.len()) {
        let raise = |(to, other): (&mut f32, &f32)| *to = to.max(*other);
        to.iter_mut().zip(&values[away..]).for_each(raise);
        to[away..].iter_mut().zip(values).for_each(raise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_above_all_around_it() {
        let mut state = 7_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match state >> 60 {
                0 => f32::NAN,
                _ => (state >> 40) as f32 / (1 << 24) as f32,
            }
        };
        for (height, width, reach) in [(1, 1, 3), (5, 7, 0), (5, 7, 2), (9, 4, 3), (3, 11, 20)] {
            let carried: Vec<f32> = (0..height * width).map(|_| draw()).collect();
            let served: Vec<f32> = (0..height * width).map(|_| 1.5 * draw()).collect();
            let mut lowered = served.clone();
            lower(&mut lowered, &carried, width, reach);
            for (at, (&before, &after)) in served.iter().zip(&lowered).enumerate() {
                let (y, x) = (at / width, at % width);
                let near = |a: usize, b: usize| a.abs_diff(b) <= reach;
                let around = carried.iter().enumerate();
                let around = around.filter(|(i, _)| near(i / width, y) && near(i % width, x));
                let most = around.map(|(_, value)| *value).fold(f32::NAN, f32::max);
                let expected = if before > most { most } else { before };
                assert_eq!(after.to_bits(), expected.to_bits(), "{at} of {height} x {width}");
            }
        }
    }
}
