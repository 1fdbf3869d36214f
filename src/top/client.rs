//! Asks a dashboard, by plain HTTP.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is longer.
const MOST: u64 = 32 << 20;

/// A dashboard to ask.
#[derive(Clone)]
pub struct Client {
    /// `host:port`.
    host: String,
    token: Option<String>,
}

impl Client {
    /// The dashboard at `url`, whose token is in a file if it wants one.
    ///
    /// # Errors
    /// When the address is not one, or the file cannot be read.
    pub fn new(url: &str, token_file: Option<&Path>) -> Result<Self> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        ensure!(
            !url.starts_with("https://"),
            "{url}: TLS is not spoken here; make a tunnel, e.g. `ssh -L 8080:127.0.0.1:8080 HOST`, \
             and ask http://127.0.0.1:8080"
        );
        let host = rest.split('/').next().unwrap_or_default();
        let host = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path);
            text.with_context(|| format!("reading the token in {}", path.display()))
        };
        let token = token_file.map(read).transpose()?.map(|text| text.trim().to_owned());
        Ok(Self { host, token })
    }

    /// How the job does.
    ///
    /// # Errors
    /// When nobody answers, or not as a dashboard does.
    pub fn state(&self) -> Result<Value> {
        let (status, body) = self.get("/api/state").with_context(|| {
            format!(
                "no job answers at http://{}; start one with `dashboard: {{}}` in its file (or \
                 `physicnet demo --dashboard`), and name its address by --url",
                self.host
            )
        })?;
        match status {
            200 => serde_json::from_str(&body)
                .map(printable)
                .with_context(|| format!("http://{} is no dashboard of ours", self.host)),
            401 if self.token.is_none() => bail!(
                "the dashboard at http://{} wants its token: name the job's \
                 `dashboard.token_file` by --token-file",
                self.host
            ),
            401 => bail!("the dashboard at http://{} does not know this token", self.host),
            404 => bail!("http://{} is no dashboard of ours", self.host),
            status => bail!("http://{} answers {status}: {}", self.host, body.trim()),
        }
    }

    /// The status and the body of the answer to one request.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        let addresses = self.host.to_socket_addrs()?;
        let mut failure = None;
        let connected = addresses.into_iter().find_map(|address| {
            let connected = TcpStream::connect_timeout(&address, PATIENCE);
            connected.map_err(|error| failure = Some(error)).ok()
        });
        let Some(mut stream) = connected else {
            return match failure {
                Some(error) => Err(error.into()),
                None => bail!("{} names no machine", self.host),
            };
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let token = self.token.as_ref();
        let token =
            token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        // In HTTP/1.0 an answer comes in one piece and ends with the connection.
        let host = &self.host;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n{token}\r\n")?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.context("not HTTP")?, body.to_owned()))
    }
}

/// Without what would work on a terminal: anyone who sends frames names sensors.
fn printable(value: Value) -> Value {
    let plain = |text: String| text.replace(char::is_control, "\u{fffd}");
    match value {
        Value::String(text) => Value::String(plain(text)),
        Value::Array(all) => all.into_iter().map(printable).collect(),
        Value::Object(all) => {
            all.into_iter().map(|(key, value)| (plain(key), printable(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_do_not_work_on_the_terminal() {
        let state = json!({"sensors": [{"id": "a\u{1b}[2Jb\u{9b}\n"}], "k\r": ["ü"], "n": 1});
        let shown = json!({"sensors": [{"id": "a\u{fffd}[2Jb\u{fffd}\u{fffd}"}], "k\u{fffd}": ["ü"], "n": 1});
        assert_eq!(printable(state), shown);
    }
}
