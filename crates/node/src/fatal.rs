//! Fail-stop: a node that is in doubt about its disk or its state logs the reason and exits.

use tracing::error;

/// The exit code of a fail-stop: the disk failed, or the state is in doubt.
pub(crate) const EXIT_CODE: u8 = 74;

/// Logs the reason and exits. Nothing is flushed or transferred: a state in doubt must not spread.
pub(crate) fn fail_stop(reason: &str) -> ! {
    error!(reason, "fail-stop");
    eprintln!("quorate: fatal: {reason}");
    // Not `std::process::exit`: RocksDB's threads still run, and must not meet its destructors.
    signal_hook::low_level::exit(EXIT_CODE.into())
}

/// From now on a panic of any thread or task ends the process, after the panic was printed. The
/// process does not continue after a broken invariant: clients would hang on dead tasks, or receive
/// answers from a state in doubt.
pub fn stop_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        fail_stop("a panic: a broken invariant, please report it");
    }));
}
