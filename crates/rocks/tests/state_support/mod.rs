//! Helpers for tests of the state store on disk, beside those of `quorate-machine` for any store.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(unused_imports, reason = "every test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

#[path = "../../../machine/tests/support/state.rs"]
mod any_state;
#[path = "../disk_support/mod.rs"]
mod disk_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_machine::state::State;
use quorate_rocks::{RocksState, StateOptions};
use tempfile::TempDir;

pub(crate) use any_state::*;
pub(crate) use disk_support::copy_database;

/// A store on disk.
pub(crate) fn on_disk() -> Store {
    Store::new(Box::new(OnDisk { dir: tempfile::tempdir().unwrap(), generation: 0 }))
}

struct OnDisk {
    dir: TempDir,
    generation: u32,
}

impl OnDisk {
    fn path(&self) -> PathBuf {
        self.dir.path().join(self.generation.to_string())
    }
}

impl Disk for OnDisk {
    /// Opens a copy of the files on disk while the database is still open. Its memtables, which
    /// have no log, are in no file.
    fn crash(&mut self) -> Arc<dyn State> {
        let from = self.path();
        self.generation += 1;
        copy_database(&from, &self.path());
        self.restart()
    }

    fn restart(&mut self) -> Arc<dyn State> {
        Arc::new(open_rocks(&self.path()))
    }
}

pub(crate) fn open_rocks(dir: &Path) -> RocksState {
    RocksState::open(dir, StateOptions::with_cache_bytes(1 << 20)).unwrap()
}
