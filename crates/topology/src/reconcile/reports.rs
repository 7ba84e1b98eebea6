//! The planner's inputs beside the cluster state: reports of the nodes, and recent events that the
//! reconciler remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quorate_types::report::{Foreground, NodeReport, ReplicaReport};
use quorate_types::topology::Placement;
use quorate_types::{GroupId, NodeId, ReplicaId, Role};

/// Recent observations of a cluster. The planner decides on them, so they may be stale or missing.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// The newest report of every node that answered. A node that does not answer is missing.
    pub nodes: NodeReports,
    /// For each group whose last order failed, the reason.
    pub failures: BTreeMap<GroupId, String>,
    /// Groups whose leadership was transferred a moment ago, and the node that got it. The report
    /// that names their leader may be older. The planner does not transfer them again for now.
    pub transfers: BTreeMap<GroupId, NodeId>,
    /// Groups whose leader transfer failed a while ago. The planner retries them after all other
    /// transfers, and no move waits for them.
    pub failed_transfers: BTreeSet<GroupId>,
    /// Nodes that have not answered for so long that the planner stops waiting for them: moves to
    /// them are cancelled where another node can take the replica.
    pub unresponsive: BTreeSet<NodeId>,
}

/// Node reports, indexed by node and by replica.
#[derive(Clone, Debug, Default)]
pub struct NodeReports {
    by_node: BTreeMap<NodeId, NodeReport>,
    /// The index of each replica in the report of its node.
    replica_index: HashMap<(NodeId, ReplicaId), usize>,
}

impl FromIterator<NodeReport> for NodeReports {
    fn from_iter<I: IntoIterator<Item = NodeReport>>(reports: I) -> Self {
        let by_node: BTreeMap<NodeId, NodeReport> = reports.into_iter().map(|report| (report.node, report)).collect();
        let replicas = by_node.values().flat_map(|report| {
            let replicas = report.replicas.iter().enumerate();
            replicas.map(|(index, replica)| ((report.node, replica.replica), index))
        });
        NodeReports { replica_index: replicas.collect(), by_node }
    }
}

impl Reports {
    /// The report of a node, if it answered.
    pub fn node(&self, node: NodeId) -> Option<&NodeReport> {
        self.nodes.by_node.get(&node)
    }

    /// Whether a node answered.
    pub fn answers(&self, node: NodeId) -> bool {
        self.node(node).is_some()
    }

    /// Whether a node has not answered for so long that the planner stops waiting for it.
    pub(super) fn is_unresponsive(&self, node: NodeId) -> bool {
        self.unresponsive.contains(&node) && !self.answers(node)
    }

    /// Whether a node answers and has free disk for a replica.
    pub(super) fn can_take_replica(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|report| !report.disk_full)
    }

    /// Whether any node serves user requests.
    pub(super) fn has_users(&self) -> bool {
        self.nodes.by_node.values().any(|report| report.foreground != Foreground::Idle)
    }

    /// The report of a replica, if its node answered and has it.
    pub(super) fn replica(&self, at: Placement) -> Option<&ReplicaReport> {
        let index = *self.nodes.replica_index.get(&(at.node, at.replica))?;
        self.node(at.node)?.replicas.get(index)
    }

    /// Whether a replica reports that it lost log entries. It then has no part in its group.
    pub(super) fn is_doubtful(&self, at: Placement) -> bool {
        self.replica(at).is_some_and(|report| report.doubtful)
    }

    /// Whether a follower answers its leader, lacks at most `entries` entries, and is not doubtful:
    /// the leader may have heard from it before it became so.
    pub(super) fn is_caught_up(&self, leader: &ReplicaReport, follower: Placement, entries: u64) -> bool {
        let other = leader.others.iter().find(|other| other.replica == follower.replica);
        let has_entries =
            other.is_some_and(|other| other.answers && other.matched_index + entries >= leader.last_index);
        has_entries && !self.is_doubtful(follower)
    }

    /// The leader of a group among these replicas. Of several, the one with the highest term: a
    /// deposed leader may not know yet that it was deposed.
    pub(super) fn leader(&self, group: GroupId, replicas: &[Placement]) -> Option<(Placement, &ReplicaReport)> {
        let all = replicas.iter().filter_map(|at| Some((*at, self.replica(*at)?)));
        let leaders = all.filter(|(_, report)| report.group == group && report.role == Role::Leader);
        leaders.max_by_key(|(_, report)| report.term)
    }
}
