//! The Raft core of one replica, with its log and its applied state: the part that every operation
//! on a replica needs.

use std::sync::Arc;

use quorate_machine::log::Log;
use quorate_types::{GroupId, NodeId, ReplicaId};

use crate::progress::Progress;
use crate::state_machine::Raft;

/// The Raft core of one replica.
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) progress: Progress,
}
