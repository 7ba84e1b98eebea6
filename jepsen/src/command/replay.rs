//! `quorate-jepsen replay`: runs the index replay alone.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use quorate_jepsen::check::{Verdict, replay};
use quorate_jepsen::history::{Format, parse};

use super::verdicts;

/// Replay histories of ours (jsonl) in the order that their shards report.
///
/// Prints and exits like `check`, which includes the replay. The replay alone takes linear time,
/// regardless of the number of unknown outcomes.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Write a page with the violations to this file, if there are any.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The history files.
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
