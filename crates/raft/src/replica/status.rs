//! The status of a replica, for operators.

use quorate_types::state::Head;
use quorate_types::{GroupId, NodeId, ReplicaId, Role};
use tokio::time::Instant;

use super::Replica;
use crate::stalls::Stalled;

/// Role and progress of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its role in the group.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The node of the leader it knows; none after four leases without contact.
    pub leader: Option<NodeId>,
    /// Whether it knows the members of its group.
    pub initialized: bool,
    /// The last entry of its log.
    pub last_log_index: Option<u64>,
    /// The last entry it applied.
    pub applied_index: Option<u64>,
    /// The last entry it purged.
    pub purged_index: Option<u64>,
    /// Revision, epoch and clock of its state.
    pub head: Head,
    /// Bytes of log that it retains.
    pub log_bytes: u64,
    /// The nodes of the voters.
    pub voters: Vec<NodeId>,
    /// Snapshots that it installed since the node started.
    pub snapshots_installed: u64,
    /// The members of the group that do not catch up, if this replica leads.
    pub stalled: Vec<Stalled>,
}

impl Replica {
    /// Its role and progress.
    pub fn status(&self) -> ReplicaStatus {
        let soft_state = self.soft_state.get();
        let applied = self.core.progress.applied();
        let log = self.core.log.state(self.id()).unwrap_or_default();
        let knows_leader = soft_state.leads() || self.election.has_contact(Instant::now());
        ReplicaStatus {
            group: self.group(),
            replica: self.id(),
            role: soft_state.role,
            term: soft_state.term,
            leader: soft_state.leader.filter(|_| knows_leader),
            initialized: !soft_state.voters.is_empty(),
            last_log_index: log.last.map(|id| id.index),
            applied_index: applied.head.applied.map(|id| id.index),
            purged_index: log.purged.map(|id| id.index),
            head: applied.head,
            log_bytes: self.log_bytes(),
            voters: soft_state.voters,
            snapshots_installed: applied.snapshots_installed,
            stalled: self.stalls.observe(&self.report(), Instant::now()),
        }
    }
}
