//! The command line: one file per subcommand.

mod check;
mod generate;
mod replay;
mod run;
mod sim;
mod suite;
mod verdicts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quorate_jepsen::report::Outcome;
use quorate_jepsen::run::Options;

/// Break Quorate clusters and check the results that their clients saw.
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
    /// Start a cluster, run a workload, inject faults, and check the results.
    ///
    /// Exits with 0 if everything held, 1 after a violation, 2 if a check was undecided, 3 if the
    /// harness failed (a fault was not installed, or the cluster did not start).
    Run(Box<Options>),
    Suite(suite::Arguments),
    Sim(sim::Sim),
}

impl Cli {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Check(check) => check.run(),
            Command::Replay(replay) => replay.run(),
            Command::Generate(generate) => generate.run(),
            Command::Run(options) => on_runtime(run::run(&options)),
            Command::Sim(sim) => sim.run(),
            Command::Suite(arguments) => on_runtime(suite::run(&arguments)),
        }
    }
}

/// Runs a future on a runtime with two threads; clients have threads of their own.
fn on_runtime(work: impl Future<Output = anyhow::Result<u8>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(work)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(Outcome::HarnessFailure.exit_code())
        }
    }
}
