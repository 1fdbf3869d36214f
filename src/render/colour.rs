//! From values to colours, even in perceived lightness.

use physicnet_operators::scoring::Metrics;

/// How values become colours; missing ones are grey.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shade {
    /// Evenly between two values.
    Linear(f32, f32),
    /// Rain rates, mm/h: 0.1 to 100 on a logarithmic scale; below, dry.
    Rain,
    /// From blue over nearly white at 0 to red, up to this size on either side.
    Diverging(f32),
}

/// Below the scale of rain.
const DRY: [u8; 3] = [24, 24, 32];

impl Shade {
    /// A linear shade over what `fields` contain.
    pub fn covering<'a>(fields: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let values = fields.into_iter().flatten().filter(|v| v.is_finite());
        let (lo, hi) =
            values.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        if lo < hi { Self::Linear(lo, hi) } else { Self::Linear(lo.min(0.0), lo.max(0.0) + 1.0) }
    }

    /// What the ends of the scale are called.
    pub fn ends(self) -> (String, String) {
        match self {
            Self::Linear(lo, hi) => (format!("{lo:.3}"), format!("{hi:.3}")),
            Self::Rain => ("0.1".to_owned(), "100".to_owned()),
            Self::Diverging(limit) => (format!("-{limit:.3}"), format!("+{limit:.3}")),
        }
    }

    /// The shade of values of a unit, over what `fields` contain: rain is looked at in decades.
    pub fn suiting<'a>(units: &str, fields: impl IntoIterator<Item = &'a [f32]>) -> Self {
        if Metrics::is_rain(units) { Self::Rain } else { Self::covering(fields) }
    }

    /// A diverging shade that the largest half percent of the values of `fields` may leave: a few
    /// pixels far off would make all others look right.
    pub fn around_zero<'a>(fields: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let values = fields.into_iter().flatten().filter(|v| v.is_finite());
        let mut sizes: Vec<f32> = values.map(|v| v.abs()).collect();
        sizes.sort_unstable_by(f32::total_cmp);
        let most = sizes.get(sizes.len().saturating_sub(1).min(sizes.len() * 995 / 1000));
        Self::Diverging(most.or(sizes.last()).copied().filter(|most| *most > 0.0).unwrap_or(1.0))
    }

    /// The colour of `value`, RGB.
    pub fn colour(self, value: f32) -> [u8; 3] {
        if !value.is_finite() {
            return [150, 150, 150];
        }
        match self {
            Self::Linear(lo, hi) => viridis((value - lo) / (hi - lo)),
            Self::Rain if value < 0.1 => DRY,
            Self::Rain => viridis((value.log10() + 1.0) / 3.0),
            Self::Diverging(limit) => diverging(value / limit),
        }
    }

    /// The colour at `share` of the scale.
    pub fn along(self, share: f32) -> [u8; 3] {
        match self {
            Self::Diverging(_) => diverging(2.0 * share - 1.0),
            Self::Linear(..) | Self::Rain => viridis(share),
        }
    }
}

/// A colour for a code: neighbours in number lie far apart in hue.
pub fn named(code: u32) -> [u8; 3] {
    let hue = (f64::from(code) * 137.508) % 360.0;
    oklch(0.5 + 0.09 * f64::from(code % 4), 0.11, hue)
}

/// Blue below, red above, nearly white in between: `share` from -1 to 1, even in lightness.
fn diverging(share: f32) -> [u8; 3] {
    let t = f64::from(share.abs().min(1.0));
    oklch(0.97 - 0.47 * t, 0.15 * t, if share < 0.0 { 255.0 } else { 30.0 })
}

/// A colour of Oklch, which is even in perception (Ottosson, 2020): lightness, chroma, and hue in
/// degrees.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> [u8; 3] {
    let (sine, cosine) = hue.to_radians().sin_cos();
    let (a, b) = (chroma * cosine, chroma * sine);
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    let linear = [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
    ];
    linear.map(|value| {
        let v = value.clamp(0.0, 1.0);
        let coded = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        (255.0 * coded).round() as u8
    })
}

/// Viridis, even in perceived lightness, as the polynomial of degree 6 that Matt Zucker fitted.
fn viridis(share: f32) -> [u8; 3] {
    const C: [[f32; 3]; 7] = [
        [0.277_727_33, 0.005_407_344_5, 0.334_099_8],
        [0.105_093_04, 1.404_613_5, 1.384_590_1],
        [-0.330_861_83, 0.214_847_56, 0.095_095_16],
        [-4.634_230_5, -5.799_101, -19.332_441],
        [6.228_27, 14.179_933, 56.690_55],
        [4.776_385, -13.745_145, -65.353_03],
        [-5.435_456, 4.645_852_6, 26.312_435],
    ];
    let t = share.clamp(0.0, 1.0);
    std::array::from_fn(|channel| {
        let value = C.iter().rev().fold(0.0, |sum, c| sum * t + c[channel]);
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_viridis_and_missing_is_grey() {
        let shade = Shade::Linear(0.0, 2.0);
        for (value, expected) in [(0.0, [68, 1, 84]), (1.0, [33, 145, 140]), (2.0, [253, 231, 37])]
        {
            let colour = shade.colour(value);
            assert!(colour.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 6), "{colour:?}");
        }
        assert_eq!(shade.colour(f32::NAN), [150; 3]);
        assert_eq!(Shade::covering([&[f32::NAN, 1.0, 3.0][..]]), Shade::Linear(1.0, 3.0));
        assert_eq!(Shade::covering([&[][..]]).colour(0.0).len(), 3);
    }

    #[test]
    fn errors_are_blue_below_and_red_above() {
        let mut errors = vec![0.5; 999];
        errors.push(f32::NAN);
        errors.push(-80.0);
        let shade = Shade::around_zero([&errors[..]]);
        assert_eq!(shade, Shade::Diverging(0.5));
        let [below, zero, above] = [-0.5, 0.0, 0.5].map(|value| shade.colour(value));
        assert!(below[2] > below[0] + 50 && above[0] > above[2] + 50, "{below:?} {above:?}");
        assert!(zero.iter().all(|part| *part > 235), "{zero:?}");
        assert_eq!((shade.along(0.0), shade.along(1.0)), (below, above));
        assert_eq!(Shade::around_zero([&[][..]]), Shade::Diverging(1.0));
        // The colours that the dashboard gives them.
        assert_eq!(named(0), [148, 69, 97]);
    }
}
