//! Moves to a node that stays away. They would hold a place of the node that gives, and their shard, until it comes back.

use quorate_types::operation::{Intent, ReplicaMove};
use quorate_types::topology::Command;

use super::{Plan, Reports, Step, moves, voters};
use crate::cluster::ClusterState;

/// Takes back what stands still because its target stays away, where another node can take the replica, or where it is for the sake of
/// the target alone. A move that was asked for by name waits for the node that was named.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    // What is taken back could not start anew.
    if cluster.paused {
        return;
    }
    let lost = cluster.moves.values().filter(|moving| {
        let unresponsive = moving.to.is_some_and(|to| reports.is_unresponsive(to.node));
        unresponsive && !moving.cancelled && plan.stalled.contains(&moving.group) && is_free(cluster, reports, moving)
    });
    let back: Vec<Step> = lost.map(|moving| Step::Propose(Command::CancelMove(*moving))).collect();
    plan.steps.extend(back);
}

/// Nothing holds a replica to its target.
fn is_free(cluster: &ClusterState, reports: &Reports, moving: &ReplicaMove) -> bool {
    let Some(shard) = moving.group.shard() else { return voters::newcomer(cluster, reports).is_some() };
    let operation = cluster.running_operations().find(|running| running.id == moving.operation);
    operation.is_some_and(|operation| match operation.intent {
        // It is well where it is until the new node is back.
        Intent::Add { .. } => true,
        Intent::Drain { .. } | Intent::Remove { .. } | Intent::Replace { .. } => {
            moves::takers(cluster, reports, shard).next().is_some()
        }
        Intent::Undrain { .. } | Intent::Move { .. } | Intent::Rebalance { .. } => false,
    })
}
