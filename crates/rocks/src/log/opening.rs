//! Opens the log: the database, its replicas, and the threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quorate_machine::log::LogError;

use super::options::LogOptions;
use super::queue::Queue;
use super::reclaim::Reclaimer;
use super::recovery::recover;
use super::tail::TailBudget;
use super::threads::Threads;
use super::writer::Writer;
use super::{RocksLog, database};

impl RocksLog {
    /// Opens the log in the directory `path`, creating it if needed, and verifies all entries:
    /// takes about a second for some hundred megabytes. Blocks.
    ///
    /// Drops a last write that a crash cut short: it was never acknowledged. Any other damage is an
    /// error, and the node must not serve: [`LogError::Corrupt`] and [`LogError::Hole`] name the
    /// entry; [`LogError::Io`] holds RocksDB's reason, including that another process has the
    /// directory open.
    pub fn open(path: impl AsRef<Path>, options: LogOptions) -> Result<Self, LogError> {
        describe_metrics();
        let db = Arc::new(database::open(path.as_ref(), options.memtable_bytes)?);
        let budget = Arc::new(TailBudget::new(options.tails_bytes_max, options.tail_bytes_max));
        let registry = Arc::new(recover(&db, &budget)?);
        let queue = Arc::new(Queue::new());
        let syncs = Arc::new(AtomicU64::new(0));
        let no_thread = |error: std::io::Error| LogError::Io(format!("cannot start a thread: {error}").into());
        let (reclaimer, reclaim_thread) =
            Reclaimer::spawn(db.clone(), registry.clone(), options.memtable_bytes).map_err(no_thread)?;
        let writer = Writer {
            db: db.clone(),
            queue: queue.clone(),
            registry: registry.clone(),
            reclaimer,
            syncs: syncs.clone(),
            on_fatal: options.on_fatal,
        };
        let writer_thread =
            std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run()).map_err(no_thread)?;
        Ok(RocksLog { db, registry, queue, syncs, threads: Threads::new(writer_thread, reclaim_thread) })
    }
}

fn describe_metrics() {
    metrics::describe_histogram!(
        "quorate_log_sync_seconds",
        metrics::Unit::Seconds,
        "duration of a synced write of the log"
    );
    metrics::describe_histogram!("quorate_log_batch_entries", "entries made durable by one synced write");
    metrics::describe_gauge!("quorate_log_queue_bytes", metrics::Unit::Bytes, "bytes queued for the log's writer");
}
