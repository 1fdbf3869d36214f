//! Where the dashboard is served, and to whom.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{Access, MAX_TOKEN};

/// A dashboard as a job file says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DashboardConfig {
    /// `address:port` to listen at; port 0 is any that is free.
    pub listen: String,
    /// A file whose content whoever looks has to know; needed unless the address is of this
    /// machine alone.
    pub token_file: Option<PathBuf>,
}

impl Default for DashboardConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".to_owned(), token_file: None }
    }
}

impl DashboardConfig {
    /// Where to listen.
    ///
    /// # Errors
    /// When that is no address, or others could reach it without a token.
    pub fn address(&self) -> Result<SocketAddr> {
        let listen = &self.listen;
        let mut addresses = listen.to_socket_addrs().with_context(|| {
            format!("dashboard.listen: \"{listen}\" is no address; write e.g. 127.0.0.1:8080")
        })?;
        let address = addresses.next().context("dashboard.listen: names no address")?;
        ensure!(
            address.ip().is_loopback() || self.token_file.is_some(),
            "dashboard.listen: {address} can be reached from other machines; name a file with a \
             secret in `dashboard.token_file` (e.g. made by `openssl rand -hex 32`), or listen at \
             127.0.0.1:{}",
            address.port()
        );
        Ok(address)
    }

    /// Who may look.
    ///
    /// # Errors
    /// When the file of the token cannot be read, or holds nothing that could be one.
    pub fn access(&self) -> Result<Access> {
        let Some(path) = &self.token_file else { return Ok(Access::machine()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("dashboard.token_file: reading {}", path.display()))?;
        let token = text.trim();
        ensure!(
            (8..=MAX_TOKEN).contains(&token.len()) && token.chars().all(|c| c.is_ascii_graphic()),
            "dashboard.token_file: {} must hold one word of 8 to {MAX_TOKEN} letters and digits",
            path.display()
        );
        Ok(Access::token(token))
    }
}
