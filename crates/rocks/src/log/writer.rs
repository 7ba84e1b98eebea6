//! The writer thread: drain the queue, build one batch, write and sync it, then call the waiting
//! callbacks.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rocksdb::{DB, WriteOptions};

use super::batch::BatchBuilder;
use super::error::io;
use super::queue::{Item, Queue};
use super::reclaim::Reclaimer;
use super::registry::Registry;
use super::replica_log::{Change, ReplicaLog};
use quorate_machine::log::LogError;
use quorate_testpoints::{Bug, FailPoint, fail_point};

/// Exit code of the process after a failure of the log.
const EXIT_CODE: i32 = 74;

/// Called with the reason when the log has failed. Must not return, except in tests.
pub(super) type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// Exits the process. Nothing is retried, because the disk's content is unknown after a failed
/// sync.
pub(super) fn exit(_reason: String) {
    std::process::exit(EXIT_CODE);
}

/// The state of the writer thread.
pub(super) struct Writer {
    pub(super) db: Arc<DB>,
    pub(super) queue: Arc<Queue>,
    pub(super) registry: Arc<Registry>,
    pub(super) reclaimer: Reclaimer,
    pub(super) syncs: Arc<AtomicU64>,
    pub(super) on_fatal: OnFatal,
}

impl Writer {
    /// Writes until the queue is closed and empty, or the disk fails. After a failure, pending and
    /// later items get the error, unless the hook exits.
    pub(super) fn run(self) {
        let mut items = VecDeque::new();
        let failure = match catch_unwind(AssertUnwindSafe(|| self.write_all(&mut items))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => LogError::Io("the writer panicked".into()),
        };
        tracing::error!(error = %failure, "log write failed, stopping the node");
        eprintln!("quorate: log write failed, stopping the node: {failure}");
        (self.on_fatal)(failure.to_string());
        items.into_iter().for_each(|item| item.answer(Err(failure.clone())));
        self.queue.fail(failure);
    }

    /// After an error, the operations in `items` may or may not be written.
    fn write_all(&self, items: &mut VecDeque<Item>) -> Result<(), LogError> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let unsynced = WriteOptions::default();
        let mut builder = BatchBuilder::new();
        let mut write = |items: &mut VecDeque<Item>, bytes| {
            // Operations without a callback are synced too, so that only the last write can be torn
            // (see `crate::wal_repair`).
            let sync = !items.iter().all(is_forgotten);
            builder.start(bytes);
            items.iter().for_each(|item| builder.add(&item.operation));
            let (batch, entries) = builder.finish();
            let started = Instant::now();
            pass(items, unwritten);
            self.db.write_opt(batch, if sync { &synced } else { &unsynced }).map_err(io)?;
            pass(items, written);
            if sync {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                metrics::histogram!("quorate_log_sync_seconds").record(started.elapsed().as_secs_f64());
                metrics::histogram!("quorate_log_batch_entries").record(entries as f64);
            }
            self.complete(items);
            Ok(())
        };
        while let Some(bytes) = self.queue.drain(items) {
            metrics::gauge!("quorate_log_queue_bytes").set(self.queue.bytes() as f64);
            write(items, bytes)?;
            self.queue.written(bytes);
        }
        // The queue has ended, so no newer operation can reach the disk before these marks.
        let marks = self.registry.all().into_iter().filter_map(|replica| ReplicaLog::leftover_marks(&replica));
        items.extend(marks.map(|operation| Item::new(operation, None)));
        if items.is_empty() { Ok(()) } else { write(items, 0) }
    }

    /// Completes a written batch: updates the tails first, then calls the callbacks in order of
    /// arrival.
    fn complete(&self, items: &mut VecDeque<Item>) {
        for item in items.iter() {
            item.operation.replica.written(item.operation.number);
            if let Change::Purge { freed, .. } | Change::Destroy { freed } = item.operation.change {
                self.reclaimer.freed(freed);
            }
        }
        items.drain(..).for_each(|item| item.answer(Ok(())));
    }
}

/// Passes the fail points at which a test crashes the process during a write.
fn pass(items: &VecDeque<Item>, point: impl Fn(&Change) -> Option<FailPoint>) {
    if quorate_testpoints::ENABLED {
        items.iter().filter_map(|item| point(&item.operation.change)).for_each(fail_point);
    }
}

/// The fail point before the change is written.
const fn unwritten(change: &Change) -> Option<FailPoint> {
    match change {
        Change::Append(_) => Some(FailPoint::AppendUnwritten),
        Change::Vote(_) => Some(FailPoint::VoteUnwritten),
        Change::Purge { .. } => Some(FailPoint::PurgeUnwritten),
        _ => None,
    }
}

/// The fail point after the change was written and synced.
const fn written(change: &Change) -> Option<FailPoint> {
    match change {
        Change::Append(_) => Some(FailPoint::AppendWritten),
        Change::Vote(_) => Some(FailPoint::VoteWritten),
        Change::Purge { .. } => Some(FailPoint::PurgeWritten),
        _ => None,
    }
}

/// Whether a seeded bug skips the sync of this item.
fn is_forgotten(item: &Item) -> bool {
    match item.operation.change {
        Change::Append(_) => Bug::AckBeforeSync.is_on(),
        Change::Vote(_) => Bug::VoteNotSynced.is_on(),
        _ => false,
    }
}
