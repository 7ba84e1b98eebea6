//! Makes a replica doubtful: silences it, marks it in the log, and stops it.

use std::sync::Arc;

use quorate_machine::log::LogError;
use quorate_testpoints::Bug;
use quorate_types::{GroupId, LogId, NodeId, ReplicaId};
use tracing::{error, warn};

use super::{Groups, Shared};
use crate::blocking;
use crate::replica::Replica;

impl Groups {
    /// The doubtful replicas of this node, with their groups: they lost entries that they had
    /// confirmed, and take no part in their groups until they are destroyed.
    pub fn doubtful(&self) -> Vec<(ReplicaId, GroupId)> {
        self.shared.doubtful.marked()
    }

    /// A leader says that a replica of this node refused an append after an entry that it had
    /// confirmed.
    pub(super) fn lost_entries(&self, leader: NodeId, replica: ReplicaId, group: GroupId, confirmed: LogId) {
        let Some(replica) = self.shared.replicas.find(replica, group) else { return };
        if !replica.raise_doubt() {
            return;
        }
        let node = self.shared.opener.options.node;
        error!(
            %node, %group, replica = %replica.id(), %leader, ?confirmed,
            "this replica lost log entries that it had confirmed: it is doubtful and takes no part in its group until \
             it is replaced; check the disk of this node"
        );
        if Bug::DoubtfulTakesPart.is_on() {
            // The mark is all that comes of it; a failure shows in the log's own error.
            let _ = blocking::in_place(|| self.shared.opener.log.mark_doubtful(replica.id()));
            return;
        }
        self.shared.doubtful.add_open(replica.clone());
        self.shared.replicas.remove(replica.id());
        self.shared.tasks.spawn_to_end(stop(self.shared.clone(), replica));
    }
}

/// Marks a silenced replica in the log, and stops its Raft core.
async fn stop(shared: Arc<Shared>, replica: Arc<Replica>) {
    let id = replica.id();
    match blocking::in_place(|| shared.opener.log.mark_doubtful(id)) {
        Ok(()) => shared.doubtful.set_marked(id),
        // The node is stopping, or the replica was destroyed. A leader tells it again after a
        // restart.
        Err(LogError::Closed | LogError::NoReplica(_)) => {}
        Err(reason) => warn!(replica = %id, %reason, "doubtful replica not marked"),
    }
    replica.shutdown().await;
}
