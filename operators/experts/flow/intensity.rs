//! From physical fields to the 0..255 intensities that optical flow compares.

/// The weakest rain that counts, in mm/h; less is dry.
const DRY: f32 = 0.1;

/// Rain rates in mm/h to intensities: -15..40 dB of rate over 0..255.
///
/// Below 0.1 mm/h, and where nothing was measured, the intensity is 0.
pub fn rain_intensity(rate: &[f32]) -> Vec<f32> {
    rate.iter()
        .map(|&r| {
            if r >= DRY { ((10.0 * r.log10() + 15.0) / 55.0).clamp(0.0, 1.0) * 255.0 } else { 0.0 }
        })
        .collect()
}

/// Any two fields of one quantity to intensities, by their common least and greatest finite value.
///
/// Pixels that are not finite get the mean of the finite ones. A constant pair becomes zeros.
pub fn pair_intensity(newest: &[f32], previous: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let finite = || newest.iter().chain(previous).copied().filter(|v| v.is_finite());
    let (low, high) =
        finite().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let (sum, count) = finite().fold((0.0_f64, 0_usize), |(s, n), v| (s + f64::from(v), n + 1));
    let mean = (sum / count.max(1) as f64) as f32;
    // In f64, since the span of two finite f32 may not be one.
    let span = f64::from(high) - f64::from(low);
    let scale = |field: &[f32]| {
        let one = |&v: &f32| {
            let v = if v.is_finite() { v } else { mean };
            if span > 0.0 { ((f64::from(v) - f64::from(low)) / span * 255.0) as f32 } else { 0.0 }
        };
        field.iter().map(one).collect()
    };
    (scale(newest), scale(previous))
}
