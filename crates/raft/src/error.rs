//! Errors of this crate, one small enum per operation.

use std::path::PathBuf;
use std::time::Duration;

use quorate_machine::log::LogError;
use quorate_machine::state::StateError;
use quorate_types::{GroupId, ReplicaId};
use tokio::task::JoinError;

/// A replica could not be opened or destroyed. Its stored data is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log refused: the replica was destroyed earlier, or the disk is in doubt.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state is in doubt.
    #[error(transparent)]
    State(#[from] StateError),
    /// Raft did not start from the stored log and state.
    #[error("raft refused to start: {0}")]
    Raft(String),
    /// The replica lost entries that it had confirmed: it stays closed until it is destroyed.
    #[error("replica {0} is doubtful: it lost log entries that it had confirmed")]
    Doubtful(ReplicaId),
    /// The replica is open already.
    #[error("replica {0} is open already")]
    AlreadyOpen(ReplicaId),
}

/// The Raft groups of the node have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the raft groups of this node have stopped")]
pub struct Stopped;

/// An order of the reconciler was not confirmed as done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing was started and nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The order may have started: it may still take effect, or have failed halfway.
    #[error("{0}")]
    Unknown(String),
}

impl OrderError {
    /// The order was not done in time.
    pub(crate) fn late(within: Duration) -> Self {
        OrderError::Unknown(format!("not done within {} ms", within.as_millis()))
    }
}

/// The files of a snapshot to send cannot be written or read. The transfer is over.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk would go below its reserve.
    #[error("no space on this node to write the snapshot: needs {needs} bytes above the reserve, has {has}")]
    NoSpace {
        /// The bytes that the snapshot may take at a time.
        needs: u64,
        /// The free bytes above the reserve.
        has: u64,
    },
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the file system.
        error: std::io::Error,
    },
    /// The state cannot be read, or its files not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The thread that wrote the files panicked, or was stopped with the runtime.
    #[error(transparent)]
    Ended(#[from] JoinError),
    /// An earlier file failed, or the call for it was cancelled.
    #[error("an earlier file of the snapshot failed")]
    FailedBefore,
}

/// A received snapshot was not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// No replica with this id and group is open here. Nothing was installed.
    #[error("replica {replica} of group {group} is not here")]
    NoReplica {
        /// The group of the snapshot.
        group: GroupId,
        /// The replica that the snapshot was made for.
        replica: ReplicaId,
    },
    /// The files are damaged, or hold other keys or another state than announced. Nothing was
    /// installed; the state is unchanged.
    #[error("the snapshot is bad: {0}")]
    Bad(String),
    /// This node could not read or link the files; they may be fine. Nothing was installed.
    #[error("{0}")]
    Failed(String),
    /// The Raft core stopped before it answered. The installation may still be running.
    #[error("{0}")]
    Unknown(String),
}
