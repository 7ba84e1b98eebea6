//! The room that replicas need on the nodes that they move to.

use std::collections::BTreeMap;

use quorate_types::operation::{PlannedMove, ReplicaMove};
use quorate_types::{GroupId, NodeId};

use super::reports::Reports;
use crate::state::ClusterState;

const MIB: u64 = 1 << 20;

/// A node has too little room for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no space on node {node}: needs {} MiB, has {} MiB above its reserve", needs.div_ceil(MIB), has / MIB)]
pub struct NoSpace {
    /// The node.
    pub node: NodeId,
    /// The size of the replica, in bytes.
    pub needs: u64,
    /// The free bytes above the node's reserve, without the replicas on their way to it.
    pub has: u64,
}

/// The room of every node: its free disk above the reserve, less the replicas on their way to it.
pub(super) struct Room<'a> {
    cluster: &'a ClusterState,
    reports: &'a Reports,
    /// Bytes that are still to arrive at each node.
    arriving: BTreeMap<NodeId, u64>,
}

impl<'a> Room<'a> {
    /// Subtracts the moves in motion.
    pub(super) fn new(cluster: &'a ClusterState, reports: &'a Reports) -> Self {
        let mut room = Room { cluster, reports, arriving: BTreeMap::new() };
        for moving in cluster.moves.values() {
            if let Some(to) = moving.to {
                let left = room.size_of(moving.group).saturating_sub(room.arrived(moving));
                *room.arriving.entry(to.node).or_default() += left;
            }
        }
        room
    }

    /// A replica of the group starts to move to the node.
    pub(super) fn take(&mut self, group: GroupId, to: NodeId) {
        *self.arriving.entry(to).or_default() += self.size_of(group);
    }

    /// Checks that the node has room for a replica of the group. A node that does not answer has
    /// room as far as is known: that it does not answer is the obstacle.
    pub(super) fn check(&self, group: GroupId, node: NodeId) -> Result<(), NoSpace> {
        let Some(report) = self.reports.node(node) else { return Ok(()) };
        let arriving = self.arriving.get(&node).copied().unwrap_or(0);
        let (needs, has) = (self.size_of(group), report.disk_room_bytes.saturating_sub(arriving));
        if has < needs { Err(NoSpace { node, needs, has }) } else { Ok(()) }
    }

    /// The size of the group's state: the largest one that a replica of it reports.
    fn size_of(&self, group: GroupId) -> u64 {
        let replicas = self.cluster.replicas(group).unwrap_or_default();
        let sizes = replicas.iter().filter_map(|at| self.reports.replica(*at)).map(|report| report.bytes);
        sizes.max().unwrap_or(0)
    }

    /// The bytes of a moving replica that are on the target's disk already.
    fn arrived(&self, moving: &ReplicaMove) -> u64 {
        moving.to.and_then(|to| self.reports.replica(to)).map_or(0, |report| report.bytes)
    }
}

/// Checks that the target of a move that an operator asks for has room for the replica, beside
/// those on their way to it. A move that is in motion or done already passes.
///
/// # Errors
/// The move is refused: without room its snapshot would never arrive.
pub fn check_room(cluster: &ClusterState, reports: &Reports, planned: PlannedMove) -> Result<(), NoSpace> {
    let (group, to) = (planned.shard.group(), planned.to);
    let moving = cluster.moves.get(&group).and_then(|moving| moving.to);
    let present = cluster.replicas(group).unwrap_or_default();
    if moving.iter().chain(present).any(|at| at.node == to) {
        return Ok(());
    }
    Room::new(cluster, reports).check(group, to)
}
