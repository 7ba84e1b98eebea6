//! `quorate-jepsen check`: the verdict on recorded histories.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_jepsen::check::{self, Limits, ModelName, Verdict, replay};
use quorate_jepsen::history::{Format, Operation, parse};
use serde_json::Value;

use super::verdicts;

/// Checks recorded histories.
///
/// Prints "valid|invalid|unknown FILE (operations, milliseconds)", a line for each file; why goes to stderr. Exits with 0 if all
/// are valid, 1 if any is invalid, otherwise 2 if any is unknown or cannot be read.
///
/// A history of ours (jsonl) whose replies say shard, revision and version is also replayed in that order, and its eventual reads
/// are checked for what they promise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate-jepsen check --model cas-register --format edn history.edn\n  \
                        quorate-jepsen check --model kv-version --html why.html out/history.jsonl")]
pub(super) struct Check {
    /// What the history is of: cas-register, kv, kv-version, counter, set, mutex or multi-register.
    #[arg(long, value_name = "MODEL")]
    model: ModelName,
    /// How the files are written; told by their content if it is not said.
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// How long the search in one key may take, before its verdict is unknown.
    #[arg(long, value_name = "SECONDS", default_value_t = check::TIMEOUT_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// How long the search in all keys of a file may take, before the verdict on those that are left is unknown.
    #[arg(long, value_name = "SECONDS", default_value_t = check::TOTAL_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    total: u64,
    /// What every register or key holds at first, in JSON. null, which is absent; for a multi-register in EDN, 0.
    #[arg(long, value_name = "JSON", value_parser = json)]
    initial: Option<Value>,
    /// Where to write a page that shows the violations, if there are any.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The histories.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    /// Jepsen's and Knossos's.
    Edn,
    /// Our own history.jsonl.
    Jsonl,
    /// Porcupine's two, told apart by content.
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

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error} (a text needs its quotes: '\"x\"')"))
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
            // The registers of Knossos's transactions begin at 0.
            (None, ModelName::MultiRegister, Format::Edn) => Value::from(0),
            (None, ..) => Value::Null,
        };
        // The replay begins with nothing.
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
