//! Errors of reading a history.

/// A history cannot be parsed: the first offending line and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// The line number, from 1.
    pub line: u64,
    /// The reason, without the line number.
    pub reason: String,
}

/// The reason that a text is not a value, or a value not an event. The caller adds the line number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    /// The error for a text in this line.
    pub(super) fn at(self, line: u64) -> ParseError {
        ParseError { line, reason: self.0 }
    }
}

impl From<String> for Malformed {
    fn from(reason: String) -> Self {
        Malformed(reason)
    }
}

impl From<&str> for Malformed {
    fn from(reason: &str) -> Self {
        Malformed(reason.to_owned())
    }
}

/// A history file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is missing, unreadable, or not UTF-8.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file does not hold a history.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The file is empty or holds only comments.
    #[error("the file holds no history")]
    Empty,
    /// The content matches no known format.
    #[error("cannot tell the format of the file; name it with --format edn|jsonl|porcupine")]
    Format,
}
