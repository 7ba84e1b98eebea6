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

/// For how long a process may go on with what the file said before, in seconds: the library compares whole seconds.
const STALE_MAX: f64 = 2.0;
/// How wrong the age of a process may be, in seconds: the kernel tells its start in hundredths.
const AGE_ERROR: f64 = 0.05;

/// What a clock is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Skew {
    /// How far it jumps, in seconds.
    pub(crate) jump: i64,
    /// How fast it goes from then on: 1.1 gains six seconds a minute.
    pub(crate) rate: f64,
}

impl Skew {
    /// What a clock that is right does.
    pub(crate) const NONE: Skew = Skew { jump: 0, rate: 1.0 };
}

/// How a clock has gone since its process was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How far it was ahead of the right time, in seconds, when it was set last.
    ahead: f64,
    rate: f64,
    /// The age of its process, in seconds, at that moment.
    at: f64,
}

impl Pace {
    /// A clock that was always right.
    pub(crate) const RIGHT: Pace = Pace { ahead: 0.0, rate: 1.0, at: 0.0 };

    /// The clock after it was set, when its process was so old. A wall clock is set from the right time; a monotonic one can
    /// only go on from where it is, and keeps what it has gained. It jumps a little ahead, because it must never go back, and
    /// its process notices late that it goes slower now.
    pub(crate) fn set(self, clocks: Clocks, skew: Skew, age: f64) -> Pace {
        let slower = (self.rate - skew.rate).max(0.0);
        let now = match clocks {
            Clocks::Wall => 0.0,
            _ => self.ahead + (self.rate - 1.0) * (age - self.at) + slower * STALE_MAX + AGE_ERROR,
        };
        Pace { ahead: now + skew.jump as f64, rate: skew.rate, at: age }
    }

    /// What the file says of it. (The library counts what a clock gains from the start of the process.)
    fn text(self) -> String {
        format!("{:+.6}s x{}", self.ahead - (self.rate - 1.0) * self.at, self.rate)
    }
}

/// Writes how a clock goes. The file is replaced in one step: a half-written one would be another time.
pub(crate) fn write(file: &Path, pace: Pace) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, pace.text() + "\n")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_begins_where_it_is() {
        let drifting = Pace::RIGHT.set(Clocks::WallAndMonotonic, Skew { jump: 0, rate: 1.5 }, 10.0);
        // The library makes of it: −4.95 s + 1.5 × 10 s = 10.05 s.
        assert_eq!(drifting.text(), "-4.950000s x1.5");
        let healed = drifting.set(Clocks::WallAndMonotonic, Skew::NONE, 14.0);
        // Two seconds gained, and as much as it gains until it notices.
        assert_eq!(healed.text(), "+3.100000s x1");
        assert_eq!(drifting.set(Clocks::Wall, Skew::NONE, 14.0).text(), "+0.000000s x1");
        assert_eq!(Pace::RIGHT.set(Clocks::Wall, Skew { jump: -60, rate: 1.0 }, 3.0).text(), "-60.000000s x1");
    }
}
