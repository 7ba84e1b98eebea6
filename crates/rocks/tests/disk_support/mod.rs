//! Helpers for tests of log and state on disk: a crash is simulated by copying the files.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// Copies a database as it is at one moment to the new directory `to`. Repeats the copy if RocksDB
/// created or deleted files meanwhile, because such a copy is not of one moment.
pub(crate) fn copy_database(from: &Path, to: &Path) {
    const ATTEMPTS_MAX: usize = 1000;
    for _ in 0..ATTEMPTS_MAX {
        fs::create_dir(to).unwrap();
        let before = names(from);
        let copied = before.iter().all(|name| fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && names(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("the directory kept changing");
}

/// The names of a database's files, except its lock file.
fn names(dir: &Path) -> BTreeSet<OsString> {
    let all = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
    all.filter(|name| name != "LOCK").collect()
}
