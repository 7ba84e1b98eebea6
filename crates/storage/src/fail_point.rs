//! Places where a test lets the process die, to see what the next life makes of it. Only in builds with seeded bugs.

use std::path::PathBuf;
use std::sync::LazyLock;

/// Dies here, as by SIGKILL, if the file that `QUORATE_FAIL_POINTS` names says `PID NAME` with this process and this place.
/// Nothing happens in a release build. Not for hot paths: the file is read every time.
pub fn fail_point(name: &str) {
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("QUORATE_FAIL_POINTS").map(PathBuf::from));
    if !cfg!(feature = "bugs") {
        return;
    }
    let Some(file) = &*FILE else { return };
    let wanted = std::fs::read_to_string(file).unwrap_or_default();
    if wanted.trim() == format!("{} {name}", std::process::id()) {
        eprintln!("fail point {name}: dies");
        std::process::abort();
    }
}
