//! The shared log: the entries and votes of all Raft groups of a node, made durable together.
//!
//! ```text
//!   group A ─append─┐                        ┌─ done(A) done(A)
//!   group B ─vote───┤→ queue → drain → one WriteBatch → one synced write ─┤
//!   group C ─append─┘   (one writer thread)  └─ done(B) done(C)
//! ```
//!
//! What arrives while a write is being synced makes the next batch, so that one fsync serves every group that is busy.

mod extent;
mod memory;

use std::ops::Range;
use std::sync::Arc;

use quorate_types::codec::CodecError;
use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

pub use extent::Extent;
pub use memory::MemoryLog;

/// Called once, when what it belongs to is durable. It runs on the writer thread: it must be short and must not call the log.
/// What is refused at once ([`LogError::Closed`], [`LogError::NoReplica`]) is answered on the caller's thread.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Why the log could not do something. `Closed`, `NoReplica` and `OtherGroup` refuse a call that was wrong or late; every other
/// variant means that the disk is in doubt: the node stops.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The log was closed before it got to this. Nothing is known to be durable.
    #[error("the log is closed")]
    Closed,
    /// The replica was never created here, or was destroyed.
    #[error("replica {0} has no log here")]
    NoReplica(ReplicaId),
    /// The replica exists here as a member of another group. Replica ids are never used twice: the caller has a fault.
    #[error("replica {replica} belongs to group {group}")]
    OtherGroup {
        /// The replica.
        replica: ReplicaId,
        /// The group that it belongs to.
        group: GroupId,
    },
    /// Something on disk is not what was written.
    #[error("the log of replica {replica} is corrupt at index {index}: {source}")]
    Corrupt {
        /// The replica.
        replica: ReplicaId,
        /// The entry.
        index: u64,
        /// What is wrong.
        source: CodecError,
    },
    /// An entry that must be there is not.
    #[error("the log of replica {replica} has a hole at index {index}")]
    Hole {
        /// The replica.
        replica: ReplicaId,
        /// The missing entry.
        index: u64,
    },
    /// RocksDB or the file system failed.
    #[error("log i/o failed: {0}")]
    Io(Arc<str>),
}

/// Where a replica's log stands. Everything appended counts, also what is not durable yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last vote saved.
    pub vote: Option<Vote>,
    /// The last commit index saved; may lag behind the truth, never ahead of the log.
    pub committed: Option<LogId>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry; the last purged one where the log is empty.
    pub last: Option<LogId>,
}

/// The log of all replicas of a node.
///
/// # Invariants
/// * What one replica does is durable in the order in which it was called: votes, appends and truncations are never reordered.
///   A `done` therefore speaks for everything that the replica did before.
/// * A replica's entries have no holes: `purged.index + 1 ..= last.index`. (The first entry of a log of which nothing was purged
///   may have any index.)
/// * After a crash every replica finds exactly a prefix of what it did, and that prefix holds everything whose `done` was called.
///
/// # To be correct
/// Calls of one replica come from one task at a time; calls of different replicas are concurrent. A failed write or sync stops
/// the process (it prints why and exits with code 74); it is never retried.
pub trait Log: Send + Sync + 'static {
    /// Makes an empty log for a new replica; durable on return. Again for the same replica and group: nothing happens.
    /// Refuses a replica that was destroyed with [`LogError::NoReplica`].
    fn create(&self, replica: ReplicaId, group: GroupId) -> Result<(), LogError>;

    /// Deletes a replica's log and leaves a tombstone, so that the id is never created again; durable on return.
    fn destroy(&self, replica: ReplicaId) -> Result<(), LogError>;

    /// The replicas that exist here, with their groups, by id.
    fn replicas(&self) -> Vec<(ReplicaId, GroupId)>;

    /// Where the replica's log stands.
    fn state(&self, replica: ReplicaId) -> Result<LogState, LogError>;

    /// Appends entries that follow the last one without a hole. They are readable on return and durable when `done` is called.
    fn append(&self, replica: ReplicaId, entries: Vec<Entry>, done: Done);

    /// Saves a vote; durable when `done` is called.
    fn save_vote(&self, replica: ReplicaId, vote: Vote, done: Done);

    /// Remembers that the candidate whose vote was saved last has won; becomes durable with what is written next. A crash before that
    /// leaves the vote as it was saved.
    fn vote_won(&self, replica: ReplicaId);

    /// Deletes the entries after `last` (all for none). Gone for readers on return, durably when `done` is called.
    fn truncate_after(&self, replica: ReplicaId, last: Option<LogId>, done: Done);

    /// Deletes the entries up to and with `upto`, which may be beyond the last one (after a snapshot was installed). Becomes
    /// durable some time later, entries and mark together.
    fn purge(&self, replica: ReplicaId, upto: LogId);

    /// Remembers how far the log is committed; becomes durable with what is written next.
    fn save_committed(&self, replica: ReplicaId, committed: Option<LogId>);

    /// The entries of `range` (by index), from its start on without a hole: all of them, or as many as fit `bytes_max` and at
    /// least one. What is purged of the range is left out at its start, what is beyond the end at its end: see the index of the
    /// first entry, and go on after that of the last. A range that starts after the last entry gives none. [`LogError::Hole`]
    /// only where entries that should be there are missing.
    fn entries(&self, replica: ReplicaId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError>;

    /// Bytes of the entries that the replica's log holds, about.
    fn retained_bytes(&self, replica: ReplicaId) -> u64;

    /// Bytes that wait in the queue, about. Admission refuses proposals from half of [`QUEUE_BYTES_MAX`].
    fn queued_bytes(&self) -> usize;

    /// Writes what is queued, syncs, and stops the writer. Later calls answer [`LogError::Closed`].
    fn close(&self);
}

/// The bound of the writer's queue, in bytes. Proposals are refused long before, so that votes and appends never wait here.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
