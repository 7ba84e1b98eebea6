//! Other programs that the harness needs: run to their end within a time, with an error that says what to install.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a tool may take. Each takes milliseconds; what takes longer hangs on a disk that we froze.
const TOOL_MAX: Duration = Duration::from_secs(20);

/// The Debian package that holds a program.
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

/// Whether a program is on the search path; the error says which package holds it.
pub(crate) fn find(program: &str) -> Result<(), String> {
    // The programs of administrators are not on everybody's path.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if known || ["/usr/sbin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).is_file()) {
        return Ok(());
    }
    let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    Err(format!("'{program}' is missing (apt-get install {package})"))
}

/// Runs a program and gives its output. A status that is not 0 is an error with what it said.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    feed(program, arguments, "").await
}

/// The same, with standard input.
pub(crate) async fn feed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A Ctrl-C at the terminal must not end it half way.
    command.process_group(0);
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => match find(program) {
            Err(missing) => bail!("{missing}"),
            Ok(()) => return Err(error).with_context(shown),
        },
    };
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    let work = async {
        // A program that ends without reading says why with its status.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TOOL_MAX, work).await.with_context(|| format!("{} hangs", shown()))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let input = if input.is_empty() { String::new() } else { format!("\n{input}") };
        bail!("{}: {}: {}{input}", shown(), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
