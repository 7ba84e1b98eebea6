//! `quorate-jepsen replay`: the verdict of the index replay alone.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use quorate_jepsen::check::{Verdict, replay};
use quorate_jepsen::history::{Format, parse};

use super::verdicts;

/// Replays histories of ours (jsonl) in the order that their shards report.
///
/// Prints and exits as `check` does, which includes this. Alone it takes time in proportion to the history, however many
/// outcomes are unknown.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Where to write a page that shows the violations, if there are any.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The histories.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Replay {
    pub(super) fn run(self) -> ExitCode {
        verdicts::print(&self.files, self.html.as_deref(), |file| match parse::read(file, Some(Format::Jsonl)) {
            Ok((_, operations)) => (replay::replay(&operations).verdict, operations),
            Err(error) => (Verdict::Unknown(error.to_string()), Vec::new()),
        })
    }
}
