//! Counts as bars, beside what they would be if all were alike.

use std::fmt::Write;

use super::words::escape;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 170.0;
const EDGE: f64 = 12.0;
const BOTTOM: f64 = 30.0;

/// How often each rank came, 0 members below what came to all of them.
pub(super) fn histogram(title: &str, class: &str, counts: &[i64]) -> String {
    let all: i64 = counts.iter().sum();
    let even = 1.0 / counts.len().max(1) as f64;
    let shares: Vec<f64> = counts.iter().map(|n| *n as f64 / all.max(1) as f64).collect();
    let most = shares.iter().fold(even, |most, share| share.max(most));
    let (floor, room) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM - EDGE);
    let step = (WIDTH - 2.0 * EDGE) / counts.len().max(1) as f64;
    let title = escape(title);
    let mut svg = format!(
        "<figure class=\"chart\"><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{title}; the numbers are in a table below\"><g class=\"{class}\">"
    );
    for (rank, (share, count)) in shares.iter().zip(counts).enumerate() {
        let height = room * share / most;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>\
             {rank} below: {count}</title></rect>",
            EDGE + rank as f64 * step,
            floor - height,
            (step - 1.0).max(0.5)
        );
    }
    let level = floor - room * even / most;
    let _ = write!(
        svg,
        "</g><line class=\"zero\" x1=\"{EDGE}\" x2=\"{:.1}\" y1=\"{level:.1}\" y2=\"{level:.1}\"/>\
         <text class=\"dim\" x=\"{EDGE}\" y=\"{:.1}\">all members above</text>\
         <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">all below</text></svg></figure>",
        WIDTH - EDGE,
        HEIGHT - 8.0,
        WIDTH - EDGE,
        HEIGHT - 8.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_counts() {
        let svg = histogram("Ranks", "p-physicnet", &[30, 10, 20]);
        let heights: Vec<f64> = svg
            .split("height=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(heights, [128.0, 42.7, 85.3]);
        assert!(svg.contains("1 below: 10"), "{svg}");
        assert!(!histogram("None", "p-mean", &[0, 0]).contains("NaN"));
    }
}
