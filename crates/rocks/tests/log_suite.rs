//! The guarantees of the `Log` trait, shown on the log on disk by the suite of `quorate-machine`.

#![allow(clippy::unwrap_used, reason = "a test, helpers included, fails by panicking")]

#[path = "../../machine/tests/suite/log.rs"]
mod log_suite;
mod log_support;

use log_suite::Twin;
use log_support::{A, open};
use quorate_machine::log::{Log, LogError};
use quorate_rocks::RocksLog;

fn new_log() -> OnDisk {
    let directory = tempfile::tempdir().unwrap();
    let log = Some(open(directory.path()));
    OnDisk { directory, log }
}

struct OnDisk {
    directory: tempfile::TempDir,
    log: Option<RocksLog>,
}

impl Twin for OnDisk {
    fn log(&self) -> &dyn Log {
        self.log.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        let log = self.log.take().unwrap();
        log.close();
        assert!(matches!(log.state(A), Err(LogError::Closed)));
        drop(log);
        self.log = Some(open(self.directory.path()));
    }
}
