//! The one thread that writes: drain, one batch, one synced write, then everyone who waits is answered.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rocksdb::{DB, WriteOptions};

use super::queue::{Item, Queue};
use super::reclaim::Reclaimer;
use super::records::{BatchBuilder, io};
use super::registry::Registry;
use super::replica::{Change, Replica};
use quorate_machine::log::LogError;
use quorate_testpoints::{Bug, fail_point};

/// What a process exits with when its log failed.
const EXIT_CODE: i32 = 74;

/// What is called when the log cannot go on; gets the reason. It is not expected to return, except in tests.
pub(super) type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// Exits. Nothing is retried: after a failed sync nobody knows what is on disk.
pub(super) fn exit(_reason: String) {
    std::process::exit(EXIT_CODE);
}

/// The writer.
pub(super) struct Writer {
    pub(super) db: Arc<DB>,
    pub(super) queue: Arc<Queue>,
    pub(super) registry: Arc<Registry>,
    pub(super) reclaimer: Reclaimer,
    pub(super) syncs: Arc<AtomicU64>,
    pub(super) on_fatal: OnFatal,
}

impl Writer {
    /// Writes until the queue is closed and empty, or the disk fails. Then everyone who waits or comes later is told so, where
    /// the hook returns at all.
    pub(super) fn run(self) {
        let mut items = VecDeque::new();
        let failure = match catch_unwind(AssertUnwindSafe(|| self.write_all(&mut items))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => LogError::Io("the writer panicked".into()),
        };
        tracing::error!(error = %failure, "the log cannot be written, the node stops");
        eprintln!("quorate: the log cannot be written, the node stops: {failure}");
        (self.on_fatal)(failure.to_string());
        items.into_iter().for_each(|item| item.answer(Err(failure.clone())));
        self.queue.fail(failure);
    }

    /// On an error, what is in `items` is not written, or only perhaps.
    fn write_all(&self, items: &mut VecDeque<Item>) -> Result<(), LogError> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let unsynced = WriteOptions::default();
        let mut builder = BatchBuilder::new();
        let mut write = |items: &mut VecDeque<Item>, bytes| {
            // Also what nobody waits for, so that no write but the last can be torn (see `crate::torn`).
            let sync = !items.iter().all(is_forgotten);
            builder.start(bytes);
            items.iter().for_each(|item| builder.add(&item.operation));
            let (batch, entries) = builder.finish();
            let started = Instant::now();
            pass(items, "unwritten");
            self.db.write_opt(batch, if sync { &synced } else { &unsynced }).map_err(io)?;
            pass(items, "written");
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
        // The queue has ended, so that nothing newer can be on disk before these marks are.
        let marks = self.registry.all().into_iter().filter_map(|replica| Replica::leftover_marks(&replica));
        items.extend(marks.map(|operation| Item::new(operation, None)));
        if items.is_empty() { Ok(()) } else { write(items, 0) }
    }

    /// The batch is written: first the tails learn it, then those who wait, in the order in which they came.
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

/// Passes the places at which a test lets the process die while it writes.
fn pass(items: &VecDeque<Item>, when: &str) {
    if !quorate_testpoints::ENABLED {
        return;
    }
    for item in items {
        match item.operation.change {
            Change::Append(_) => fail_point(&format!("append-{when}")),
            Change::Vote(_) => fail_point(&format!("vote-{when}")),
            Change::Purge { .. } => fail_point(&format!("purge-{when}")),
            _ => {}
        }
    }
}

/// Whether a seeded bug keeps it from being synced.
fn is_forgotten(item: &Item) -> bool {
    match item.operation.change {
        Change::Append(_) => Bug::AckBeforeSync.is_on(),
        Change::Vote(_) => Bug::VoteNotSynced.is_on(),
        _ => false,
    }
}
