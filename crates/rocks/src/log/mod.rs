//! The log on RocksDB: one database with a write-ahead log, one writer thread.
//!
//! ```text
//!   caller ── ReplicaLog: marks, tail, number ──→ Operation ──→ Queue ──→ Writer ──→ RocksDB
//!                │ read                                                     │
//!                └── tail ── or ── ColdEntries ←────────────────────────────┘
//! ```
//!
//! Callers do no I/O and no encoding: that is left to the writer, which otherwise only waits for
//! the disk. Readers see a change immediately, from memory.

mod batch;
mod cold;
pub(crate) mod database;
mod error;
mod opening;
pub(crate) mod options;
mod queue;
mod read;
mod reading;
mod reclaim;
mod recovery;
mod registry;
mod replica_log;
mod scan;
mod tail;
mod threads;
mod writer;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_machine::log::{Done, Log, LogError, LogState};
use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};
use rocksdb::DB;

use self::queue::Queue;
use self::read::read_entries;
use self::registry::Registry;
use self::replica_log::{Operation, ReplicaLog};
use self::threads::Threads;

/// The [`Log`] of a node, on disk.
pub struct RocksLog {
    db: Arc<DB>,
    registry: Arc<Registry>,
    queue: Arc<Queue>,
    syncs: Arc<AtomicU64>,
    threads: Threads,
}

impl RocksLog {
    /// Number of synced writes since the log was opened. Far fewer than appends if many replicas
    /// are busy.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Queues an operation, or passes its refusal to `done`.
    fn submit(&self, operation: Result<Operation, LogError>, done: Done) {
        match operation {
            Ok(operation) => self.queue.push(operation, Some(done)),
            Err(error) => done(Err(error)),
        }
    }

    /// The replica, unless the log is closed.
    fn replica(&self, id: ReplicaId) -> Result<Arc<ReplicaLog>, LogError> {
        self.queue.check_open()?;
        self.registry.get(id)
    }
}

impl Log for RocksLog {
    fn create(&self, replica: ReplicaId, group: GroupId) -> Result<(), LogError> {
        self.queue.check_open()?;
        self.registry.create(replica, group)?.map_or(Ok(()), |operation| self.queue.push_and_wait(operation))
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.queue.check_open()?;
        self.registry.destroy(replica)?.map_or(Ok(()), |operation| self.queue.push_and_wait(operation))
    }

    fn mark_doubtful(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.queue.push_and_wait(self.replica(replica)?.mark_doubtful()?)
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
            self.queue.push(operation, None);
        }
    }

    fn save_committed(&self, replica: ReplicaId, committed: Option<LogId>) {
        // A missing replica has no commit mark.
        if let Ok(replica) = self.replica(replica) {
            replica.save_committed(committed);
        }
    }

    fn entries(&self, replica: ReplicaId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        read_entries(&self.db, &*self.replica(replica)?, range, bytes_max)
    }

    fn retained_bytes(&self, replica: ReplicaId) -> u64 {
        self.replica(replica).map_or(0, |replica| replica.retained_bytes())
    }

    fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn close(&self) {
        self.threads.end(&self.queue, &self.db);
    }
}

impl Drop for RocksLog {
    fn drop(&mut self) {
        self.close();
    }
}
