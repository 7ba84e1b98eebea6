//! Progress messages. They go to standard error; standard output is for results.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clients::Tally;

/// Prints a message.
pub(super) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Prints the number of operations so far.
pub(super) fn operations(tally: &Tally, elapsed: Duration) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (ok, fail, info) = (count(&tally.ok), count(&tally.fail), count(&tally.info));
    progress(&format!("{:>3} s  {ok} ok, {fail} fail, {info} info", elapsed.as_secs()));
}
