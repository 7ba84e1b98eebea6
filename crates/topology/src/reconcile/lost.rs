//! Cancels moves to unresponsive nodes: they would keep a move slot of the source node, and their
//! shard, until the target returns. Cancels moves to replicas that became doubtful before they had
//! a vote: they will never catch up.

use quorate_types::operation::{Intent, OperationId, ReplicaMove};
use quorate_types::topology::Command;

use super::reports::Reports;
use super::steps::{Plan, Step};
use super::targets::targets;
use super::voters;
use crate::state::ClusterState;

/// Cancels blocked moves to unresponsive nodes, if another node can take the replica, or if the
/// move only serves the target. A move that an operator asked for by name waits for its target. A
/// cancelled move to a doubtful replica starts again with a new id.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    // While moves are paused, the replacement of a cancelled move could not start.
    if cluster.paused {
        return;
    }
    let lost = cluster.moves.values().filter(|moving| {
        let unresponsive = moving.to.is_some_and(|to| reports.is_unresponsive(to.node));
        let stalled = plan.stalled.contains(&moving.group);
        let gone = unresponsive && stalled && may_be_cancelled(cluster, reports, moving);
        let doubtful = moving.to.is_some_and(|to| reports.is_doubtful(to)) && stalled;
        (gone || doubtful) && !moving.cancelled
    });
    let steps: Vec<Step> = lost.map(|moving| Step::Propose(Command::CancelMove(*moving))).collect();
    plan.steps.extend(steps);
}

/// Whether the replica may stay or go to another node.
fn may_be_cancelled(cluster: &ClusterState, reports: &Reports, moving: &ReplicaMove) -> bool {
    let Some(shard) = moving.group.shard() else { return voters::next_voter(cluster, reports).is_some() };
    if moving.operation == OperationId::UPKEEP {
        // It replaces a doubtful replica. If that returns, it reports itself again.
        return true;
    }
    let operation = cluster.running_operations().find(|running| running.id == moving.operation);
    operation.is_some_and(|operation| match operation.intent {
        // The replica may stay on its node until the new node returns.
        Intent::Add { .. } => true,
        Intent::Drain { .. } | Intent::Remove { .. } | Intent::Replace { .. } => {
            targets(cluster, reports, shard).next().is_some()
        }
        Intent::Undrain { .. } | Intent::Move { .. } | Intent::Rebalance { .. } => false,
    })
}
