//! The moves that start next: doubtful replicas are replaced first, then come the running
//! operations.

use std::collections::BTreeMap;

use quorate_types::GroupId;
use quorate_types::operation::{Operation, OperationId, PlannedMove, ReplicaMove};

use super::balance::balancing_moves;
use super::blocked::Blocked;
use super::doubtful;
use super::open_moves::open_moves;
use super::reports::Reports;
use super::slots::{MoveSlots, Start};
use super::steps::{Plan, Step};
use crate::names::GroupName;
use crate::state::ClusterState;

/// Starts moves while nodes have free slots: replacements of doubtful replicas, then the moves of
/// the oldest operation first.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let running: Vec<&Operation> = cluster.running_operations().collect();
    let named_only = running.iter().all(|running| !running.intent.planned_moves().is_empty());
    let balancing = if named_only { Vec::new() } else { balancing_moves(cluster) };
    let mut slots = MoveSlots::new(cluster, reports, plan.transfers_leadership);
    doubtful::plan(cluster, reports, &mut slots, plan);
    for operation in running {
        // Moves that wait for a slot, by the blocked moves that hold the slots.
        let mut waiting: BTreeMap<Vec<GroupId>, u32> = BTreeMap::new();
        for planned in open_moves(cluster, reports, operation, &balancing) {
            let moving = cluster.moves.get(&planned.shard.group());
            // A cancelled move counts too: once it is undone, the replica moves elsewhere.
            if moving.is_some_and(|moving| is_of(moving, planned, operation)) {
                continue;
            }
            plan.progress(operation.id).left += 1;
            if let Some(moving) = moving {
                wait_for(cluster, moving, operation, plan);
                continue;
            }
            match slots.start(planned, operation.id, &plan.stalled) {
                Start::Now(command) => {
                    let progress = plan.progress(operation.id);
                    progress.left -= 1;
                    progress.moving += 1;
                    plan.steps.push(Step::Propose(command));
                }
                Start::AfterTransfers => {}
                // A slot whose move makes progress becomes free; that needs no explanation.
                Start::AfterMoves(holders) => {
                    if holders.iter().all(|group| plan.stalled.contains(group)) {
                        *waiting.entry(holders).or_default() += 1;
                    }
                }
                Start::Blocked(reason) => plan.block(operation.id, planned.shard.group(), &reason),
            }
        }
        for (holders, count) in waiting {
            let holders: Vec<String> = holders.into_iter().map(|group| GroupName(group).to_string()).collect();
            let holders = holders.join(" or ");
            let wait = format!("{count} more wait until {holders} has moved: a node has at most two moves at a time");
            plan.progress(operation.id).waits.push(wait);
        }
        wait_for_other_operations(cluster, operation, plan);
        wait_for_topology_group(cluster, operation, plan);
    }
}

/// Whether a move in motion is the planned one, or its cancelled predecessor.
fn is_of(moving: &ReplicaMove, planned: PlannedMove, operation: &Operation) -> bool {
    moving.operation == operation.id && moving.from.is_some_and(|at| at.node == planned.from)
}

/// Notes that an operation waits for a move of another one: a shard has one move at a time.
fn wait_for(cluster: &ClusterState, moving: &ReplicaMove, operation: &Operation, plan: &mut Plan) {
    let reason = match cluster.owner(moving) {
        owner if owner == operation.id => return,
        OperationId::UPKEEP => Blocked::CancelledMove,
        owner => Blocked::OtherOperation(owner),
    };
    plan.block(operation.id, moving.group, &reason);
}

/// Counts replicas that leave the operation's node for another operation: no other move of them is
/// planned.
fn wait_for_other_operations(cluster: &ClusterState, operation: &Operation, plan: &mut Plan) {
    let Some(node) = operation.intent.leaving_node() else { return };
    let leaves =
        |moving: &&ReplicaMove| moving.group != GroupId::TOPOLOGY && moving.from.is_some_and(|at| at.node == node);
    for moving in cluster.moves.values().filter(leaves).filter(|moving| !moving.cancelled) {
        if cluster.owner(moving) != operation.id {
            plan.progress(operation.id).left += 1;
            wait_for(cluster, moving, operation, plan);
        }
    }
}

/// Counts the topology group's replica on the operation's node. It moves as upkeep, and the node is
/// not drained before; so the operation shows the reasons why that move waits.
fn wait_for_topology_group(cluster: &ClusterState, operation: &Operation, plan: &mut Plan) {
    let Some(node) = operation.intent.leaving_node() else { return };
    if cluster.topology_replicas().iter().any(|at| at.node == node) {
        plan.progress(operation.id).left += 1;
        let of_group = format!("{}: ", GroupName(GroupId::TOPOLOGY));
        let upkeep = plan.progress.get(&OperationId::UPKEEP).map_or(&[][..], |upkeep| &upkeep.waits);
        let waits: Vec<String> = upkeep.iter().filter(|wait| wait.starts_with(&of_group)).cloned().collect();
        plan.progress(operation.id).waits.extend(waits);
    }
}
