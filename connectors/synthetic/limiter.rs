//! Slopes that make no new extremes.

/// Van Leer's monotonised central slope (1977) between the steps on the two sides of a cell: the
/// central difference, but at most twice the smaller step, and 0 at an extreme.
///
/// So the values at the sides of a cell lie between its own and its neighbours'.
pub(super) fn monotonised(before: f64, after: f64) -> f64 {
    if before * after <= 0.0 {
        return 0.0;
    }
    let least = 2.0 * before.abs().min(after.abs());
    least.min(0.5 * (before + after).abs()).copysign(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_central_where_it_is_smooth_and_none_at_extremes() {
        assert_eq!(monotonised(1.0, 2.0), 1.5);
        assert_eq!(monotonised(-1.0, -2.0), -1.5);
        assert_eq!(monotonised(1.0, 7.0), 2.0);
        assert_eq!(monotonised(1.0, -1.0), 0.0);
        assert_eq!(monotonised(0.0, 3.0), 0.0);
    }
}
