//! The nodes that a replica may move to.

use quorate_types::operation::PlannedMove;
use quorate_types::topology::{NodeState, Placement};
use quorate_types::{NodeId, ShardId};

use super::reports::Reports;
use super::room::Room;
use crate::state::{ClusterState, Held};

/// The nodes that a replica of the shard could move to now.
pub(super) fn targets<'a>(
    cluster: &'a ClusterState,
    reports: &'a Reports,
    shard: ShardId,
) -> impl Iterator<Item = NodeId> + 'a {
    let nodes = cluster.nodes.keys().copied();
    let room = Room::new(cluster, reports);
    nodes.filter(move |node| {
        let has_room = room.check(shard.group(), *node).is_ok();
        may_get(cluster, shard, *node) && reports.can_take_replica(*node) && has_room
    })
}

/// Whether a node takes replicas, and has none of the shard.
fn may_get(cluster: &ClusterState, shard: ShardId, node: NodeId) -> bool {
    let active = cluster.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active && node.weight > 0);
    active && !nodes_after(cluster, shard).contains(&node)
}

/// The nodes of a shard once its move is done.
pub(super) fn nodes_after(cluster: &ClusterState, shard: ShardId) -> Vec<NodeId> {
    let replicas = cluster.shards.get(&shard).map_or(&[][..], |shard| &shard.replicas);
    let moving = cluster.moves.get(&shard.group()).filter(|moving| !moving.cancelled);
    let after = |at: &Placement| match moving {
        Some(moving) if moving.from == Some(*at) => moving.to.map_or(at.node, |to| to.node),
        _ => at.node,
    };
    replicas.iter().map(after).collect()
}

/// Redirects a move to a better target: the replacing node, unless it is unresponsive or full, or
/// another node with free disk if the planned one is unreachable or full.
pub(super) fn redirect(
    cluster: &ClusterState,
    reports: &Reports,
    planned: PlannedMove,
    prefer: Option<NodeId>,
) -> PlannedMove {
    let prefer = prefer.filter(|node| may_get(cluster, planned.shard, *node));
    let room = Room::new(cluster, reports);
    let fits = |node: NodeId| room.check(planned.shard.group(), node).is_ok();
    let has_space = |node: &NodeId| fits(*node) && reports.node(*node).is_none_or(|report| !report.disk_full);
    if let Some(to) = prefer.filter(|node| has_space(node) && !reports.is_unresponsive(*node)) {
        return PlannedMove { to, ..planned };
    }
    if reports.can_take_replica(planned.to) && fits(planned.to) {
        return planned;
    }
    let others = targets(cluster, reports, planned.shard);
    // Without another target, the obstacle at the first choice is the reason to show.
    let to = others.min_by_key(|node| Held::by(cluster, *node).total()).or(prefer).unwrap_or(planned.to);
    PlannedMove { to, ..planned }
}
