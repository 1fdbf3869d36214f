//! From values to colours.

/// How values become colours; missing ones are grey.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shade {
    /// Evenly between two values.
    Linear(f32, f32),
    /// Rain rates, mm/h: 0.1 to 100 on a logarithmic scale; below, dry.
    Rain,
}

impl Shade {
    /// A linear shade over what `fields` contain.
    pub fn covering<'a>(fields: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let values = fields.into_iter().flatten().filter(|v| v.is_finite());
        let (lo, hi) =
            values.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        if lo < hi { Self::Linear(lo, hi) } else { Self::Linear(lo.min(0.0), lo.max(0.0) + 1.0) }
    }

    /// What the ends of the scale are called.
    pub(super) fn ends(self) -> (String, String) {
        match self {
            Self::Linear(lo, hi) => (format!("{lo:.3}"), format!("{hi:.3}")),
            Self::Rain => ("0.1".to_owned(), "100".to_owned()),
        }
    }

    /// The colour of `value`, RGB.
    pub(super) fn colour(self, value: f32) -> [u8; 3] {
        if !value.is_finite() {
            return [150, 150, 150];
        }
        match self {
            Self::Linear(lo, hi) => viridis((value - lo) / (hi - lo)),
            Self::Rain if value < 0.1 => [24, 24, 32],
            Self::Rain => viridis((value.log10() + 1.0) / 3.0),
        }
    }

    /// The colour at `share` of the scale.
    pub(super) fn along(self, share: f32) -> [u8; 3] {
        viridis(share)
    }
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
}
