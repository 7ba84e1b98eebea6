//! `quorate-jepsen`: see the documentation of the library, and `jepsen/README.md`.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    command::Cli::parse().run()
}
