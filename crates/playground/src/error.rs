//! The error of this crate: the failure, its causes, and the next step for the user.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of an error, by the caller's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The arguments are wrong. Nothing was done; a retry fails in the same way.
    Usage,
    /// No playground, or no node of it, could be reached. Nothing was done.
    Unreachable,
    /// The wait timed out. The operation is still running.
    StillRunning,
    /// The playground cannot do this. Nothing was done.
    Refused,
    /// The playground is not in the state that the request needs. Nothing was done.
    Conflict,
    /// The outcome is unknown: the request was sent and its answer was lost.
    Unknown,
    /// The user interrupted the start.
    Interrupted,
    /// Any other failure, above all of the operating system.
    Failed,
}

/// Why a playground, or a request to one, failed. A playground also sends it to the requester.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{what}")]
pub struct Error {
    /// The kind, by which the caller decides its next step.
    pub kind: Kind,
    /// The failure, in one line.
    pub what: String,
    /// The causes, outermost first.
    pub why: Vec<String>,
    /// Steps that the user can take.
    pub next: Vec<String>,
}

impl Error {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), why: Vec::new(), next: Vec::new() }
    }

    pub(crate) fn why(mut self, cause: impl fmt::Display) -> Self {
        self.why.push(cause.to_string());
        self
    }

    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    /// The failure and its causes in one line, for use as the cause of another error.
    pub(crate) fn in_one_line(&self) -> String {
        let parts: Vec<&str> = [&self.what].into_iter().chain(&self.why).map(String::as_str).collect();
        parts.join(": ")
    }
}
