//! A picture in the terminal: two pixels in a character, by half blocks in 24-bit colour.

use std::fmt::Write;

use super::Shade;

/// `field`, `width` in a row, as `to` columns and rows: the mean of what is measured where it
/// shrinks, the nearest value where it grows.
pub fn resized(field: &[f32], width: usize, to: [usize; 2]) -> Vec<f32> {
    let ([columns, rows], height) = (to, field.len() / width.max(1));
    // The part of `from` pixels that lies under pixel `at` of `to`: never empty.
    let part = |at: usize, to: usize, from: usize| {
        let begin = (at * from / to).min(from - 1);
        begin..((at + 1) * from / to).clamp(begin + 1, from)
    };
    if width == 0 || height == 0 {
        return Vec::new();
    }
    let mean = |row: usize, column: usize| {
        let (mut sum, mut count) = (0.0_f64, 0_u32);
        for y in part(row, rows, height) {
            for value in &field[y * width..][part(column, columns, width)] {
                if value.is_finite() {
                    (sum, count) = (sum + f64::from(*value), count + 1);
                }
            }
        }
        if count == 0 { f32::NAN } else { (sum / f64::from(count)) as f32 }
    };
    (0..rows).flat_map(|row| (0..columns).map(move |column| mean(row, column))).collect()
}

/// Fields of `width` columns side by side in at most `columns` x `rows` characters.
pub fn blocks(
    fields: &[&[f32]],
    width: usize,
    shade: Shade,
    columns: usize,
    rows: usize,
) -> String {
    let height = fields.first().map_or(0, |field| field.len() / width.max(1));
    if width == 0 || height == 0 {
        return String::new();
    }
    let room = [(columns / fields.len()).saturating_sub(1).max(1), (2 * rows).max(2)];
    // As large as fits, without a change of its proportions.
    let scale = (room[0] as f64 / width as f64).min(room[1] as f64 / height as f64);
    let side =
        |pixels: usize, room: usize| ((pixels as f64 * scale).round() as usize).clamp(1, room);
    let (across, down) = (side(width, room[0]), side(height, room[1]));
    let fields: Vec<_> = fields.iter().map(|f| resized(f, width, [across, down])).collect();
    let mut text = String::new();
    for row in (0..down).step_by(2) {
        for field in &fields {
            for column in 0..across {
                let [r, g, b] = shade.colour(field[row * across + column]);
                let _ = write!(text, "\x1b[38;2;{r};{g};{b}m");
                if let Some(below) = field.get((row + 1) * across + column) {
                    let [r, g, b] = shade.colour(*below);
                    let _ = write!(text, "\x1b[48;2;{r};{g};{b}m");
                }
                text.push('▀');
            }
            text.push_str("\x1b[0m ");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_shrink_to_means_and_grow_to_neighbours() {
        let field = [1.0, 3.0, f32::NAN, 5.0, 7.0, f32::NAN];
        assert_eq!(resized(&field, 2, [1, 3]), [2.0, 5.0, 7.0]);
        assert_eq!(resized(&field[..2], 2, [4, 1]), [1.0, 1.0, 3.0, 3.0]);
        assert!(resized(&[f32::NAN], 1, [2, 1]).iter().all(|value| value.is_nan()));
        assert!(resized(&[], 0, [2, 2]).is_empty());
    }

    #[test]
    fn a_picture_fits_its_terminal() {
        let field = vec![0.5; 64 * 48];
        for (columns, rows) in [(80, 24), (40, 50), (1, 1), (200, 3)] {
            let text = blocks(&[&field, &field], 64, Shade::Linear(0.0, 1.0), columns, rows);
            let lines: Vec<_> = text.lines().collect();
            assert!(lines.len() <= rows, "{} lines of {rows}", lines.len());
            let across = lines[0].chars().filter(|c| *c == '▀').count();
            assert!(across <= columns.max(2), "{across} blocks of {columns}");
            assert!(lines.iter().all(|line| line.ends_with("\x1b[0m ")));
        }
        assert_eq!(blocks(&[&[]], 0, Shade::Rain, 80, 24), "");
    }
}
