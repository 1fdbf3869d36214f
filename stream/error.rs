//! What can go wrong at the edges, in words that say whose fault it is and what to do.

use std::fmt;

/// A result whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure at an edge: of a store, a topic, a file, a value that does not fit.
///
/// `what` names the file, topic, key or field; `why` says what is wrong with it and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Error {
    /// The file, topic, key or field at fault.
    pub what: String,
    /// What is wrong and what to do about it.
    pub why: String,
}

impl Error {
    /// An error about `what`, because of `why`.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { what: what.to_string(), why: why.to_string() }
    }
}
