//! Errors of this crate, one small enum per operation.

use quorate_machine::log::LogError;
use quorate_machine::state::StateError;
use quorate_types::{GroupId, ReplicaId};

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
    /// The Raft core stopped before it answered. The installation may still be running.
    #[error("{0}")]
    Unknown(String),
}
