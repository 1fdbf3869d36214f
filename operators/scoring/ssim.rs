//! Structural similarity of two fields, as scikit-image computes it with a Gaussian window.

/// Taps of the window: radius 5 = round(3.5 sigma).
const RADIUS: usize = 5;
const TAPS: usize = 2 * RADIUS + 1;

/// How values become the 0..1 on which SSIM is taken.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scale {
    /// Rain rates in mm/h: 0.1..100 on a logarithmic scale.
    Db,
    /// `(value - minimum) / range`.
    Linear {
        /// What becomes 0.
        minimum: f64,
        /// What lies between 0 and 1; positive.
        range: f64,
    },
}

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Db => (value.clamp(0.1, 100.0).log10() + 1.0) / 3.0,
            Self::Linear { minimum, range } => (value - minimum) / range,
        }
    }
}

/// The mean over the mask of the local structural similarity (Wang et al. 2004: 11 x 11 Gaussian
/// window of sigma 1.5, population covariance, K1 0.01, K2 0.03, borders reflected) of two
/// row-major fields of `width` columns. Pixels outside `mask` are 0 after scaling.
///
/// `None` where a side is shorter than the window or the mask is empty.
pub(super) fn ssim(p: &[f32], o: &[f32], mask: &[bool], width: usize, scale: Scale) -> Option<f64> {
    let height = p.len().checked_div(width)?;
    let pixels = mask.iter().filter(|&&m| m).count();
    if height < TAPS || width < TAPS || pixels == 0 {
        return None;
    }
    let scaled = |field: &[f32]| -> Vec<f64> {
        let pixel = |(&v, &m): (&f32, &bool)| if m { scale.apply(f64::from(v)) } else { 0.0 };
        field.iter().zip(mask).map(pixel).collect()
    };
    let (x, y) = (scaled(p), scaled(o));
    let product =
        |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let weights = window();
    let blur = |field: &[f64]| blur(field, width, &weights);
    let (ux, uy) = (blur(&x), blur(&y));
    let (uxx, uyy, uxy) = (blur(&product(&x, &x)), blur(&product(&y, &y)), blur(&product(&x, &y)));
    let (c1, c2) = (0.01_f64.powi(2), 0.03_f64.powi(2));
    let local = |i: usize| {
        let (mx, my) = (ux[i], uy[i]);
        let (vx, vy, vxy) = (uxx[i] - mx * mx, uyy[i] - my * my, uxy[i] - mx * my);
        ((2.0 * mx * my + c1) * (2.0 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    };
    let sum: f64 = (0..mask.len()).filter(|&i| mask[i]).map(local).sum();
    Some(sum / pixels as f64)
}

/// Normalised Gaussian weights.
fn window() -> [f64; TAPS] {
    let mut weights: [f64; TAPS] = std::array::from_fn(|i| {
        let distance = i as f64 - RADIUS as f64;
        (-0.5 / (1.5 * 1.5) * distance * distance).exp()
    });
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// Separable convolution with borders `d c b a | a b c d | d c b a`.
fn blur(field: &[f64], width: usize, weights: &[f64; TAPS]) -> Vec<f64> {
    let height = field.len() / width;
    let mut columns = vec![0.0; field.len()];
    for y in 0..height {
        let out = &mut columns[y * width..][..width];
        for (tap, weight) in weights.iter().enumerate() {
            let row = &field[reflect(y + tap, height) * width..][..width];
            out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
        }
    }
    let mut both = vec![0.0; field.len()];
    let mut padded = vec![0.0; width + 2 * RADIUS];
    for (out, row) in both.chunks_mut(width).zip(columns.chunks(width)) {
        for (x, value) in padded.iter_mut().enumerate() {
            *value = row[reflect(x, width)];
        }
        for (tap, weight) in weights.iter().enumerate() {
            let shifted = &padded[tap..];
            out.iter_mut().zip(shifted).for_each(|(out, value)| *out += weight * value);
        }
    }
    both
}

/// The index inside `0..len` of place `shifted - RADIUS`, reflected once at either edge.
fn reflect(shifted: usize, len: usize) -> usize {
    match shifted.checked_sub(RADIUS) {
        None => RADIUS - 1 - shifted,
        Some(i) if i < len => i,
        Some(i) => 2 * len - 1 - i,
    }
}
