//! Charts of lines as pixels, one below the other.

use super::axis::{AxisOf, Scale, short};
use super::colour::named;
use super::font::{ADVANCE, HEIGHT};
use super::picture::{GAP, INK, Picture, ZOOM};

/// The area inside the axes, pixels.
const AREA: [usize; 2] = [760, 200];
/// Room for the numbers to the left of it.
const LEFT: usize = 8 * LETTER + GAP;
/// Pixels from one letter to the next, and from one line to the next.
const LETTER: usize = ADVANCE * ZOOM;
const LINE: usize = HEIGHT * ZOOM + GAP / 2;
const GRID: [u8; 3] = [222, 222, 226];

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What it is called.
    pub name: String,
    /// Along x and y; what is not finite interrupts it.
    pub points: Vec<(f64, f64)>,
}

/// Curves over the same axes.
pub struct Chart {
    /// What lies along it.
    pub x: AxisOf,
    /// What is measured.
    pub y: AxisOf,
    /// The curves, the most important one last.
    pub curves: Vec<Curve>,
    /// A place along x that is marked.
    pub marked: Option<f64>,
}

/// Draws charts one below the other under a title.
pub fn plot(title: &str, charts: &[Chart]) -> Picture {
    // The label above, the numbers and the label of x below.
    let each = LINE + GAP + AREA[1] + 2 * LINE + 2 * GAP;
    let mut picture =
        Picture::blank(LEFT + AREA[0] + 3 * GAP, LINE + 2 * GAP + charts.len() * each);
    picture.text(GAP, GAP, title, INK);
    for (at, chart) in charts.iter().enumerate() {
        chart.draw(&mut picture, LINE + 2 * GAP + at * each);
    }
    picture
}

impl Chart {
    fn draw(&self, picture: &mut Picture, top: usize) {
        let [width, height] = AREA;
        let (left, upper) = (LEFT, top + LINE + GAP);
        let inside = |share: f64, side: usize| (share.clamp(0.0, 1.0) * (side - 1) as f64).round();
        let column = |value: f64| left + inside(self.x.share(value), width) as usize;
        let row = |value: f64| upper + inside(1.0 - self.y.share(value), height) as usize;
        for (at, _) in &self.y.ticks {
            let text = short(*at);
            let before = (text.chars().count() * LETTER + GAP).min(left);
            picture.fill(left, row(*at), width, 1, GRID);
            picture.text(left - before, row(*at) - HEIGHT * ZOOM / 2, &text, INK);
        }
        let below = upper + height + GAP / 2;
        let mut free = 0;
        for (at, _) in &self.x.ticks {
            let (text, at) = (short(*at), column(*at));
            let half = text.chars().count() * LETTER / 2;
            picture.fill(at, upper, 1, height, GRID);
            // Numbers that would touch the one before are left out.
            if at.saturating_sub(half) >= free {
                picture.text(at.saturating_sub(half), below, &text, INK);
                free = at + half + LETTER;
            }
        }
        picture.fill(left, upper, 1, height, INK);
        picture.fill(left, upper + height, width, 1, INK);
        let from_right = |text: &str| (left + width).saturating_sub(text.chars().count() * LETTER);
        picture.text(from_right(&self.x.label), below + LINE, &self.x.label, INK);
        picture.text(GAP, top, &self.y.label, INK);
        if let Some(marked) = self.marked {
            (0..height).step_by(6).for_each(|dash| {
                picture.fill(column(marked), upper + dash, 2, 3, INK);
            });
        }
        let mut end = left + width;
        for (at, Curve { name, points }) in self.curves.iter().enumerate().rev() {
            let colour = named(at as u32);
            end = end.saturating_sub((name.chars().count() + 2) * LETTER);
            picture.text(end, top, name, colour);
            for pair in points.windows(2).filter(|pair| pair.iter().all(|p| self.shows(*p))) {
                let [from, to] = [pair[0], pair[1]].map(|(x, y)| [column(x), row(y)]);
                line(picture, from, to, colour);
            }
        }
    }

    fn shows(&self, (x, y): (f64, f64)) -> bool {
        let there =
            |axis: &AxisOf, v: f64| v.is_finite() && (axis.scale == Scale::Linear || v > 0.0);
        there(&self.x, x) && there(&self.y, y)
    }
}

fn line(picture: &mut Picture, from: [usize; 2], to: [usize; 2], colour: [u8; 3]) {
    let steps = from[0].abs_diff(to[0]).max(from[1].abs_diff(to[1])).max(1);
    for step in 0..=steps {
        let along = |i: usize| {
            let share = step as f64 / steps as f64;
            (from[i] as f64 + share * (to[i] as f64 - from[i] as f64)).round() as usize
        };
        picture.fill(along(0), along(1), 2, 2, colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coloured(picture: &Picture, colour: [u8; 3]) -> Vec<[usize; 2]> {
        let ([width, _], rgb) = picture.pixels();
        let at = |(i, c): (usize, &[u8])| (c == colour).then_some([i % width, i / width]);
        rgb.chunks(3).enumerate().filter_map(at).collect()
    }

    #[test]
    fn a_falling_curve_falls_and_a_gap_is_a_gap() {
        let points = |gap: bool| {
            let value = |i: usize| if gap && (40..60).contains(&i) { f64::NAN } else { 1.0 };
            (0..100).map(|i| (i as f64, value(i) / (1.0 + i as f64))).collect::<Vec<_>>()
        };
        let chart = |gap: bool| Chart {
            x: AxisOf::linear("step", 0.0, 99.0),
            y: AxisOf::holding("loss", points(gap).into_iter().map(|(_, y)| y)),
            curves: vec![Curve { name: String::new(), points: points(gap) }],
            marked: None,
        };
        let drawn = coloured(&plot("", &[chart(false)]), named(0));
        let (first, last) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert_eq!((first[0], last[0]), (LEFT, LEFT + AREA[0]), "from one side to the other");
        assert!(last[1] > first[1] + AREA[1] / 2, "down: {first:?} {last:?}");
        let with_gap = coloured(&plot("", &[chart(true)]), named(0));
        let middle = LEFT + AREA[0] / 2;
        assert!(with_gap.iter().all(|[x, _]| *x != middle) && !with_gap.is_empty());
        assert!(drawn.iter().any(|[x, _]| *x == middle));
    }

    #[test]
    fn an_axis_holds_its_values() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![-3.0, 7.0], vec![1e-6, 10.0]] {
            let axis = AxisOf::holding("", values.iter().copied());
            for value in values.into_iter().filter(|value| value.is_finite()) {
                assert!((0.0..=1.0).contains(&axis.share(value)), "{value}");
            }
            let chart =
                Chart { x: axis, y: AxisOf::linear("", 0.0, 0.0), curves: vec![], marked: None };
            plot("nothing", &[chart]);
        }
    }
}
