//! Gives the disk space of purged entries back.
//!
//! While entries keep coming, RocksDB does this by itself: every few memtables it compacts level 0 into the rest, and what was
//! purged falls out. This thread is for the other case: much was purged or destroyed, and little is written afterwards.
//!
//! Only a compaction may do this. It sees a purge together with its mark, as both are written in one batch; whatever goes by the
//! marks in memory deletes entries whose purge a crash may still undo.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rocksdb::{CompactOptions, DB, properties};

use super::registry::Registry;
use quorate_machine::keys::{LogSpace, log_key};

/// Space on disk may be this many times what the logs retain, and [`SLACK_MEMTABLES`] more.
const AMPLIFICATION_MAX: u64 = 2;
/// So many memtables of garbage are no reason to compact: level 0 holds as many before RocksDB compacts it by itself.
const SLACK_MEMTABLES: u64 = 4;

/// The writer's end: it tells how much was freed.
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
        // One wake-up can wait; more would mean the same.
        let (wake, woken) = sync_channel(1);
        let check_bytes = memtable_bytes as u64;
        let thread = std::thread::Builder::new()
            .name("log-reclaim".into())
            .spawn(move || reclaim(&db, &registry, check_bytes, &woken))?;
        Ok((Reclaimer { freed: Cell::new(0), check_bytes, wake }, thread))
    }

    /// So many more bytes of entries are deleted. Once a memtable's worth has come together, the thread has a look.
    pub(super) fn freed(&self, bytes: u64) {
        self.freed.set(self.freed.get() + bytes);
        if self.freed.get() >= self.check_bytes {
            self.freed.set(0);
            // Full: the thread will look anyway.
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
