//! Reclaims the disk space of purged entries.
//!
//! Under steady load, RocksDB does this itself: every few memtables it compacts level 0 into the
//! next level and drops purged entries. This thread covers the other case: much was purged or
//! destroyed, and little is written afterwards.
//!
//! Only a compaction may reclaim. It sees a purge together with its mark, because one batch wrote
//! both. Deleting files by the marks in memory could remove entries whose purge a crash may still
//! undo.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rocksdb::{CompactOptions, DB, properties};

use super::registry::Registry;
use quorate_machine::keys::{LogSpace, log_key};

/// Files may take this many times the size of the retained entries, plus [`SLACK_MEMTABLES`]
/// memtables.
const AMPLIFICATION_MAX: u64 = 2;
/// Garbage tolerated before compacting, in memtables: level 0 holds as many before RocksDB compacts
/// it itself.
const SLACK_MEMTABLES: u64 = 4;

/// The writer's handle, to which it reports freed bytes.
pub(super) struct Reclaimer {
    freed: Cell<u64>,
    check_bytes: u64,
    wake: SyncSender<()>,
}

impl Reclaimer {
    /// Starts the thread, which ends when the reclaimer is dropped.
    pub(super) fn spawn(
        db: Arc<DB>,
        registry: Arc<Registry>,
        memtable_bytes: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        // One pending wake-up is enough; more would have no further effect.
        let (wake, woken) = sync_channel(1);
        let check_bytes = memtable_bytes as u64;
        let thread = std::thread::Builder::new()
            .name("log-reclaim".into())
            .spawn(move || reclaim(&db, &registry, check_bytes, &woken))?;
        Ok((Reclaimer { freed: Cell::new(0), check_bytes, wake }, thread))
    }

    /// Reports that entries of this size were deleted. Wakes the thread once a memtable's worth has
    /// accumulated.
    pub(super) fn freed(&self, bytes: u64) {
        self.freed.set(self.freed.get() + bytes);
        if self.freed.get() >= self.check_bytes {
            self.freed.set(0);
            // A full channel means that the thread will check anyway.
            let _ = self.wake.try_send(());
        }
    }
}

fn reclaim(db: &DB, registry: &Registry, memtable_bytes: u64, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let retained: u64 = registry.all().iter().map(|replica| replica.retained_bytes()).sum();
        let on_disk = db.property_int_value(properties::LIVE_SST_FILES_SIZE).ok().flatten().unwrap_or(0);
        if on_disk <= AMPLIFICATION_MAX * retained + SLACK_MEMTABLES * memtable_bytes {
            continue;
        }
        tracing::info!(on_disk, retained, "compacting the log");
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        let end = log_key(LogSpace::Purged, Default::default());
        db.compact_range_opt(Some(&[LogSpace::Entry as u8][..]), Some(&end[..1]), &options);
    }
}
