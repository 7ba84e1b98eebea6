//! Helpers for tests of the log on disk, beside those of `quorate-machine` for any log.

#![allow(dead_code, reason = "each test binary uses its part of this")]

#[path = "../../../machine/tests/support/log.rs"]
mod any_log;

use std::path::Path;

use quorate_rocks::{LogOptions, RocksLog};

pub(crate) use any_log::*;

/// Options with which a small test reaches flushes and cold reads.
pub(crate) fn small() -> LogOptions {
    LogOptions { memtable_bytes: 256 << 10, tails_bytes_max: 64 << 10, tail_bytes_max: 16 << 10, ..Default::default() }
}

/// Opens a log, which must succeed.
pub(crate) fn open(path: &Path) -> RocksLog {
    RocksLog::open(path, small()).unwrap()
}
