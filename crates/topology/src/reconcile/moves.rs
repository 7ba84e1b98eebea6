//! The moves that start next, for the running operations.

use std::collections::{BTreeMap, BTreeSet};

use quorate_ring::{ArcTable, Candidate, Move, MoveReason, PlacementRequest, rebalance};
use quorate_types::operation::{Intent, Operation, OperationId, PlannedMove, ReplicaMove};
use quorate_types::topology::{NodeState, Placement};
use quorate_types::{GroupId, NodeId, ShardId};

use super::blocked::Blocked;
use super::reports::Reports;
use super::slots::{MoveSlots, Start};
use super::steps::{Plan, Step};
use crate::names::GroupName;
use crate::state::{ClusterState, Held, plans};

/// The moves that balance the map as it will be once the moves in motion are done. None if there
/// are too few nodes.
fn balancing_moves(cluster: &ClusterState) -> Vec<Move> {
    let Some(bootstrap) = cluster.bootstrap() else { return Vec::new() };
    let active = cluster.nodes.values().filter(|node| node.state == NodeState::Active);
    let nodes: Vec<Candidate> =
        active.map(|node| Candidate { id: node.id, zone: node.zone.clone(), weight: node.weight }).collect();
    let Ok(shards) = ArcTable::new(cluster.shards.values().map(|shard| (shard.id, shard.arc))) else {
        return Vec::new();
    };
    let current: Vec<_> = cluster.shards.keys().map(|&shard| (shard, nodes_after(cluster, shard))).collect();
    let request = PlacementRequest {
        hash_key: &bootstrap.cluster.hash_key,
        nodes: &nodes,
        shards: &shards,
        replicas: bootstrap.cluster.replicas,
    };
    rebalance(&request, &current).unwrap_or_default()
}

/// The moves that would balance the map and that an operator may start now, because no other
/// operation moves their shards. None if there are too few nodes.
pub fn possible_moves(cluster: &ClusterState) -> Vec<Move> {
    let named = named_shards(cluster);
    let is_free = |wanted: &Move| {
        let nodes = cluster.shards.get(&wanted.shard).map(|shard| shard.replicas.iter().map(|at| at.node).collect());
        let emptied = nodes.is_some_and(|nodes: Vec<NodeId>| plans::emptied_by(cluster, &nodes).is_some());
        !emptied && !named.contains(&wanted.shard) && !cluster.moves.contains_key(&wanted.shard.group())
    };
    balancing_moves(cluster).into_iter().filter(is_free).collect()
}

/// The nodes of a shard once its move is done.
fn nodes_after(cluster: &ClusterState, shard: ShardId) -> Vec<NodeId> {
    let replicas = cluster.shards.get(&shard).map_or(&[][..], |shard| &shard.replicas);
    let moving = cluster.moves.get(&shard.group()).filter(|moving| !moving.cancelled);
    let after = |at: &Placement| match moving {
        Some(moving) if moving.from == Some(*at) => moving.to.map_or(at.node, |to| to.node),
        _ => at.node,
    };
    replicas.iter().map(after).collect()
}

/// Starts moves while nodes have free slots, for the oldest operation first.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let running: Vec<&Operation> = cluster.running_operations().collect();
    let named_only = running.iter().all(|running| !running.intent.planned_moves().is_empty());
    let balancing = if named_only { Vec::new() } else { balancing_moves(cluster) };
    let mut slots = MoveSlots::new(cluster, reports, plan.transfers_leadership);
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

/// The moves that an operation still needs, including those in motion.
fn open_moves(
    cluster: &ClusterState,
    reports: &Reports,
    operation: &Operation,
    balancing: &[Move],
) -> Vec<PlannedMove> {
    let planned = |wanted: &Move| PlannedMove { shard: wanted.shard, from: wanted.from, to: wanted.to };
    match &operation.intent {
        Intent::Add { .. } => {
            // Balance does not undo the moves that an operator asked for by name.
            let named = named_shards(cluster);
            let even = balancing.iter().filter(|wanted| wanted.reason != MoveReason::Leaves);
            even.map(planned).filter(|planned| !named.contains(&planned.shard)).collect()
        }
        Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
            let prefer = match operation.intent {
                Intent::Replace { new, .. } => Some(new),
                _ => None,
            };
            let leaving = balancing.iter().filter(|wanted| wanted.from == *node).map(planned);
            leaving.map(|planned| redirect(cluster, reports, planned, prefer)).collect()
        }
        Intent::Undrain { .. } => Vec::new(),
        Intent::Move { .. } | Intent::Rebalance { .. } => {
            plans::pending(cluster, operation.intent.planned_moves()).collect()
        }
    }
}

/// The shards that running operations still move by name.
fn named_shards(cluster: &ClusterState) -> BTreeSet<ShardId> {
    let running = cluster.running_operations();
    let pending = running.flat_map(|running| plans::pending(cluster, running.intent.planned_moves()));
    pending.map(|planned| planned.shard).collect()
}

/// Redirects a move to a better target: the replacing node, unless it is unresponsive or full, or
/// another node with free disk if the planned one is unreachable or full.
fn redirect(cluster: &ClusterState, reports: &Reports, planned: PlannedMove, prefer: Option<NodeId>) -> PlannedMove {
    let prefer = prefer.filter(|node| may_get(cluster, planned.shard, *node));
    let has_space = |node: &NodeId| reports.node(*node).is_none_or(|report| !report.disk_full);
    if let Some(to) = prefer.filter(|node| has_space(node) && !reports.is_unresponsive(*node)) {
        return PlannedMove { to, ..planned };
    }
    if reports.can_take_replica(planned.to) {
        return planned;
    }
    let others = targets(cluster, reports, planned.shard);
    // Without another target, the obstacle at the first choice is the reason to show.
    let to = others.min_by_key(|node| Held::by(cluster, *node).total()).or(prefer).unwrap_or(planned.to);
    PlannedMove { to, ..planned }
}

/// The nodes that a replica of the shard could move to now.
pub(super) fn targets(cluster: &ClusterState, reports: &Reports, shard: ShardId) -> impl Iterator<Item = NodeId> {
    let nodes = cluster.nodes.keys().copied();
    nodes.filter(move |node| may_get(cluster, shard, *node) && reports.can_take_replica(*node))
}

/// Whether a node takes replicas, and has none of the shard.
fn may_get(cluster: &ClusterState, shard: ShardId, node: NodeId) -> bool {
    let active = cluster.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active && node.weight > 0);
    active && !nodes_after(cluster, shard).contains(&node)
}
