//! The state store: the applied state of all replicas of a node, in one ordered byte space.
//!
//! It has no write-ahead log. A crash reverts it to its last flush, data and applied index
//! together, and the Raft log replays the rest. A replica's log may therefore be purged only up to
//! an applied index that was [`State::flush`]ed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::codec::CodecError;
use quorate_types::peer::SnapshotMeta;

use crate::keys::Space;

pub mod memory;
pub mod meta;
mod observed;
mod snapshot_file;

pub use memory::MemoryState;
pub use observed::{Call, ObservedState, Observer};

/// Failure to read or write the state. The node stops: a state in doubt is not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// A value on disk is corrupt.
    #[error("the state of replica {replica} is corrupt: {source}")]
    Corrupt {
        /// The replica.
        replica: ReplicaId,
        /// The decoding error.
        source: CodecError,
    },
    /// A snapshot file is corrupt or unexpected. The snapshot is refused; the state is unchanged.
    #[error("snapshot file {file}: {reason}")]
    Snapshot {
        /// The file.
        file: String,
        /// The defect.
        reason: String,
    },
    /// RocksDB or the file system failed.
    #[error("state i/o failed: {0}")]
    Io(Arc<str>),
}

/// Visitor of a scan: called with each key and value, in key order, until it breaks.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// The state at one point in time: two reads through one view see the same state.
pub trait View {
    /// Calls `read` with the value of a key, if there is one, without copying it.
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

    /// Visits all keys of a space with this prefix, in order, until `visit` breaks. Keys are passed
    /// as they were put, with the prefix.
    fn scan(&self, replica: ReplicaId, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError>;
}

/// An atomic change of one replica's state.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The operations in order; a later one on the same key wins. `None` deletes. A put-once key
    /// ([`crate::keys::is_put_once`]) must not be put twice, neither here nor later.
    pub operations: Vec<(Space, Vec<u8>, Option<Vec<u8>>)>,
}

/// A replica's whole state at one point in time, held until this is dropped.
pub trait Pinned: Send + Sync {
    /// Applied log id and membership of the pinned state, from the same point in time as the data.
    fn meta(&self) -> &SnapshotMeta;

    /// The approximate size of the state's files, in bytes, as of the last flush.
    fn bytes(&self) -> u64;

    /// Begins to write the state into files in `dir` (which exists and is empty), under the id of
    /// the replica that will install them. Deleting `dir` makes the export fail soon.
    fn export(&self, dir: &Path, replica: ReplicaId) -> Result<Box<dyn Export>, StateError>;

    /// Writes all files, in the order of installation.
    fn write_files(&self, dir: &Path, replica: ReplicaId) -> Result<Vec<PathBuf>, StateError> {
        let mut export = self.export(dir, replica)?;
        let mut files = Vec::new();
        while let Some(file) = export.next_file()? {
            files.push(file);
        }
        Ok(files)
    }
}

/// The files of a state that is being exported. Dropped before the [`Pinned`] that it came from.
///
/// # Invariants
/// * It writes at most one file ahead of those that `next_file` has returned.
pub trait Export: Send {
    /// The next file, durable, in the order of installation; none after the last one.
    ///
    /// Blocks; the time depends on the size of the file and on the rate limit.
    fn next_file(&mut self) -> Result<Option<PathBuf>, StateError>;
}

/// A file of a snapshot of this size is finished and the next one started.
pub const EXPORT_FILE_BYTES: u64 = 32 << 20;
/// Bytes of a snapshot on its sender's disk, at most, if each file is deleted before the next call:
/// one file that is sent, and one that is being written.
pub const EXPORT_BYTES_MAX: u64 = 2 * EXPORT_FILE_BYTES;

/// The state of all replicas of a node.
///
/// # Invariants
/// * A batch is visible as a whole to all later views, and invisible to all earlier ones (held by
///   the test `head_and_records_come_from_one_point_in_time`).
/// * After a crash, each replica's state is its state after some batch, no earlier than the last
///   flush (held by the test `killed_node_has_a_prefix_of_its_entries`).
pub trait State: Send + Sync + 'static {
    /// Calls `read` once with a view of the current state. Keep it short: a view pins everything
    /// that it can see.
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError>;

    /// Writes a batch of a replica. Visible on return, durable after the next flush.
    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError>;

    /// Makes all earlier writes durable. Blocks.
    fn flush(&self) -> Result<(), StateError>;

    /// Pins the replica's current state. Fast, regardless of size.
    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError>;

    /// Verifies the files of a snapshot (as written by [`Pinned::write_files`], in that order)
    /// before [`install`](Self::install): reads all of them, and calls `progress` now and then
    /// meanwhile. Refuses damaged files, another replica's keys, and a head or membership other
    /// than `meta`, with [`StateError::Snapshot`] or [`StateError::Corrupt`]. After
    /// [`StateError::Io`] the files may be fine: this node could not read them. Changes neither the
    /// state nor the files.
    ///
    /// Blocks; the time depends on the size of the files. Runs beside all other calls.
    fn verify(
        &self,
        replica: ReplicaId,
        files: &[PathBuf],
        meta: &SnapshotMeta,
        progress: &mut dyn FnMut(),
    ) -> Result<(), StateError>;

    /// Replaces the replica's whole state with the content of the files, which
    /// [`verify`](Self::verify) accepted. Atomic, and durable on return; consumes the files. Fast,
    /// regardless of size: it reads no data.
    fn install(&self, replica: ReplicaId, files: &[PathBuf]) -> Result<(), StateError>;

    /// Deletes the replica's whole state; durable some time later. So a caller that destroys a
    /// replica writes the log's tombstone first.
    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError>;

    /// Approximate size of the replica's state at the last flush, in bytes. For operators and
    /// planning, not for decisions about data.
    fn approximate_bytes(&self, replica: ReplicaId) -> u64;

    /// The replicas with any state here, by id; used by the sweep at start.
    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError>;
}
