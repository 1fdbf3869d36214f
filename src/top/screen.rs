//! The same on a screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use serde_json::Value;

use super::text;

/// What is looked at.
#[derive(Clone, Copy, Default)]
pub(super) struct Look {
    /// The sensor on top.
    pub(super) first: usize,
    /// The score, in the order of [`text::scores`], and from the first one again.
    pub(super) score: usize,
}

/// Draws the state; `trouble` is why it is old, if it is.
pub(super) fn draw(frame: &mut Frame, state: &Value, trouble: Option<&str>, look: Look) {
    let Look { first, score } = look;
    let scores = text::scores(state);
    let score = scores.get(score % scores.len().max(1)).copied().unwrap_or("rmse");
    let (skill, stages) = (text::skill(state, score), text::stages(state));
    let [head, middle, below, events, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(5),
        Constraint::Length(skill.len() as u16 + 2),
        Constraint::Length(7),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let better = state["lately"][0]["gain"]["persistence"].as_f64();
    let colour = better.map_or(Color::Reset, |gain| signal(gain > 0.0));
    let told = vec![
        match trouble {
            Some(why) => Line::styled(why.to_owned(), Color::Red),
            None => Line::styled(text::head(state), signal(state["ready"] == true)),
        },
        Line::styled(text::answer(state), colour),
    ];
    frame.render_widget(Paragraph::new(told), head);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(middle);
    let mut sensors = text::sensors(state);
    let count = sensors.len() - 1;
    sensors.drain(1..=first.min(count.saturating_sub(1)));
    table(frame, left, &format!(" sensors ({count}) "), sensors);
    table(frame, right, " stages ", stages);
    table(frame, below, &format!(" {} ", text::title(state, score)), skill);
    let lines: Vec<Line> = text::events(state)
        .into_iter()
        .flatten()
        .map(|line| {
            let alarm = line.contains("  alarm ");
            Line::styled(line, if alarm { Color::Red } else { Color::Reset })
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" events ")), events);
    let told = "q quits   up and down: sensors   s: another score";
    frame.render_widget(Line::styled(told, Color::DarkGray), keys);
}

fn signal(good: bool) -> Color {
    if good { Color::Green } else { Color::Red }
}

/// A table whose first row is its head.
fn table(frame: &mut Frame, area: Rect, title: &str, rows: Vec<Vec<String>>) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i));
        Constraint::Length(cells.map(|cell| cell.chars().count()).max().unwrap_or(0) as u16)
    };
    let widths: Vec<Constraint> = (0..columns).map(width).collect();
    let row = |cells: Vec<String>| {
        let colour = match cells.get(1).map(String::as_str) {
            Some("silent") => Color::Red,
            Some("waiting" | "filling") => Color::Yellow,
            _ => Color::Reset,
        };
        Row::new(cells.into_iter().map(Cell::from)).style(colour)
    };
    let mut rows = rows.into_iter();
    let head = rows.next().unwrap_or_default();
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(rows.map(row), widths).header(head).column_spacing(2);
    frame.render_widget(table.block(Block::bordered().title(title.to_owned())), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_shows_the_job() {
        let state = json!({
            "job": {"name": "radar", "in_flight": 8}, "ready": true, "unready": [], "in_flight": 2,
            "uptime_seconds": 61.0,
            "rates": {"frames_per_second": 8.0, "forecasts_per_second": 8.0,
                      "latency_seconds": 0.02, "rooms": [
                {"name": "experts", "per_second": 8.0, "batch": 2.5, "seconds": 0.02, "busy": [0.5]}]},
            "sensors": [{"id": "a", "standing": "silent", "frames": 3, "frame_age_seconds": 40.0,
                         "forecasts": 1, "missing": 0, "late": 4, "rejected": 1,
                         "drift": 0.125, "missing_pixels": 0.375}],
            "lately": [{"span": "day", "gain": {"persistence": 0.25}}],
            "skill": [{"units": "mm h-1", "scores": {
                "rmse": {"physicnet": [0.3], "persistence": [0.4]},
                "csi_0.1": {"physicnet": [0.71], "persistence": [0.62]}}}],
            "events": [{"time": 0, "kind": "alarm", "sensor": "a", "text": "no frame for 40 s"}],
        });
        let mut terminal = Terminal::new(TestBackend::new(200, 24)).unwrap();
        let look = Look::default();
        terminal.draw(|frame| draw(frame, &state, None, look)).unwrap();
        let shown = terminal.backend().to_string();
        for expected in [
            "radar",
            "25 % below persistence over the last day",
            "silent",
            "experts",
            "RMSE by lead, mm h-1",
            "0.3000",
            "alarm",
            "drift",
            "0.12",
            "37.5 %",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        for (score, expected) in [(1, "0.7100"), (2, "0.3000")] {
            terminal.draw(|frame| draw(frame, &state, None, Look { score, ..look })).unwrap();
            let shown = terminal.backend().to_string();
            assert!(shown.contains(expected), "{score}: {shown}");
        }
        terminal.draw(|frame| draw(frame, &state, Some("no answer for 3 s"), look)).unwrap();
        let shown = terminal.backend().to_string();
        assert!(shown.contains("no answer for 3 s") && shown.contains("0.3000"), "{shown}");
        // A job that has only begun, and any size of a screen.
        for (width, height) in [(1, 1), (20, 5), (300, 80)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal
                .draw(|frame| draw(frame, &json!({}), None, Look { first: 7, score: 7 }))
                .unwrap();
        }
    }
}
