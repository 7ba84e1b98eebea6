//! Replaces doubtful replicas: those that lost log entries that they had confirmed. They take no
//! part in their group any longer.
//!
//! The new replica gets an id that was never used, on the same node where that can take it: the
//! balance of the cluster stays as it is, and with three nodes there is no other place. It joins
//! before the doubtful one leaves, by one joint change. Removing the doubtful voter first would be
//! no safer, since it counts in no quorum, and would leave the group with fewer voters than it
//! should have. The change needs the quorum of the others, before and after it, like every change.

use quorate_types::operation::OperationId;
use quorate_types::topology::{NodeState, Placement};
use quorate_types::{GroupId, NodeId};

use super::reports::Reports;
use super::room::Room;
use super::slots::{MoveSlots, Start};
use super::steps::{Plan, Step};
use super::targets::targets;
use super::voters;
use crate::state::{ClusterState, Held};

/// Starts replacements while nodes have free slots. They belong to upkeep and to no operation.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, slots: &mut MoveSlots<'_>, plan: &mut Plan) {
    let shards = cluster.shards.keys().map(|shard| shard.group());
    for group in shards.chain([GroupId::TOPOLOGY]).filter(|group| !cluster.moves.contains_key(group)) {
        let replicas = cluster.replicas(group).unwrap_or_default();
        let Some(doubtful) = replicas.iter().find(|at| reports.is_doubtful(**at)).copied() else { continue };
        let Some(to) = target(cluster, reports, group, doubtful) else { continue };
        let progress = plan.progress(OperationId::UPKEEP);
        progress.left += 1;
        match slots.replace(group, doubtful, to) {
            Start::Now(command) => {
                progress.left -= 1;
                progress.moving += 1;
                plan.steps.push(Step::Propose(command));
            }
            Start::AfterTransfers | Start::AfterMoves(_) => {}
            Start::Blocked(reason) => plan.block(OperationId::UPKEEP, group, &reason),
        }
    }
}

/// The node of the new replica. None if an operation moves the doubtful replica away from its node
/// anyway.
fn target(cluster: &ClusterState, reports: &Reports, group: GroupId, doubtful: Placement) -> Option<NodeId> {
    let own = doubtful.node;
    if cluster.nodes.get(&own).is_none_or(|node| node.state != NodeState::Active) {
        return None;
    }
    if reports.can_take_replica(own) && Room::new(cluster, reports).check(group, own).is_ok() {
        return Some(own);
    }
    let other = match group.shard() {
        Some(shard) => targets(cluster, reports, shard).min_by_key(|node| Held::by(cluster, *node).total()),
        None => voters::next_voter(cluster, reports),
    };
    // Without another target, the obstacle at its own node is the reason to show.
    Some(other.unwrap_or(own))
}
