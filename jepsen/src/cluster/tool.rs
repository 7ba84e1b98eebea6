//! External programs that the harness needs. Each runs with a time-out; if one is missing, the
//! error names the package to install.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::unsupported::Unsupported;

/// The time-out of a program. Each takes milliseconds, unless it hangs on a disk that a fault
/// froze.
const TOOL_MAX: Duration = Duration::from_secs(20);

/// The Debian package that contains a program.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("iptables-restore", "iptables"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("losetup", "mount"),
    ("nsenter", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("fstrim", "util-linux"),
    ("xfs_io", "xfsprogs"),
    ("faketime", "faketime"),
];

/// Checks that a program is on the search path, or in the directories for administrators' programs,
/// which an ordinary user's path lacks.
pub(crate) fn find(program: &str) -> Result<(), Unsupported> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if known || ["/usr/sbin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).is_file()) {
        return Ok(());
    }
    let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    Err(Unsupported::ProgramMissing { program: program.to_owned(), package: package.to_owned() })
}

/// Runs a program and returns its output. A non-zero exit code is an error with the program's
/// message.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    feed(program, arguments, "").await
}

/// Runs a program like [`run`], with text on its standard input.
pub(crate) async fn feed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A Ctrl-C at the terminal must not interrupt the program.
    command.process_group(0);
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => match find(program) {
            Err(missing) => bail!(missing),
            Ok(()) => return Err(error).with_context(shown),
        },
    };
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    let work = async {
        // If the program ends without reading its input, its exit code is the better error.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TOOL_MAX, work).await.with_context(|| format!("{} timed out", shown()))??;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let input = if input.is_empty() { String::new() } else { format!("\n{input}") };
        bail!("{}: {}: {}{input}", shown(), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
