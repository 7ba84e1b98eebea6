//! Places where a test lets the process die, to see what the next life makes of it. Only in builds with seeded bugs.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old a reading of the file may be: the places on the path of every write come by thousands of times a second.
const READING_MAX: Duration = Duration::from_millis(5);

/// Dies here, as by SIGKILL, if the file that `QUORATE_FAIL_POINTS` names says `PID NAME` with this process and this place, and has
/// said so for 5 ms. Nothing happens in a release build.
pub fn fail_point(name: &str) {
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("QUORATE_FAIL_POINTS").map(PathBuf::from));
    if !crate::ENABLED {
        return;
    }
    let Some(file) = &*FILE else { return };
    if is_armed(file, name) {
        eprintln!("fail point {name}: dies");
        std::process::abort();
    }
}

fn is_armed(file: &Path, name: &str) -> bool {
    /// When the file was read, and which place of this process it named.
    static READING: Mutex<Option<(Instant, Option<String>)>> = Mutex::new(None);
    let mut reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
    if reading.as_ref().is_none_or(|(at, _)| at.elapsed() > READING_MAX) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let armed = text.trim().strip_prefix(&format!("{} ", std::process::id())).map(str::to_owned);
        *reading = Some((Instant::now(), armed));
    }
    reading.as_ref().is_some_and(|(_, armed)| armed.as_deref() == Some(name))
}
