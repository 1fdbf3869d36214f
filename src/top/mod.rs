//! A running job in a terminal: what its dashboard says, asked for again and again.

mod client;
mod screen;
mod text;

pub use client::Client;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

/// How often the job is asked.
const ASK: Duration = Duration::from_secs(1);

/// Shows the job until q is pressed; without a terminal, once, as text.
///
/// # Errors
/// When there is no dashboard to ask, or it wants another token: says what to do.
pub fn top(client: &Client, out: &mut dyn std::io::Write) -> Result<()> {
    let state = client.state()?;
    if !std::io::stdout().is_terminal() {
        return match out.write_all(text::snapshot(&state).as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        };
    }
    let mut terminal = ratatui::try_init()?;
    let ended = watch(client, &mut terminal, state);
    ratatui::restore();
    ended
}

fn watch(
    client: &Client,
    terminal: &mut ratatui::DefaultTerminal,
    mut state: serde_json::Value,
) -> Result<()> {
    let (mut asked, mut first) = (Instant::now(), 0_usize);
    loop {
        terminal.draw(|frame| screen::draw(frame, &state, first))?;
        if event::poll(ASK.saturating_sub(asked.elapsed()))? {
            let Event::Key(key) = event::read()? else { continue };
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if key.kind != KeyEventKind::Press => {}
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Down => first = first.saturating_add(1),
                KeyCode::Up => first = first.saturating_sub(1),
                _ => {}
            }
            let count = state["sensors"].as_array().map_or(0, Vec::len);
            first = first.min(count.saturating_sub(1));
        }
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            state = client.state()?;
        }
    }
}
