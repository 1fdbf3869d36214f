//! Student's t distribution, for whole degrees of freedom.

/// The probability that `|T|` exceeds `|t|` under `freedom` degrees of freedom.
///
/// The finite series of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4; what is below 1e-15
/// drowns in its rounding.
pub(super) fn two_sided(t: f64, freedom: u64) -> f64 {
    if freedom == 0 || t.is_nan() {
        return f64::NAN;
    }
    let theta = (t.abs() / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = (theta.sin(), theta.cos());
    let odd = freedom % 2 == 1;
    // cos + 2/3 cos^3 + ... up to cos^(f-2), or 1 + 1/2 cos^2 + ... up to the same power.
    let (mut term, mut power) = if odd { (cosine, 1) } else { (1.0, 0) };
    let mut sum = 0.0;
    while power + 2 <= freedom && term > 1e-18 {
        sum += term;
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
        power += 2;
    }
    let tail = sine * sum;
    let within = if odd { std::f64::consts::FRAC_2_PI * (theta + tail) } else { tail };
    (1.0 - within).clamp(0.0, 1.0)
}

/// The `t` that `|T|` exceeds with probability `p`: by bisection.
pub(super) fn quantile(p: f64, freedom: u64) -> f64 {
    let (mut low, mut high) = (0.0, 1e4);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if two_sided(middle, freedom) > p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_tables() {
        // scipy.stats.t.sf(t, f) * 2
        for (t, freedom, p) in [
            (1.0, 1, 0.5),
            (12.706_204_736_432_095, 1, 0.05),
            (4.302_652_729_696_142, 2, 0.05),
            (2.0, 3, 0.139_325_968_558_843_3),
            (3.169_272_667_175_838, 10, 0.01),
            (-1.983_971_518_449_633, 100, 0.05),
            (1.960_201_239_890_669, 10_001, 0.05),
            (0.0, 7, 1.0),
        ] {
            let found = two_sided(t, freedom);
            assert!((found - p).abs() < 1e-8, "{t} {freedom}: {found}");
        }
        assert!((quantile(0.05, 10) - 2.228_138_851_964_938).abs() < 1e-9);
        assert!(two_sided(1.0, 0).is_nan() && two_sided(f64::NAN, 5).is_nan());
    }
}
