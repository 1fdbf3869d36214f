//! Pixels as a PNG file.

use std::io::Write;

use anyhow::Result;

use super::Shade;

/// What the pixels of a picture are, row-major.
#[derive(Clone, Copy)]
pub enum Pixels<'a> {
    /// Three bytes each.
    Rgb(&'a [u8]),
    /// Four bytes each, the last one how opaque it is.
    Rgba(&'a [u8]),
    /// An entry of a palette each; the last entry is transparent.
    Indexed(&'a [u8], &'a [[u8; 3]]),
}

/// Writes a picture of `height` rows and `width` columns.
///
/// # Errors
/// When it cannot be written.
pub fn png(out: impl Write, [height, width]: [usize; 2], pixels: Pixels) -> Result<()> {
    let mut encoder = png::Encoder::new(out, width as u32, height as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let data = match pixels {
        Pixels::Rgb(data) => {
            encoder.set_color(png::ColorType::Rgb);
            data
        }
        Pixels::Rgba(data) => {
            encoder.set_color(png::ColorType::Rgba);
            data
        }
        Pixels::Indexed(data, palette) => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette.concat());
            let mut opaque = vec![255; palette.len()];
            opaque.last_mut().into_iter().for_each(|last| *last = 0);
            encoder.set_trns(opaque);
            data
        }
    };
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    writer.finish()?;
    Ok(())
}

/// A field of `width` columns as PNG, a byte a pixel before it is packed: its colours are those of
/// `shade` to one in 250; missing pixels are transparent.
///
/// # Errors
/// When the field is empty.
pub fn shaded(field: &[f32], width: usize, shade: Shade) -> Result<Vec<u8>> {
    const STEPS: usize = 250;
    // Along the scale, then dry, then missing.
    let mut palette: Vec<[u8; 3]> =
        (0..STEPS).map(|i| shade.along((i as f32 + 0.5) / STEPS as f32)).collect();
    palette.extend([shade.colour(0.0), [0, 0, 0]]);
    let step = |share: f32| (share.clamp(0.0, 1.0) * (STEPS - 1) as f32).round() as u8;
    let index = |value: &f32| match shade {
        _ if !value.is_finite() => STEPS as u8 + 1,
        Shade::Linear(lo, hi) => step((value - lo) / (hi - lo)),
        Shade::Rain if *value < 0.1 => STEPS as u8,
        Shade::Rain => step((value.log10() + 1.0) / 3.0),
        Shade::Diverging(limit) => step(0.5 + 0.5 * value / limit),
    };
    let pixels: Vec<u8> = field.iter().map(index).collect();
    let mut out = Vec::new();
    png(&mut out, [field.len() / width.max(1), width], Pixels::Indexed(&pixels, &palette))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_its_colours_and_what_is_missing_is_clear() {
        let field = [0.0, 1.0, f32::NAN, 0.5, 0.25, 0.75];
        let shade = Shade::Linear(0.0, 1.0);
        let bytes = shaded(&field, 3, shade).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut rgba = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgba).unwrap();
        assert_eq!((info.width, info.height), (3, 2));
        for (value, pixel) in field.iter().zip(rgba.chunks(4)) {
            let clear = if value.is_nan() { 0 } else { 255 };
            assert_eq!(pixel[3], clear, "{value}");
            let wanted = shade.colour(*value);
            let near = pixel.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 3);
            assert!(near || value.is_nan(), "{value}: {pixel:?} {wanted:?}");
        }
        assert!(shaded(&[], 3, shade).is_err());
    }
}
