//! The state of a shard that outlives a version of the map.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_types::NodeId;

use crate::session::Sessions;

/// The state of a shard that is not in the map.
#[derive(Default)]
pub(crate) struct Live {
    /// The last known leader. 0: unknown.
    leader: AtomicU64,
    /// The sessions of this client's writes.
    pub(crate) sessions: Sessions,
}

impl Live {
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.leader.load(Ordering::Relaxed) {
            0 => None,
            node => Some(NodeId(node)),
        }
    }

    pub(crate) fn set_leader(&self, node: NodeId) {
        // Usually it is unchanged, and without a store other cores keep their cached copy.
        if self.leader.load(Ordering::Relaxed) != node.0 {
            self.leader.store(node.0, Ordering::Relaxed);
        }
    }

    /// Forgets the leader if it is this node.
    pub(crate) fn forget_leader(&self, node: NodeId) {
        _ = self.leader.compare_exchange(node.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}
