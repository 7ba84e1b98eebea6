//! `quorate-jepsen`: see the library's documentation and `jepsen/README.md`.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    command::Cli::parse().run()
}
