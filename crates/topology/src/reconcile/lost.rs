//! Cancels moves to unresponsive nodes. They would keep a move slot of the source node, and their
//! shard, until the target returns.

use quorate_types::operation::{Intent, ReplicaMove};
use quorate_types::topology::Command;

use super::reports::Reports;
use super::steps::{Plan, Step};
use super::{moves, voters};
use crate::state::ClusterState;

/// Cancels blocked moves to unresponsive nodes, if another node can take the replica, or if the
/// move only serves the target. A move that an operator asked for by name waits for its target.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    // While moves are paused, the replacement of a cancelled move could not start.
    if cluster.paused {
        return;
    }
    let lost = cluster.moves.values().filter(|moving| {
        let unresponsive = moving.to.is_some_and(|to| reports.is_unresponsive(to.node));
        let stalled = plan.stalled.contains(&moving.group);
        unresponsive && stalled && !moving.cancelled && may_be_cancelled(cluster, reports, moving)
    });
    let steps: Vec<Step> = lost.map(|moving| Step::Propose(Command::CancelMove(*moving))).collect();
    plan.steps.extend(steps);
}

/// Whether the replica may stay or go to another node.
fn may_be_cancelled(cluster: &ClusterState, reports: &Reports, moving: &ReplicaMove) -> bool {
    let Some(shard) = moving.group.shard() else { return voters::next_voter(cluster, reports).is_some() };
    let operation = cluster.running_operations().find(|running| running.id == moving.operation);
    operation.is_some_and(|operation| match operation.intent {
        // The replica may stay on its node until the new node returns.
        Intent::Add { .. } => true,
        Intent::Drain { .. } | Intent::Remove { .. } | Intent::Replace { .. } => {
            moves::targets(cluster, reports, shard).next().is_some()
        }
        Intent::Undrain { .. } | Intent::Move { .. } | Intent::Rebalance { .. } => false,
    })
}
