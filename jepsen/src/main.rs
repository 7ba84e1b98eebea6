//! `quorate-jepsen`: see the library's documentation and `jepsen/README.md`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quorate_jepsen::command;
use quorate_jepsen::report::Outcome;
use quorate_jepsen::run::Options;

/// Tests a Quorate cluster while it is broken, and checks what its clients saw
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster, work on it, break it, and check what the clients saw. Exit 0 pass, 1 violation, 2 unknown, 3 harness
    /// failure
    Run(Box<Options>),
    /// Make many runs, and print a table. Exits with the worst code
    Suite(command::suite::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(options) => on_runtime(command::run::run(&options)),
        Command::Suite(arguments) => on_runtime(command::suite::run(&arguments)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(Outcome::HarnessFailure.exit_code())
        }
    }
}

/// What runs clusters is asynchronous; the clients have threads of their own beside this.
fn on_runtime(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}
