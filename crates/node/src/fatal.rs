//! Fail-stop: a node that is unsure of its disk or of itself says why and ends at once.

use tracing::error;

/// The exit code of a fail-stop: the disk failed, or the state is in doubt.
pub(crate) const EXIT_CODE: u8 = 74;

/// Says why, and ends the process. Nothing is flushed or handed over: what is in doubt must not spread.
pub(crate) fn fail_stop(reason: &str) -> ! {
    error!(reason, "fail-stop");
    eprintln!("quorate: fatal: {reason}");
    // Not `std::process::exit`: RocksDB's threads still run, and must not meet its destructors.
    signal_hook::low_level::exit(EXIT_CODE.into())
}

/// From now on a panic of any thread or task ends the process, after it has said where it came from. A broken invariant is no
/// reason to go on with the rest: clients would hang on what has died, or hear from what is in doubt.
pub fn stop_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        fail_stop("a panic: a broken invariant, please report it");
    }));
}
