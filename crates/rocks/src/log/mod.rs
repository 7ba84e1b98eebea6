//! The log on RocksDB: one database with a write-ahead log, one writer thread.
//!
//! ```text
//!   caller ── Replica: marks, tail, number ──→ Operation ──→ Queue ──→ Writer ──→ RocksDB
//!                │ read                                                  │
//!                └── tail ── or ── ColdEntries ←─────────────────────────┘
//! ```
//!
//! Callers do no I/O and no encoding: that is left to the writer, which otherwise only waits for
//! the disk. Readers see a change immediately, from memory.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use quorate_machine::log::{Done, Log, LogError, LogState};
use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};
use rocksdb::DB;

use self::cold::read_cold;
use self::queue::{Item, Queue};
use self::reclaim::Reclaimer;
use self::recovery::recover;
use self::registry::Registry;
use self::replica::{Operation, Reading, Replica};
use self::tail::TailBudget;
use self::writer::Writer;

mod batch;
mod cold;
mod database;
mod error;
mod options;
mod queue;
mod reclaim;
mod recovery;
mod registry;
mod replica;
mod scan;
mod tail;
mod writer;

pub use database::has_write_ahead_log;
pub use options::LogOptions;

/// The [`Log`] of a node, on disk.
pub struct RocksLog {
    db: Arc<DB>,
    registry: Arc<Registry>,
    queue: Arc<Queue>,
    syncs: Arc<AtomicU64>,
    /// The writer, then the reclaimer, which ends after it. Empty after close.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

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
        Ok(RocksLog { db, registry, queue, syncs, threads: Mutex::new(vec![writer_thread, reclaim_thread]) })
    }

    /// Number of synced writes since the log was opened. Far fewer than appends if many replicas
    /// are busy.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Queues an operation, or passes its refusal to `done`.
    fn submit(&self, operation: Result<Operation, LogError>, done: Done) {
        match operation {
            Ok(operation) => self.queue.push(Item::new(operation, Some(done))),
            Err(error) => done(Err(error)),
        }
    }

    /// Queues an operation and waits until it is durable.
    fn submit_and_wait(&self, operation: Operation) -> Result<(), LogError> {
        let (sender, receiver) = mpsc::channel();
        let done: Done = Box::new(move |result| {
            // The receiver waits right below.
            let _ = sender.send(result);
        });
        self.queue.push(Item::new(operation, Some(done)));
        receiver.recv().unwrap_or(Err(LogError::Closed))
    }

    /// The replica, unless the log is closed.
    fn replica(&self, id: ReplicaId) -> Result<Arc<Replica>, LogError> {
        self.queue.check_open()?;
        self.registry.get(id)
    }
}

impl Log for RocksLog {
    fn create(&self, replica: ReplicaId, group: GroupId) -> Result<(), LogError> {
        self.queue.check_open()?;
        self.registry.create(replica, group)?.map_or(Ok(()), |operation| self.submit_and_wait(operation))
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.queue.check_open()?;
        self.registry.destroy(replica)?.map_or(Ok(()), |operation| self.submit_and_wait(operation))
    }

    fn replicas(&self) -> Vec<(ReplicaId, GroupId)> {
        self.registry.all().iter().map(|replica| (replica.id, replica.group)).collect()
    }

    fn state(&self, replica: ReplicaId) -> Result<LogState, LogError> {
        Ok(self.replica(replica)?.state())
    }

    fn append(&self, replica: ReplicaId, entries: Vec<Entry>, done: Done) {
        self.submit(self.replica(replica).and_then(|replica| replica.append(entries)), done);
    }

    fn save_vote(&self, replica: ReplicaId, vote: Vote, done: Done) {
        self.submit(self.replica(replica).and_then(|replica| replica.save_vote(vote)), done);
    }

    fn vote_won(&self, replica: ReplicaId) {
        // A missing replica has no vote.
        if let Ok(replica) = self.replica(replica) {
            replica.vote_won();
        }
    }

    fn truncate_after(&self, replica: ReplicaId, last: Option<LogId>, done: Done) {
        self.submit(self.replica(replica).and_then(|replica| replica.truncate_after(last)), done);
    }

    fn purge(&self, replica: ReplicaId, upto: LogId) {
        // A missing replica has nothing to purge.
        if let Some(operation) = self.replica(replica).ok().and_then(|replica| replica.purge(upto)) {
            self.queue.push(Item::new(operation, None));
        }
    }

    fn save_committed(&self, replica: ReplicaId, committed: Option<LogId>) {
        // A missing replica has no commit mark.
        if let Ok(replica) = self.replica(replica) {
            replica.save_committed(committed);
        }
    }

    fn entries(&self, replica: ReplicaId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let replica = self.replica(replica)?;
        // A cut between the two reads may mix old and new entries; then start again. Each retry
        // needs another cut, so this ends.
        loop {
            let cuts = replica.cuts();
            let reading = read(&self.db, &replica, range.clone(), bytes_max);
            if replica.cuts() != cuts {
                continue;
            }
            let entries = reading?.entries;
            let follows = |pair: &[Entry]| pair[0].id.index + 1 == pair[1].id.index;
            assert!(entries.windows(2).all(follows), "a read of replica {} has a hole", replica.id);
            return Ok(entries);
        }
    }

    fn retained_bytes(&self, replica: ReplicaId) -> u64 {
        self.replica(replica).map_or(0, |replica| replica.retained_bytes())
    }

    fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn close(&self) {
        let mut threads = self.threads.lock().expect("closing does not panic");
        self.queue.close();
        for thread in threads.drain(..) {
            // The writer catches its own panics, and a panic of the reclaimer no longer matters.
            let _ = thread.join();
            // The writer has ended, so no background work is needed any longer.
            self.db.cancel_all_background_work(false);
        }
    }
}

impl Drop for RocksLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads old entries from disk and newer ones from the tail.
fn read(db: &DB, replica: &Replica, range: Range<u64>, bytes_max: usize) -> Result<Reading, LogError> {
    let mut reading = Reading::new(bytes_max);
    let mut start = range.start;
    while let Some(cold) = replica.read(start..range.end, &mut reading)? {
        start = cold.end;
        if !read_cold(db, replica.id, cold, &mut reading)? {
            break;
        }
    }
    Ok(reading)
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
