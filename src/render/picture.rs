//! The layout of a picture and its file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::Shade;
use super::file::{Pixels, png};
use super::font::{ADVANCE, HEIGHT, glyph};

/// Air around everything, pixels.
pub(super) const GAP: usize = 8;
/// What is written, is written in.
pub(super) const INK: [u8; 3] = [30, 30, 30];
/// The side that a panel is enlarged to, about.
const SIDE: usize = 168;
/// Letters are drawn this many times as large as they are.
pub(super) const ZOOM: usize = 2;

/// One field of a picture.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// What stands above it.
    pub label: String,
    /// The values, row-major, `width` in a row.
    pub field: &'a [f32],
    /// Columns of the field.
    pub width: usize,
}

/// One row of panels, e.g. one product at every lead.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What stands to its left.
    pub label: String,
    /// From left to right; `None` leaves a place free.
    pub panels: Vec<Option<Panel<'a>>>,
}

/// A drawn picture, RGB of 8 bits.
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// Draws rows of panels under a title, with a colour bar below.
pub fn draw(title: &str, rows: &[Row], shade: Shade, units: &str) -> Picture {
    let panels = || rows.iter().flat_map(|row| row.panels.iter().flatten());
    let sides = |p: &Panel| (p.field.len() / p.width.max(1), p.width);
    let tallest = panels().map(|p| sides(p).0).max().unwrap_or(1).max(1);
    let widest = panels().map(|p| p.width).max().unwrap_or(1).max(1);
    let times = (SIDE / tallest.max(widest)).max(1);
    let letters = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
    let columns = rows.iter().map(|row| row.panels.len()).max().unwrap_or(0);

    let (line, left) = (HEIGHT * ZOOM + GAP / 2, letters * ADVANCE * ZOOM + 2 * GAP);
    let (cell_x, cell_y) = (widest * times + GAP, tallest * times + line + GAP);
    let title_width = title.chars().count() * ADVANCE * ZOOM + 2 * GAP;
    let width = (left + columns * cell_x + GAP).max(title_width);
    let top = line + 2 * GAP;
    let height = top + rows.len() * cell_y + line + 3 * GAP;

    let mut picture = Picture::blank(width, height);
    picture.text(GAP, GAP, title, INK);
    for (j, row) in rows.iter().enumerate() {
        let y = top + j * cell_y;
        picture.text(GAP, y + line + tallest * times / 2 - HEIGHT, &row.label, INK);
        for (i, panel) in row.panels.iter().enumerate() {
            let Some(panel) = panel else { continue };
            let x = left + i * cell_x;
            picture.text(x, y, &panel.label, INK);
            for (at, &value) in panel.field.iter().enumerate() {
                let (v, u) = (at / panel.width, at % panel.width);
                let colour = shade.colour(value);
                picture.fill(x + u * times, y + line + v * times, times, times, colour);
            }
        }
    }
    let (lo, hi) = shade.ends();
    let (bar, y) = (200.min(width / 3), height - line - GAP);
    let after = left + (lo.len() + 1) * ADVANCE * ZOOM;
    picture.text(left, y, &lo, INK);
    for i in 0..bar {
        let colour = shade.along(i as f32 / bar as f32);
        picture.fill(after + i, y, 1, HEIGHT * ZOOM - 2, colour);
    }
    // A dimensionless quantity has the unit 1: not worth a word.
    let units = if units == "1" { "" } else { units };
    picture.text(after + bar + ADVANCE, y, &format!("{hi} {units}"), INK);
    picture
}

impl Picture {
    pub(super) fn blank(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![255; width * height * 3] }
    }

    /// Its width and height, and its pixels.
    #[cfg(test)]
    pub(super) fn pixels(&self) -> ([usize; 2], &[u8]) {
        ([self.width, self.height], &self.rgb)
    }

    /// Writes it as PNG, whole or not at all; into what is there and is no file, as a pipe, as it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let part = path.with_extension("png.part");
        // Nothing may take the place of a device.
        let device = path.exists() && !path.is_file();
        let write = || -> Result<()> {
            let mut file = BufWriter::new(File::create(if device { path } else { &part })?);
            png(&mut file, [self.height, self.width], Pixels::Rgb(&self.rgb))?;
            file.flush()?;
            if !device {
                std::fs::rename(&part, path)?;
            }
            Ok(())
        };
        let written = write();
        if written.is_err() && !device {
            let _ = std::fs::remove_file(&part);
        }
        written.with_context(|| format!("writing the picture {}", path.display()))
    }

    pub(super) fn fill(
        &mut self,
        x: usize,
        y: usize,
        width: usize,
        height: usize,
        colour: [u8; 3],
    ) {
        for v in y..(y + height).min(self.height) {
            for u in x..(x + width).min(self.width) {
                self.rgb[(v * self.width + u) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }

    pub(super) fn text(&mut self, x: usize, y: usize, text: &str, ink: [u8; 3]) {
        for (i, letter) in text.chars().enumerate() {
            for (column, bits) in glyph(letter).into_iter().enumerate() {
                for row in (0..8).filter(|row| bits >> row & 1 == 1) {
                    let at = x + (i * ADVANCE + column) * ZOOM;
                    self.fill(at, y + row * ZOOM, ZOOM, ZOOM, ink);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_a_png_that_decodes() {
        let field: Vec<f32> = (0..12).map(|i| if i == 5 { f32::NAN } else { i as f32 }).collect();
        let panel = || Some(Panel { label: "+1".into(), field: &field, width: 4 });
        let rows = [
            Row { label: "truth".into(), panels: vec![panel(), panel()] },
            Row { label: "forecast".into(), panels: vec![None, panel()] },
        ];
        let picture = draw("12:00 UTC", &rows, Shade::covering([&field[..]]), "mm h-1");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a.png");
        picture.save(&path).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        assert_eq!(rgb, picture.rgb);
        let grey = rgb.chunks(3).filter(|c| c == &[150; 3]).count();
        assert_eq!(grey, 3 * (SIDE / 4).pow(2));
    }

    #[test]
    fn nothing_to_draw_is_no_accident() {
        assert!(draw("", &[], Shade::Rain, "").width > 0);
    }
}
