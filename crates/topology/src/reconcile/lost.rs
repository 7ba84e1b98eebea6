//! Moves to a node that stays away. They would hold a place of the node that gives, and their shard, until it comes back.

use quorate_types::operation::{Intent, ReplicaMove};
use quorate_types::topology::Command;

use super::{Plan, Reports, Step, moves, voters};
use crate::cluster::ClusterState;

/// Takes back what stands still because its target stays away, where another node can take the replica. A move that was asked for by
/// name waits for the node that was named.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let lost = cluster.moves.values().filter(|moving| {
        let to_silent = moving.to.is_some_and(|to| reports.is_silent(to.node));
        to_silent
            && !moving.cancelled
            && plan.stalled.contains(&moving.group)
            && goes_elsewhere(cluster, reports, moving)
    });
    let back: Vec<Step> = lost.map(|moving| Step::Propose(Command::TurnBackMove(*moving))).collect();
    plan.steps.extend(back);
}

fn goes_elsewhere(cluster: &ClusterState, reports: &Reports, moving: &ReplicaMove) -> bool {
    let Some(shard) = moving.group.shard() else { return voters::newcomer(cluster, reports).is_some() };
    let operation = cluster.running_operations().find(|running| running.id == moving.operation);
    let by_name =
        |intent: &Intent| !matches!(intent, Intent::Drain { .. } | Intent::Remove { .. } | Intent::Replace { .. });
    let has_target = moves::takers(cluster, reports, shard).next().is_some();
    has_target && operation.is_some_and(|operation| !by_name(&operation.intent))
}
