//! A running job in a terminal: what its dashboard says, asked for again and again.

mod client;
mod screen;
mod text;

pub use client::Client;

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

/// How often the job is asked.
const ASK: Duration = Duration::from_secs(1);
/// How often to see what it has answered.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the job until q is pressed; without a terminal, once, as text. A job that answers no more is
/// asked again, and what was known of it stays.
///
/// # Errors
/// When at the beginning there is no dashboard to ask, or it wants another token: says what to do.
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
    state: serde_json::Value,
) -> Result<()> {
    let mut told = Told { state, heard: Instant::now(), trouble: None };
    let answers = ask(client.clone());
    let mut look = screen::Look::default();
    loop {
        answers.try_iter().for_each(|answer| told.take(answer));
        terminal.draw(|frame| screen::draw(frame, &told.state, told.trouble().as_deref(), look))?;
        if event::poll(LOOK)? {
            let Event::Key(key) = event::read()? else { continue };
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if key.kind != KeyEventKind::Press => {}
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Down => look.first = look.first.saturating_add(1),
                KeyCode::Up => look.first = look.first.saturating_sub(1),
                KeyCode::Char('s') => look.score = look.score.wrapping_add(1),
                _ => {}
            }
            let count = told.state["sensors"].as_array().map_or(0, Vec::len);
            look.first = look.first.min(count.saturating_sub(1));
        }
    }
}

/// Asks again and again, on a thread of its own: keys do not wait for an answer.
fn ask(client: Client) -> Receiver<Result<serde_json::Value>> {
    let (answer, answers) = sync_channel(1);
    std::thread::spawn(move || {
        while answer.send(client.state()).is_ok() {
            std::thread::sleep(ASK);
        }
    });
    answers
}

/// What was heard of the job.
struct Told {
    state: serde_json::Value,
    heard: Instant,
    /// Why nothing was heard since.
    trouble: Option<String>,
}

impl Told {
    /// Takes an answer in; one that failed leaves what was known, and why it is old.
    fn take(&mut self, answer: Result<serde_json::Value>) {
        match answer {
            Ok(state) => *self = Self { state, heard: Instant::now(), trouble: None },
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }

    /// Why what is shown is old, and how old.
    fn trouble(&self) -> Option<String> {
        let since = self.heard.elapsed().as_secs();
        let trouble = self.trouble.as_ref();
        trouble.map(|why| format!("no answer for {since} s, asking again: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_ask_is_told_and_ends_nothing() {
        let heard = Instant::now();
        let mut told = Told { state: json!({"frames": 7}), heard, trouble: None };
        assert_eq!(told.trouble(), None);
        told.take(Err(anyhow::anyhow!("connection refused")));
        assert!(told.trouble().unwrap().ends_with("asking again: connection refused"));
        assert_eq!(told.state["frames"], 7, "what was known is still shown");
        told.take(Ok(json!({"frames": 9})));
        assert_eq!((told.trouble(), &told.state["frames"]), (None, &json!(9)));
    }
}
