//! The shared log: entries and votes of all Raft groups of a node, made durable together.
//!
//! ```text
//!   group A ─append─┐                        ┌─ done(A) done(A)
//!   group B ─vote───┤→ queue → drain → one WriteBatch → one synced write ─┤
//!   group C ─append─┘   (one writer thread)  └─ done(B) done(C)
//! ```
//!
//! Requests that arrive during a sync form the next batch, so one fsync serves all busy groups.

mod extent;
mod memory;

use std::ops::Range;
use std::sync::Arc;

use quorate_types::codec::CodecError;
use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

pub use extent::Extent;
pub use memory::MemoryLog;

/// Completion callback, called once when the change is durable. It runs on the writer thread: it
/// must be short and must not call the log. Immediate refusals ([`LogError::Closed`],
/// [`LogError::NoReplica`]) call it on the caller's thread.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Failure of a log operation. `Closed`, `NoReplica` and `OtherGroup` refuse a wrong or late call;
/// every other variant means that the disk is in doubt, and the node stops.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The log was closed before the operation was executed; it may or may not be durable.
    #[error("the log is closed")]
    Closed,
    /// The replica was never created here, or was destroyed.
    #[error("replica {0} has no log here")]
    NoReplica(ReplicaId),
    /// The replica exists here as a member of another group. Replica ids are never reused, so this
    /// is a bug of the caller.
    #[error("replica {replica} belongs to group {group}")]
    OtherGroup {
        /// The replica.
        replica: ReplicaId,
        /// The group of the existing replica.
        group: GroupId,
    },
    /// A value on disk is corrupt.
    #[error("the log of replica {replica} is corrupt at index {index}: {source}")]
    Corrupt {
        /// The replica.
        replica: ReplicaId,
        /// Index of the entry.
        index: u64,
        /// The decoding error.
        source: CodecError,
    },
    /// An entry is missing.
    #[error("the log of replica {replica} has a hole at index {index}")]
    Hole {
        /// The replica.
        replica: ReplicaId,
        /// Index of the missing entry.
        index: u64,
    },
    /// RocksDB or the file system failed.
    #[error("log i/o failed: {0}")]
    Io(Arc<str>),
}

/// The marks of a replica's log. Includes appended entries that are not durable yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last vote saved.
    pub vote: Option<Vote>,
    /// The last commit mark saved; may lag, but is never ahead of the log.
    pub committed: Option<LogId>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry; the last purged one if the log is empty.
    pub last: Option<LogId>,
    /// The replica lost entries that it had confirmed: it must never vote or acknowledge again.
    pub doubtful: bool,
}

/// The log of all replicas of a node.
///
/// # Invariants
/// * The changes of one replica become durable in call order: votes, appends and truncations are
///   never reordered. So a `done` also confirms all earlier changes of its replica. (Asserted where
///   the writer completes an operation.)
/// * A replica's entries have no holes: `purged.index + 1 ..= last.index`. (The first entry of a
///   log that was never purged may have any index.) [`Extent`] asserts this, and both logs use it.
/// * After a crash, each replica has exactly a prefix of its changes. The prefix contains every
///   change whose `done` was called (held by the test `acknowledged_changes_survive_sigkill`).
///
/// # To be correct
/// Calls for one replica come from one task at a time; calls for different replicas are concurrent.
/// A failed write or sync stops the process (it logs the reason and exits with code 74); it is
/// never retried.
pub trait Log: Send + Sync + 'static {
    /// Creates an empty log for a new replica; durable on return. Creating the same replica of the
    /// same group again does nothing. Refuses a destroyed replica with [`LogError::NoReplica`].
    fn create(&self, replica: ReplicaId, group: GroupId) -> Result<(), LogError>;

    /// Deletes a replica's log and leaves a tombstone, so that the id cannot be created again;
    /// durable on return.
    fn destroy(&self, replica: ReplicaId) -> Result<(), LogError>;

    /// Marks a replica as doubtful, for good; durable on return. The log keeps its entries and
    /// marks. Marking it again changes nothing.
    fn mark_doubtful(&self, replica: ReplicaId) -> Result<(), LogError>;

    /// The existing replicas and their groups, by id.
    fn replicas(&self) -> Vec<(ReplicaId, GroupId)>;

    /// The marks of the replica's log.
    fn state(&self, replica: ReplicaId) -> Result<LogState, LogError>;

    /// Appends entries that follow the last one without a hole. They are readable on return and
    /// durable when `done` is called.
    fn append(&self, replica: ReplicaId, entries: Vec<Entry>, done: Done);

    /// Saves a vote; durable when `done` is called.
    fn save_vote(&self, replica: ReplicaId, vote: Vote, done: Done);

    /// Records that the candidate of the last saved vote has won. Becomes durable with the next
    /// write; after an earlier crash, the vote is as it was saved.
    fn vote_won(&self, replica: ReplicaId);

    /// Deletes the entries after `last` (all for none). Readers no longer see them on return; the
    /// deletion is durable when `done` is called.
    fn truncate_after(&self, replica: ReplicaId, last: Option<LogId>, done: Done);

    /// Deletes the entries up to and including `upto`, which may be beyond the last one (after a
    /// snapshot was installed). Becomes durable later; entries and mark together.
    fn purge(&self, replica: ReplicaId, upto: LogId);

    /// Saves the commit mark; becomes durable with the next write.
    fn save_committed(&self, replica: ReplicaId, committed: Option<LogId>);

    /// Reads the entries of the index range `range` without a hole: all of them, or as many as fit
    /// into `bytes_max`, but at least one.
    ///
    /// The result omits purged entries at the start and missing ones beyond the end of the log, so
    /// use the index of its first entry and continue after its last. A range after the last entry
    /// gives no entries. [`LogError::Hole`] means that entries inside the log are missing.
    fn entries(&self, replica: ReplicaId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError>;

    /// Approximate size of the entries in the replica's log, in bytes.
    fn retained_bytes(&self, replica: ReplicaId) -> u64;

    /// Approximate size of the queued changes, in bytes. Admission refuses proposals from half of
    /// [`QUEUE_BYTES_MAX`] on.
    fn queued_bytes(&self) -> usize;

    /// Writes and syncs the queue, then stops the writer. Later calls fail with
    /// [`LogError::Closed`].
    fn close(&self);
}

/// Limit of the writer's queue, in bytes. Proposals are refused long before, so that votes and
/// appends never wait here.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
