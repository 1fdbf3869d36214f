//! Fields as pictures inside the page, with their scales, arrows and code maps.

use std::fmt::Write;

use anyhow::Result;
use physicnet_stream::{Axis, Grid};

use super::words::{escape, short};
use crate::render::{Pixels, Shade, named, png, shaded};

/// How fields lie on the page: what has coordinates has its larger ones above, as maps do.
#[derive(Clone, Copy)]
pub(super) struct Lie {
    flip: bool,
}

impl Lie {
    pub(super) fn of(grid: &Grid) -> Self {
        let Axis { units, values, .. } = &grid.y;
        Self { flip: !units.is_empty() && values.first() < values.last() }
    }

    fn rows<T: Copy>(self, field: &[T], width: usize) -> Vec<T> {
        let rows = field.chunks_exact(width.max(1));
        if self.flip { rows.rev().flatten().copied().collect() } else { field.to_vec() }
    }
}

/// A field of `width` columns as a picture.
pub(super) fn field(
    alt: &str,
    field: &[f32],
    width: usize,
    shade: Shade,
    lie: Lie,
) -> Result<String> {
    Ok(img(alt, &shaded(&lie.rows(field, width), width, shade)?))
}

/// A code map, each code in its own colour; clear where there is none.
pub(super) fn codes(
    alt: &str,
    codes: &[Option<u32>],
    [rows, columns]: [usize; 2],
    lie: Lie,
) -> Result<String> {
    let rgba: Vec<u8> = lie.rows(codes, columns).into_iter().flat_map(opaque).collect();
    let mut bytes = Vec::new();
    png(&mut bytes, [rows, columns], Pixels::Rgba(&rgba))?;
    Ok(img(alt, &bytes))
}

/// Red, green, blue, and how opaque.
fn opaque(code: Option<u32>) -> [u8; 4] {
    let [r, g, b] = code.map_or([0; 3], named);
    [r, g, b, if code.is_some() { 255 } else { 0 }]
}

fn img(alt: &str, bytes: &[u8]) -> String {
    format!("<img alt=\"{}\" src=\"data:image/png;base64,{}\">", escape(alt), base64(bytes))
}

/// Arrows of a motion to lie over a field, the longest as long as their distance. Where nothing is
/// there to move (`there` is NaN) there is none.
pub(super) fn arrows(
    [rows, columns]: [usize; 2],
    [dx, dy]: [&[f32]; 2],
    there: &[f32],
    lie: Lie,
) -> String {
    let [dx, dy, there] = [dx, dy, there].map(|plane| lie.rows(plane, columns));
    let all = || dx.iter().zip(&dy).zip(&there).enumerate().filter(|(_, (_, v))| !v.is_nan());
    let fastest = all().map(|(_, ((x, y), _))| x.hypot(*y)).fold(0.0_f32, f32::max);
    let mut path = String::new();
    for (at, ((x, y), _)) in all() {
        let (x, y) = (9.0 * x / fastest, if lie.flip { -9.0 } else { 9.0 } * y / fastest);
        // Shorter ones would be dots.
        let length = x.hypot(y);
        if length.is_nan() || length < 2.0 {
            continue;
        }
        let (cx, cy) = ((at % columns) as f32 * 10.0 + 5.0, (at / columns) as f32 * 10.0 + 5.0);
        let (tx, ty) = (cx + x / 2.0, cy + y / 2.0);
        let _ = write!(path, "M{:.1},{:.1}L{tx:.1},{ty:.1}", cx - x / 2.0, cy - y / 2.0);
        for turn in [2.6_f32, -2.6] {
            let (angle, head) = (y.atan2(x) + turn, 0.4 * x.hypot(y));
            let (hx, hy) = (tx + head * angle.cos(), ty + head * angle.sin());
            let _ = write!(path, "M{tx:.1},{ty:.1}L{hx:.1},{hy:.1}");
        }
    }
    let (w, h) = (columns * 10, rows * 10);
    format!(
        "<svg class=\"arrows\" viewBox=\"0 0 {w} {h}\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\"><path class=\"halo\" d=\"{path}\"/><path d=\"{path}\"/></svg>"
    )
}

/// A bar with all colours of a scale, its ends, and what they are.
pub(super) fn bar(shade: Shade, label: &str) -> String {
    let stops: Vec<String> = (0..=12)
        .map(|i| {
            let [r, g, b] = shade.along(i as f32 / 12.0);
            format!("rgb({r} {g} {b})")
        })
        .collect();
    let ends = match shade {
        Shade::Linear(lo, hi) => (short(lo.into()), short(hi.into())),
        Shade::Diverging(limit) => (short((-limit).into()), format!("+{}", short(limit.into()))),
        Shade::Rain => shade.ends(),
    };
    let note = match shade {
        Shade::Rain => "logarithmic; below, dry",
        Shade::Diverging(_) => "blue below, red above",
        Shade::Linear(..) => "",
    };
    format!(
        "<p class=\"scale\"><span>{}</span><i style=\"background:linear-gradient(to right,{})\"></i>\
         <span>{}</span> <span class=\"quiet\">{}{}{note}</span></p>",
        ends.0,
        stops.join(","),
        ends.1,
        escape(label),
        if note.is_empty() { "" } else { "; " },
    )
}

/// Bytes as text (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_text_as_the_rfc_says() {
        let all = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|s| base64(s.as_bytes()));
        assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn a_code_map_is_clear_where_nothing_was_seen() {
        let [r, g, b] = named(3);
        assert_eq!(opaque(Some(3)), [r, g, b, 255]);
        assert_eq!(opaque(None)[3], 0);
        assert!(codes("map", &[Some(1), None], [1, 2], Lie { flip: false }).is_ok());
    }

    #[test]
    fn maps_have_the_larger_coordinate_above() {
        let axis = |values: &[f64], units: &str| Axis {
            name: "y".to_owned(),
            units: units.to_owned(),
            values: values.to_vec(),
        };
        let lie = |y| Lie::of(&Grid { variables: vec![], y, x: Axis::index("x", 2) });
        assert_eq!(lie(axis(&[0.0, 1.0], "km")).rows(&[1, 2, 3, 4], 2), [3, 4, 1, 2]);
        assert_eq!(lie(axis(&[1.0, 0.0], "km")).rows(&[1, 2, 3, 4], 2), [1, 2, 3, 4]);
        assert_eq!(lie(Axis::index("y", 2)).rows(&[1, 2, 3, 4], 2), [1, 2, 3, 4]);
    }
}
