//! The nodes' clocks, by libfaketime: a library between the node and libc that reads from a file how wrong the clock is.
//!
//! The file is read again every second. (Reading it at every question would slow the node down more than any fault.)

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::options::Clocks;
use super::tool;

/// Where Debian's package `libfaketime` (part of `faketime`) has the library for programs with threads, below `/usr/lib`.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// What a clock that is right says.
const RIGHT: &str = "+0";

/// The library.
fn library() -> Option<PathBuf> {
    let mut dirs = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib"), PathBuf::from("/usr/lib64")];
    dirs.extend(std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path())));
    dirs.iter().map(|dir| dir.join(LIBRARY)).find(|file| file.is_file())
}

/// Whether clocks can be changed; the error says what to install.
pub(crate) fn possible() -> Result<(), String> {
    library().map(|_| ()).ok_or_else(|| "libfaketime is missing (apt-get install faketime)".to_owned())
}

/// The variables of a node whose clock follows the file.
pub(crate) fn environment(clocks: Clocks, file: &Path) -> anyhow::Result<Vec<(String, String)>> {
    if clocks == Clocks::Real {
        return Ok(vec![]);
    }
    let library = library().context("libfaketime is missing (apt-get install faketime)")?;
    let mut variables = vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
    ];
    if clocks == Clocks::Wall {
        variables.push(("DONT_FAKE_MONOTONIC", "1".to_owned()));
    }
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// How wrong a clock is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Skew {
    /// Seconds before (+) or behind (-) the right time.
    pub(crate) seconds: i64,
    /// How fast it goes: 1.1 gains six seconds a minute. From the moment when the file is read.
    pub(crate) rate: Option<f64>,
}

/// Sets a clock. The file is replaced in one step: a half-written one would be another time.
pub(crate) fn set(file: &Path, skew: Skew) -> anyhow::Result<()> {
    let mut text = if skew.seconds == 0 { RIGHT.to_owned() } else { format!("{:+}s", skew.seconds) };
    if let Some(rate) = skew.rate {
        text = format!("{text} x{rate}");
    }
    let new = file.with_extension("new");
    std::fs::write(&new, text + "\n")?;
    std::fs::rename(&new, file).with_context(|| file.display().to_string())
}

/// By how many seconds a process that starts now with that clock is off.
pub(crate) async fn seconds_off(clocks: Clocks, file: &Path) -> anyhow::Result<f64> {
    let variables: Vec<String> =
        environment(clocks, file)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments: Vec<&str> = variables.iter().map(String::as_str).collect();
    arguments.extend(["date", "+%s.%N"]);
    let seen: f64 = tool::run("env", &arguments).await?.trim().parse()?;
    Ok(seen - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Removes what libfaketime leaves in shared memory when its process is killed.
pub(crate) fn forget(pid: u32) {
    for name in [format!("/dev/shm/faketime_shm_{pid}"), format!("/dev/shm/sem.faketime_sem_{pid}")] {
        // Not there where clocks are real.
        let _ = std::fs::remove_file(name);
    }
}
