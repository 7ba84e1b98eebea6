//! Processes of the binary under test.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

/// The binary under test.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_BIN") {
        return Ok(named.into());
    }
    // …/target/PROFILE/deps/this-test → …/target/PROFILE/quorate
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("a test binary has a profile directory")?;
    let binary = profile.join("quorate");
    if !binary.is_file() {
        bail!(
            "{} is missing: run 'cargo build -p quorate-cli --features bugs' first, as ./tests/run does",
            binary.display()
        );
    }
    Ok(binary)
}

/// A command of the binary. Its process dies with the test and has no standard input.
pub fn quorate() -> anyhow::Result<Command> {
    let mut command = Command::new(binary()?);
    command.stdin(Stdio::null()).kill_on_drop(true).env_remove("QUORATE_ENDPOINTS");
    Ok(command)
}

/// Runs the command line tool until it exits.
pub async fn run_cli(endpoints: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = quorate()?;
    command.env("QUORATE_ENDPOINTS", endpoints).args(arguments);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    output.await.with_context(|| format!("quorate {arguments:?} did not exit"))?.map_err(Into::into)
}

/// A file in the folder `shared` beside the workspace; `None` if it is missing.
pub fn shared_file(name: &str) -> Option<PathBuf> {
    // Read at run time: another clone that shares the target directory may have compiled this.
    let tests = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let root = tests.parent()?;
    let file = root.parent()?.join("shared").join(name);
    file.is_file().then_some(file)
}
