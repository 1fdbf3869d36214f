//! The same on a screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use serde_json::Value;

use super::text;

/// Draws the state; `trouble` is why it is old, if it is, and `first` the sensor on top.
pub(super) fn draw(frame: &mut Frame, state: &Value, trouble: Option<&str>, first: usize) {
    let (skill, stages) = (text::skill(state), text::stages(state));
    let [head, middle, scores, events, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(5),
        Constraint::Length(skill.len() as u16 + 2),
        Constraint::Length(7),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let better = state["skill"][0]["gain"]["persistence"].as_f64();
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
    table(frame, scores, &format!(" RMSE by lead{} ", text::unit(state)), skill);
    let lines: Vec<Line> = text::events(state)
        .into_iter()
        .flatten()
        .map(|line| {
            let alarm = line.contains("  alarm ");
            Line::styled(line, if alarm { Color::Red } else { Color::Reset })
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" events ")), events);
    frame.render_widget(Line::styled("q quits   up and down: sensors", Color::DarkGray), keys);
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
                         "forecasts": 1, "missing": 0, "late": 1, "rejected": 1}],
            "skill": [{"units": "mm h-1", "gain": {"persistence": 0.25},
                       "rmse": {"physicnet": [0.3], "persistence": [0.4]}}],
            "events": [{"time": 0, "kind": "alarm", "sensor": "a", "text": "no frame for 40 s"}],
        });
        let mut terminal = Terminal::new(TestBackend::new(110, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &state, None, 0)).unwrap();
        let shown = terminal.backend().to_string();
        for expected in ["radar", "25 % below persistence", "silent", "experts", "0.3000", "alarm"]
        {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        terminal.draw(|frame| draw(frame, &state, Some("no answer for 3 s"), 0)).unwrap();
        let shown = terminal.backend().to_string();
        assert!(shown.contains("no answer for 3 s") && shown.contains("0.3000"), "{shown}");
        // A job that has only begun, and any size of a screen.
        for (width, height) in [(1, 1), (20, 5), (300, 80)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &json!({}), None, 7)).unwrap();
        }
    }
}
