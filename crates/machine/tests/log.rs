//! The guarantees of the `Log` trait, shown on the log in memory. The tests of `quorate-rocks` run
//! the same suite on the log on disk.

#![allow(clippy::unwrap_used, reason = "a test, helpers included, fails by panicking")]

#[path = "suite/log.rs"]
mod log_suite;
#[path = "support/log.rs"]
mod log_support;

use log_suite::Twin;
use log_support::A;
use quorate_machine::log::{Log, LogError, MemoryLog};

fn new_log() -> InMemory {
    InMemory(MemoryLog::new(true))
}

struct InMemory(MemoryLog);

impl Twin for InMemory {
    fn log(&self) -> &dyn Log {
        &self.0
    }

    fn reopen(&mut self) {
        self.0.close();
        assert!(matches!(self.0.state(A), Err(LogError::Closed)));
        self.0.crash();
    }
}
