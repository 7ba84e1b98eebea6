//! The nodes' clocks, by libfaketime: a library between the node and libc that reads the clock's
//! error from a file.
//!
//! The library reads the file again every second. Reading it at every clock access would slow the
//! node down more than any fault.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use super::tool;
use super::unsupported::Unsupported;

/// The clocks of the nodes that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clocks {
    /// None: the nodes use the machine's clocks.
    Real,
    /// The wall clock, as a wrong NTP server or an operator would change it. Time-outs are
    /// unaffected.
    Wall,
    /// The wall clock and the monotonic clock, as after the migration of a virtual machine or with
    /// a bad oscillator.
    WallAndMonotonic,
}

/// The path of the library for threaded programs in Debian's package `libfaketime` (part of
/// `faketime`), below `/usr/lib`.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The installed library.
fn library() -> Option<PathBuf> {
    let mut dirs = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib"), PathBuf::from("/usr/lib64")];
    dirs.extend(std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path())));
    dirs.iter().map(|dir| dir.join(LIBRARY)).find(|file| file.is_file())
}

/// Checks that clocks can be changed.
pub(crate) fn supported() -> Result<(), Unsupported> {
    library().map(|_| ()).ok_or(Unsupported::FaketimeMissing)
}

/// The environment variables of a node whose clock follows the file.
pub(crate) fn environment(clocks: Clocks, file: &Path) -> anyhow::Result<Vec<(String, String)>> {
    if clocks == Clocks::Real {
        return Ok(vec![]);
    }
    let library = library().ok_or(Unsupported::FaketimeMissing)?;
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

/// The longest time for which a process may use a stale reading of the file, in seconds: the
/// library compares whole seconds.
const STALE_MAX: f64 = 2.0;
/// The error of a process's age, in seconds: the kernel reports start times in hundredths.
const AGE_ERROR: f64 = 0.05;

/// A change to a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Skew {
    /// The jump, in seconds.
    pub(crate) jump: i64,
    /// The rate after the jump: 1.1 gains six seconds a minute.
    pub(crate) rate: f64,
}

impl Skew {
    /// No jump, and the right rate.
    pub(crate) const NONE: Skew = Skew { jump: 0, rate: 1.0 };
}

/// The error of a clock since its process was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockState {
    /// Seconds that the clock was ahead when it was last set.
    ahead: f64,
    rate: f64,
    /// The age of the process at that moment, in seconds.
    at: f64,
}

impl ClockState {
    /// A clock without error.
    pub(crate) const RIGHT: ClockState = ClockState { ahead: 0.0, rate: 1.0, at: 0.0 };

    /// The state after a change at the given age of the process.
    ///
    /// A wall clock starts from the right time. A monotonic clock must never go back: it continues
    /// from its present value, keeps its gain, and jumps ahead a little, because the process
    /// notices a slower rate late.
    pub(crate) fn set(self, clocks: Clocks, skew: Skew, age: f64) -> ClockState {
        let slower = (self.rate - skew.rate).max(0.0);
        let now = match clocks {
            Clocks::Wall => 0.0,
            _ => self.ahead + (self.rate - 1.0) * (age - self.at) + slower * STALE_MAX + AGE_ERROR,
        };
        ClockState { ahead: now + skew.jump as f64, rate: skew.rate, at: age }
    }

    /// The content of the file. The library counts the gain from the start of the process.
    fn text(self) -> String {
        format!("{:+.6}s x{}", self.ahead - (self.rate - 1.0) * self.at, self.rate)
    }
}

/// Writes the state of a clock. The file is replaced atomically: a half-written file would set
/// another time.
pub(crate) fn write(file: &Path, state: ClockState) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, state.text() + "\n")?;
    std::fs::rename(&new, file).with_context(|| file.display().to_string())
}

/// The offset in seconds of a process that starts now with this clock.
pub(crate) async fn seconds_off(clocks: Clocks, file: &Path) -> anyhow::Result<f64> {
    let variables: Vec<String> =
        environment(clocks, file)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments: Vec<&str> = variables.iter().map(String::as_str).collect();
    arguments.extend(["date", "+%s.%N"]);
    let seen: f64 = tool::run("env", &arguments).await?.trim().parse()?;
    Ok(seen - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Removes the shared memory that libfaketime leaves behind when its process is killed.
pub(crate) fn forget(pid: u32) {
    for name in [format!("/dev/shm/faketime_shm_{pid}"), format!("/dev/shm/sem.faketime_sem_{pid}")] {
        // The files do not exist with real clocks.
        let _ = std::fs::remove_file(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_starts_from_the_present_time() {
        let drifting = ClockState::RIGHT.set(Clocks::WallAndMonotonic, Skew { jump: 0, rate: 1.5 }, 10.0);
        // The library computes −4.95 s + 1.5 × 10 s = 10.05 s.
        assert_eq!(drifting.text(), "-4.950000s x1.5");
        let healed = drifting.set(Clocks::WallAndMonotonic, Skew::NONE, 14.0);
        // Two seconds of gain, plus the gain until the process notices.
        assert_eq!(healed.text(), "+3.100000s x1");
        assert_eq!(drifting.set(Clocks::Wall, Skew::NONE, 14.0).text(), "+0.000000s x1");
        assert_eq!(ClockState::RIGHT.set(Clocks::Wall, Skew { jump: -60, rate: 1.0 }, 3.0).text(), "-60.000000s x1");
    }
}
