//! The failure of a command: an error, its causes, hints for the user, and the exit code.
//!
//! Errors of the client library and the playground are mapped here, those of admin
//! requests in `admin_failure`.

use std::fmt;
use std::process::ExitCode;

use quorate_client::Error;
use quorate_playground as playground;

/// Exit codes, sorted by the next step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A failure without a code of its own.
    Other = 1,
    /// The command line or its input is wrong; no retry helps.
    Usage = 2,
    /// The cluster is unreachable, or cannot decide yet, and nothing was applied; a retry is safe.
    Unreachable = 3,
    /// The wait timed out; the operation is still running.
    StillRunning = 4,
    /// The cluster refused the change for safety; nothing was changed.
    Refused = 5,
    /// A condition did not hold, or the cluster is not as expected; nothing was changed.
    Conflict = 6,
    /// A check found something wrong.
    CheckFailed = 8,
    /// The outcome is unknown: the write may or may not have been applied.
    Unknown = 10,
    /// The key is absent.
    Absent = 11,
    /// `node start`: the data directory's format is too new, or broken.
    DataFormat = 65,
    /// `node start`: the data directory is locked or cannot be written.
    DataDir = 73,
    /// `node start`: the disk failed, and the node stopped.
    DiskIo = 74,
    /// `node start`: the configuration is wrong.
    Config = 78,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Failure {
    /// A failure without cause or hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Adds a cause.
    pub(crate) fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds an error and its sources as causes.
    pub(crate) fn chain(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some errors repeat the text of their source.
            if !self.causes.iter().any(|cause| cause.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds a next step.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// A failed operation of the client.
    pub(crate) fn from_client(message: impl Into<String>, error: Error) -> Self {
        let message = message.into();
        match error {
            Error::Unreachable { reason } => Failure::new(Exit::Unreachable, message)
                .cause(reason)
                .hint("nothing was applied; check the cluster: quorate status")
                .hint("to use other addresses: --endpoints host:port,… or QUORATE_ENDPOINTS"),
            Error::Overloaded { reason } => Failure::new(Exit::Unreachable, message)
                .cause(format!("overloaded: {reason}"))
                .hint("nothing was applied; retry with fewer concurrent requests or a longer --deadline"),
            Error::Refused { version, current } => {
                let failure = Failure::new(Exit::Conflict, message).cause("the condition does not hold");
                match (version, current) {
                    (0, _) => failure.cause("the key is absent"),
                    (version, None) => failure.cause(format!("the key's version is {version}")),
                    (version, Some(record)) => failure
                        .cause(format!("the key's version is {version}"))
                        .cause(format!("its value is {}", shown(record.value.as_bytes()))),
                }
                .hint("nothing was changed; read the key and decide again")
            }
            Error::Unknown { reason } => Failure::new(Exit::Unknown, message)
                .cause(reason)
                .hint("the write may or may not have been applied; read the key to find out"),
            Error::Invalid { reason } => Failure::new(Exit::Usage, message).cause(reason),
            Error::DiskFull => Failure::new(Exit::Other, message)
                .cause("the shard's nodes have less free disk space than their reserve")
                .hint("nothing was applied; reads and deletes still work: free disk space on the nodes"),
            other => Failure::new(Exit::Other, message).chain(&other),
        }
    }

    /// The error message, without causes and hints.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The exit code, by name.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<playground::Error> for Failure {
    fn from(playground::Error { kind, what, why, next }: playground::Error) -> Self {
        let exit = match kind {
            playground::Kind::Usage => Exit::Usage,
            playground::Kind::Unreachable => Exit::Unreachable,
            playground::Kind::StillRunning => Exit::StillRunning,
            playground::Kind::Refused => Exit::Refused,
            playground::Kind::Conflict => Exit::Conflict,
            playground::Kind::Unknown => Exit::Unknown,
            playground::Kind::Interrupted => Exit::Interrupted,
            playground::Kind::Failed => Exit::Other,
        };
        Failure { exit, message: what, causes: why, hints: next }
    }
}

/// Bytes of a value that an error shows at most.
const SHOWN_BYTES_MAX: usize = 64;

fn shown(value: &[u8]) -> String {
    match value.split_at_checked(SHOWN_BYTES_MAX) {
        Some((start, rest)) if !rest.is_empty() => format!("'{}'… ({} bytes)", start.escape_ascii(), value.len()),
        _ => format!("'{}'", value.escape_ascii()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        block(f, "cause: ", &self.causes)?;
        block(f, "hint:  ", &self.hints)
    }
}

/// Writes a label and its lines, all lines aligned.
fn block(f: &mut fmt::Formatter<'_>, label: &str, texts: &[String]) -> fmt::Result {
    for (at, line) in texts.iter().flat_map(|text| text.lines()).enumerate() {
        writeln!(f, "  {}{line}", if at == 0 { label } else { "       " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_types::{Record, Value};

    use super::*;

    fn record(value: &'static [u8]) -> Option<Record> {
        Some(Record { version: 7, value: Value::new(value).unwrap(), expires_at_ms: None })
    }

    #[test]
    fn each_client_error_has_its_exit_code() {
        let reason = || "because".to_owned();
        for (error, code) in [
            (Error::Unreachable { reason: reason() }, 3),
            (Error::Overloaded { reason: reason() }, 3),
            (Error::Refused { version: 7, current: record(b"x") }, 6),
            (Error::Unknown { reason: reason() }, 10),
            (Error::Invalid { reason: reason() }, 2),
            (Error::DiskFull, 1),
        ] {
            assert_eq!(Failure::from_client("m", error).exit() as u8, code);
        }
    }

    #[test]
    fn a_failure_reads_as_error_cause_and_hint() {
        let error = Error::Refused { version: 7, current: record(b"wor\nld") };
        assert_eq!(
            Failure::from_client("cannot put 'hello'", error).to_string(),
            "error: cannot put 'hello'\n\
             \x20 cause: the condition does not hold\n\
             \x20        the key's version is 7\n\
             \x20        its value is 'wor\\nld'\n\
             \x20 hint:  nothing was changed; read the key and decide again\n"
        );
        let error = Error::Unknown { reason: "no reply within 5 s".into() };
        assert_eq!(
            Failure::from_client("cannot put 'hello'", error).to_string(),
            "error: cannot put 'hello'\n\
             \x20 cause: no reply within 5 s\n\
             \x20 hint:  the write may or may not have been applied; read the key to find out\n"
        );
        assert_eq!(Failure::new(Exit::Other, "plain").to_string(), "error: plain\n");
    }

    #[test]
    fn a_long_value_is_truncated() {
        assert_eq!(shown(b"short"), "'short'");
        assert_eq!(shown(&[b'a'; 64]), format!("'{}'", "a".repeat(64)));
        assert_eq!(shown(&[b'a'; 65]), format!("'{}'… (65 bytes)", "a".repeat(64)));
    }

    #[test]
    fn a_chain_has_no_text_twice() {
        let io = std::io::Error::other("disk on fire");
        let failure = Failure::new(Exit::Other, "m").cause("write: disk on fire").chain(&io);
        assert_eq!(failure.to_string(), "error: m\n  cause: write: disk on fire\n");
    }
}
