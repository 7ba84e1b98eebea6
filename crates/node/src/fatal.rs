//! Fail-stop: a node that is unsure of its disk or of itself says why and ends at once.

use tracing::error;

/// The exit code of a fail-stop: the disk failed, or the state is in doubt.
pub(crate) const EXIT_CODE: u8 = 74;

/// Says why, and ends the process. Nothing is flushed or handed over: what is in doubt must not spread.
pub(crate) fn fail_stop(reason: &str) -> ! {
    error!(reason, "fail-stop");
    eprintln!("quorate: fatal: {reason}");
    std::process::exit(EXIT_CODE.into())
}
