//! The state store: the applied state of all replicas of a node, in one ordered space of bytes.
//!
//! It has no write-ahead log. A crash takes it back to its last flush, data and applied index together, and the Raft log
//! replays the rest; so a replica's log may be purged only below [`State::flush`]ed applied indexes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::codec::CodecError;
use quorate_types::peer::SnapshotMeta;

use crate::keys::Space;

pub mod memory;
pub mod meta;

pub use memory::MemoryState;

/// Why the state could not be read or written. The node stops: a state in doubt is not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// Something on disk is not what was written.
    #[error("the state of replica {replica} is corrupt: {source}")]
    Corrupt {
        /// The replica.
        replica: ReplicaId,
        /// What is wrong.
        source: CodecError,
    },
    /// A file of a snapshot is not what was sent. The snapshot is refused; the state is as before.
    #[error("snapshot file {file}: {reason}")]
    Snapshot {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// RocksDB or the file system failed.
    #[error("state i/o failed: {0}")]
    Io(Arc<str>),
}

/// What a scan calls with each key and its value, in order, until it breaks.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// The state at one point in time: nothing that is read through one view changes between two reads.
pub trait View {
    /// Calls `read` with the value of a key, if it has one, without copying it.
    fn get_with(
        &self,
        replica: ReplicaId,
        space: Space,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StateError>;

    /// The value of a key.
    fn get(&self, replica: ReplicaId, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let mut value = None;
        self.get_with(replica, space, key, &mut |bytes| value = Some(bytes.to_vec()))?;
        Ok(value)
    }

    /// Visits the keys of a space that start with `prefix`, in order, until told to stop. Keys are given as they were put,
    /// the prefix included.
    fn scan(&self, replica: ReplicaId, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError>;
}

/// One change of one replica's state: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order; a later operation on the same key wins. `None` deletes. A key that is put once ([`crate::keys`]: the records of
    /// sessions) is not put again, neither here nor later.
    pub operations: Vec<(Space, Vec<u8>, Option<Vec<u8>>)>,
}

/// A replica's whole state at one point in time, held until this is dropped.
pub trait Pinned: Send + Sync {
    /// What the pinned state holds; read from the same point in time as the data.
    fn meta(&self) -> &SnapshotMeta;

    /// Writes the state into files in `dir`, which exists and is empty, under the id of the replica that will install it.
    /// The files are durable on return and are given in the order in which they are installed. Blocks; takes as long as the
    /// data is large and the pace allows. `dir` may be deleted after any failure; where it is deleted before, this ends with an error.
    fn write_files(&self, dir: &Path, replica: ReplicaId) -> Result<Vec<PathBuf>, StateError>;
}

/// The state of all replicas of a node.
///
/// # Invariants
/// * A batch is seen by every later view and by no earlier one, as a whole.
/// * After a crash the state is what it was after some batch of each replica, no earlier than the last flush.
pub trait State: Send + Sync + 'static {
    /// Calls `read` once with a view of the state as it is now. Keep it short: a view holds on to everything that it can see.
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError>;

    /// Writes a batch of a replica. Visible on return, durable after the next flush.
    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError>;

    /// Makes everything that was written before the call durable. Blocks.
    fn flush(&self) -> Result<(), StateError>;

    /// Holds the replica's state as it is now. Quick, whatever the size.
    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError>;

    /// Replaces the replica's whole state by what the files hold (as [`Pinned::write_files`] made them, in that order); atomic,
    /// and durable on return. The files are consumed. Files that hold keys of another replica, or another head or membership
    /// than `meta`, are refused with [`StateError::Snapshot`], and the state is as before.
    fn install(&self, replica: ReplicaId, files: &[PathBuf], meta: &SnapshotMeta) -> Result<(), StateError>;

    /// Deletes the replica's whole state. Durable some time later: whoever destroys a replica first writes the log's tombstone.
    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError>;

    /// About how many bytes the replica's state takes, as of the last flush: for people and plans, not for decisions about
    /// data.
    fn approximate_bytes(&self, replica: ReplicaId) -> u64;

    /// The replicas that have any state here, by id; for the sweep at start.
    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError>;
}
