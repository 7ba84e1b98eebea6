//! What can be typed: each subcommand has a file of its own.

mod check;
mod generate;
mod replay;
mod verdicts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks Quorate clusters and checks what their clients saw.
#[derive(Debug, Parser)]
#[command(name = "quorate-jepsen", version, about, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Replay(replay::Replay),
    Generate(generate::Generate),
}

impl Cli {
    /// Does what was typed.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Check(check) => check.run(),
            Command::Replay(replay) => replay.run(),
            Command::Generate(generate) => generate.run(),
        }
    }
}
