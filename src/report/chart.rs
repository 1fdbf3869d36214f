//! Line charts as SVG: axes, a line for each of several names, bands of confidence.

use std::fmt::Write;

use super::words::{escape, short};
pub(super) use crate::render::{AxisOf, Scale};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// One line of a chart.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Half the height of a band around each point; empty for none.
    pub(super) margins: Vec<f64>,
}

pub(super) struct Chart {
    /// What it shows, for those who do not see it.
    pub(super) title: String,
    pub(super) x: AxisOf,
    pub(super) y: AxisOf,
    pub(super) lines: Vec<Line>,
    /// A value to hold the lines against.
    pub(super) zero: Option<f64>,
    /// Whether points are marked: where there are few.
    pub(super) marked: bool,
}

impl Chart {
    /// The chart with its caption; what leaves it at the top or bottom is cut off there.
    pub(super) fn figure(&self) -> String {
        let title = escape(&self.title);
        format!("<figure class=\"chart\"><figcaption>{title}</figcaption>{}</figure>", self.svg())
    }

    fn svg(&self) -> String {
        let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * self.x.share(value);
        let place = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - self.y.share(value));
        let (low, high) = (HEIGHT - BOTTOM, TOP);
        let y = |value: f64| place(value).clamp(high, low);
        let inside = |value: f64| (high - 0.5..=low + 0.5).contains(&place(value));
        let right = WIDTH - RIGHT;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}; the numbers are in \
             a table below\">",
            escape(&self.title)
        );
        for (at, text) in &self.y.ticks {
            let at = place(*at);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"dim\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (at, text) in &self.x.ticks {
            let at = x(*at);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{low}\" y2=\"{}\"/>\
                 <text class=\"dim\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                low + 4.0,
                low + 18.0
            );
        }
        let _ = write!(
            svg,
            "<text class=\"dim\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text class=\"dim\" transform=\"translate(11 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            0.5 * (LEFT + right),
            HEIGHT - 6.0,
            escape(&self.x.label),
            0.5 * (low + high),
            escape(&self.y.label)
        );
        if let Some(zero) = self.zero.filter(|zero| inside(*zero)) {
            let at = y(zero);
            let _ = write!(
                svg,
                "<line class=\"zero\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            );
        }
        for Line { class, points, margins, .. } in &self.lines {
            let band: Vec<_> =
                points.iter().zip(margins).filter(|((_, v), m)| (v + **m).is_finite()).collect();
            if band.len() > 1 {
                let edge = |sign: f64| {
                    let edge = move |((at, value), margin): &(&(f64, f64), &f64)| {
                        format!("{:.1},{:.1}", x(*at), y(value + sign * **margin))
                    };
                    band.iter().map(edge).collect::<Vec<_>>()
                };
                let (mut around, mut back) = (edge(1.0), edge(-1.0));
                back.reverse();
                around.append(&mut back);
                let _ = write!(svg, "<path class=\"band {class}\" d=\"M{}z\"/>", around.join("L"));
            }
        }
        let mut ends: Vec<(f64, f64, &Line, &str)> = Vec::new();
        // Ours last, over the others.
        for line in self.lines.iter().rev() {
            let (class, mut path, mut last, mut pen) = (&line.class, String::new(), None, false);
            for &(at, value) in &line.points {
                if !value.is_finite() {
                    pen = false;
                    continue;
                }
                let _ = write!(path, "{}{:.1},{:.1}", if pen { "L" } else { "M" }, x(at), y(value));
                pen = true;
                last = Some((x(at), y(value), inside(value)));
                if !inside(value) {
                    // It leaves the figure.
                    break;
                }
            }
            let Some((end, height, stays)) = last else { continue };
            let name = escape(&line.name);
            let _ = write!(
                svg,
                "<path class=\"line {class}\" d=\"{path}\"><title>{name}</title></path>"
            );
            if self.marked {
                for &(at, value) in line.points.iter().filter(|(_, v)| v.is_finite() && inside(*v))
                {
                    let _ = write!(
                        svg,
                        "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"><title>{name}: \
                         {}</title></circle>",
                        x(at),
                        y(value),
                        short(value)
                    );
                }
            }
            let (end, arrow) = match (stays, height > 0.5 * (low + high)) {
                (true, _) => (right.max(end), ""),
                (false, true) => (end, " ↘"),
                (false, false) => (end, " ↗"),
            };
            ends.push((end + 6.0, height + 4.0, line, arrow));
        }
        ends.sort_by(|a, b| a.1.total_cmp(&b.1));
        // Names that would overlap move down; then all up, if they fell out of the figure.
        for i in 1..ends.len() {
            ends[i].1 = ends[i].1.max(ends[i - 1].1 + 13.0);
        }
        let over = ends.last().map_or(0.0, |end| (end.1 - HEIGHT + 8.0).max(0.0));
        for (end, height, line, arrow) in &ends {
            let _ = write!(
                svg,
                "<text class=\"name {}\" x=\"{end:.1}\" y=\"{:.1}\">{}{arrow}</text>",
                line.class,
                height - over,
                escape(&line.name)
            );
        }
        svg + "</svg>"
    }
}
