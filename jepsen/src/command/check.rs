//! `quorate-jepsen check`: checks recorded histories.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_jepsen::check::{self, Limits, ModelName, Verdict, replay};
use quorate_jepsen::history::{Format, Operation, parse};
use serde_json::Value;

use super::verdicts;

/// Check recorded histories.
///
/// Prints one line per file, "valid|invalid|unknown FILE (operations, milliseconds)"; reasons go to
/// stderr. Exits with 0 if all histories are valid, 1 if any is invalid, otherwise 2 if any is
/// unknown or unreadable.
///
/// If the replies of a jsonl history contain shard, revision and version, the history is also
/// replayed in that order. Eventual reads are checked against their weaker promise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate-jepsen check --model cas-register --format edn history.edn\n  \
                        quorate-jepsen check --model kv-version --html why.html out/history.jsonl")]
pub(super) struct Check {
    /// Model: cas-register, kv, kv-version, counter, set, mutex or multi-register.
    #[arg(long, value_name = "MODEL")]
    model: ModelName,
    /// Format of the files; detected from their content by default.
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Time limit of the search in one key; beyond it the key's verdict is unknown.
    #[arg(long, value_name = "SECONDS", default_value_t = check::TIMEOUT_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Time limit of the search in all keys of a file; keys left over by then are unknown.
    #[arg(long, value_name = "SECONDS", default_value_t = check::TOTAL_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    total: u64,
    /// Initial value of every register or key, in JSON. Default: null (absent); 0 for a
    /// multi-register in EDN.
    #[arg(long, value_name = "JSON", value_parser = json)]
    initial: Option<Value>,
    /// Write a page with the violations to this file, if there are any.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The history files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    /// EDN of Jepsen and Knossos.
    Edn,
    /// Our own history.jsonl.
    Jsonl,
    /// Porcupine's two formats, told apart by content.
    Porcupine,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Edn => Format::Edn,
            FormatName::Jsonl => Format::Jsonl,
            FormatName::Porcupine => Format::Porcupine,
        }
    }
}

fn json(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).map_err(|error| anyhow::anyhow!("not JSON: {error} (a string needs quotes: '\"x\"')"))
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        verdicts::print(&self.files, self.html.as_deref(), |file| self.check(file))
    }

    fn check(&self, file: &Path) -> (Verdict, Vec<Operation>) {
        let (format, operations) = match parse::read(file, self.format.map(Format::from)) {
            Ok(read) => read,
            Err(error) => return (Verdict::Unknown(error.to_string()), Vec::new()),
        };
        let initial = match (&self.initial, self.model, format) {
            (Some(initial), ..) => initial.clone(),
            // The registers of Knossos's transactions start at 0.
            (None, ModelName::MultiRegister, Format::Edn) => Value::from(0),
            (None, ..) => Value::Null,
        };
        // The replay assumes that all keys are absent at first.
        let replays = format == Format::Jsonl && initial.is_null();
        let limits = Limits {
            timeout: Duration::from_secs(self.timeout),
            total: Duration::from_secs(self.total),
            initial,
            ..Limits::default()
        };
        let mut verdict = check::check(self.model, &operations, &limits);
        if replays && replay::is_replayable(&operations) {
            verdict = verdict.and(replay::replay(&operations).verdict);
        }
        (verdict, operations)
    }
}
