//! Axes of charts: where values lie along them, and round marks.

/// How values become places along an axis.
#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    /// Equal differences are equal steps.
    Linear,
    /// Equal factors are equal steps.
    Log,
}

/// An axis of a chart.
pub struct AxisOf {
    /// What it measures, with its unit.
    pub label: String,
    /// How values become places.
    pub scale: Scale,
    /// The value at its beginning.
    pub from: f64,
    /// The value at its end; it may run backwards.
    pub to: f64,
    /// Where there are marks, and what they say.
    pub ticks: Vec<(f64, String)>,
}

impl AxisOf {
    /// A linear axis with round marks.
    pub fn linear(label: impl Into<String>, from: f64, to: f64) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        let rough = (to - from) / 5.0;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * ten).into_iter().find(|s| *s >= rough);
        let step = step.unwrap_or(rough);
        let first = (from / step).ceil() as i64;
        let ticks = (first..).map(|n| n as f64 * step).take_while(|at| *at <= to + 1e-9 * step);
        let ticks = ticks.map(|at| (at, short(at))).collect();
        Self { label: label.into(), scale: Scale::Linear, from, to, ticks }
    }

    /// A logarithmic axis with a mark at each power of ten.
    pub fn decades(label: impl Into<String>, from: f64, to: f64) -> Self {
        let (low, high) = (from.log10().floor() as i32, to.log10().ceil() as i32);
        let each = ((high - low) / 6 + 1) as usize;
        let powers = (low..=high).step_by(each);
        let ticks = powers.map(|power| (10_f64.powi(power), format!("10{}", raised(power))));
        let (from, to) = (10_f64.powi(low), 10_f64.powi(high.max(low + 1)));
        Self { label: label.into(), scale: Scale::Log, from, to, ticks: ticks.collect() }
    }

    /// An axis that holds these values, with some air; by powers of ten where they span many.
    pub fn holding(label: impl Into<String>, values: impl Iterator<Item = f64> + Clone) -> Self {
        let values = values.filter(|value| value.is_finite());
        let (low, high) = values
            .clone()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > 0.0 && high / low > 30.0 {
            return Self::decades(label, low, high);
        }
        if low > high {
            return Self::linear(label, 0.0, 1.0);
        }
        let air = if high > low { 0.05 * (high - low) } else { 0.05 * high.abs() };
        Self::linear(label, low - air, high + air)
    }

    /// The share of the axis at `value`; it may run backwards.
    pub fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        }
    }
}

fn raised(power: i32) -> String {
    let digit = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32('⁰' as u32 + (c as u32 - '0' as u32)).unwrap_or(c),
    };
    power.to_string().chars().map(digit).collect()
}

/// A number in a few letters.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.1e}")
    } else {
        let digits = (2 - size.log10().floor() as i32).clamp(0, 5) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    }
}
