//! Operations that move named replicas: one move, or the list of a rebalance.

use std::collections::BTreeSet;

use quorate_types::operation::{Intent, Operation, OperationId, PlannedMove};
use quorate_types::topology::NodeState;
use quorate_types::{NodeId, ShardId};

use super::cluster::{ClusterState, Unknown};
use super::moves;
use super::moves::TargetRefused;
use crate::limits::PLAN_MOVES_MAX;

/// The reason why planned moves are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanRefused {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("there is nothing to move")]
    Empty,
    #[error("{0} moves are too many for one operation; at most {PLAN_MOVES_MAX}")]
    TooMany(usize),
    #[error("a replica of shard {} from node {} to node {} is planned twice", .0.shard, .0.from, .0.to)]
    Twice(PlannedMove),
    #[error("another operation moves shard {0}; see: quorate op list")]
    Taken(ShardId),
    #[error("shard {shard} is in motion for operation {operation}; wait for it: quorate op show {operation}")]
    InMotion { shard: ShardId, operation: OperationId },
    #[error(
        "operation {operation} ({intent}) moves shard {shard}; wait for it: quorate op show {operation}, or cancel it: \
         quorate op cancel {operation}"
    )]
    Emptied { shard: ShardId, operation: OperationId, intent: Intent },
    #[error("node {node} has no replica of shard {shard}")]
    NoReplica { shard: ShardId, node: NodeId },
    #[error("shard {shard} cannot move to node {to}: {reason}")]
    Target { shard: ShardId, to: NodeId, reason: TargetRefused },
}

/// Checks that an operation may make these moves.
pub(super) fn check(state: &ClusterState, planned: &[PlannedMove]) -> Result<(), PlanRefused> {
    if planned.is_empty() {
        return Err(PlanRefused::Empty);
    }
    if planned.len() > PLAN_MOVES_MAX {
        return Err(PlanRefused::TooMany(planned.len()));
    }
    let taken = taken_shards(state);
    let (mut leaving, mut coming) = (BTreeSet::new(), BTreeSet::new());
    for &PlannedMove { shard, from, to } in planned {
        if !leaving.insert((shard, from)) || !coming.insert((shard, to)) {
            return Err(PlanRefused::Twice(PlannedMove { shard, from, to }));
        }
        let replicas = &state.shard(shard)?.replicas;
        if taken.contains(&shard) {
            return Err(PlanRefused::Taken(shard));
        }
        if let Some(moving) = state.moves.get(&shard.group()) {
            return Err(PlanRefused::InMotion { shard, operation: moving.operation });
        }
        let nodes: Vec<NodeId> = replicas.iter().map(|at| at.node).collect();
        if let Some(emptied) = emptied_by(state, &nodes) {
            let intent = emptied.intent.clone();
            return Err(PlanRefused::Emptied { shard, operation: emptied.id, intent });
        }
        state.node(from)?;
        if !nodes.contains(&from) {
            return Err(PlanRefused::NoReplica { shard, node: from });
        }
        moves::check_target(state, replicas, to).map_err(|reason| PlanRefused::Target { shard, to, reason })?;
    }
    Ok(())
}

/// The shards that running operations move by name. A single move holds its shard until it ends, a
/// rebalance only until the replica has moved.
fn taken_shards(state: &ClusterState) -> BTreeSet<ShardId> {
    let mut taken = BTreeSet::new();
    for running in state.running_operations() {
        match &running.intent {
            Intent::Move { planned } => {
                taken.insert(planned.shard);
            }
            intent => taken.extend(pending(state, intent.planned_moves()).map(|planned| planned.shard)),
        }
    }
    taken
}

/// The planned moves that are still to make and still possible: their target is an active node.
pub(crate) fn pending<'a>(
    state: &'a ClusterState,
    planned: &'a [PlannedMove],
) -> impl Iterator<Item = PlannedMove> + 'a {
    let is_active = |node: &NodeId| state.nodes.get(node).is_some_and(|node| node.state == NodeState::Active);
    let is_pending = move |planned: &PlannedMove| {
        let PlannedMove { shard, from, to } = planned;
        state.has_replica(*shard, *from) && !state.has_replica(*shard, *to) && is_active(to)
    };
    planned.iter().copied().filter(is_pending)
}

/// The running operation that empties one of these nodes.
pub(crate) fn emptied_by<'a>(state: &'a ClusterState, nodes: &[NodeId]) -> Option<&'a Operation> {
    let empties = |running: &&Operation| running.intent.leaving_node().is_some_and(|node| nodes.contains(&node));
    state.running_operations().find(empties)
}

/// Whether a move was made before: a client that retries did not receive the first answer.
pub(super) fn is_moved(state: &ClusterState, planned: &PlannedMove) -> Result<bool, PlanRefused> {
    state.node(planned.from)?;
    Ok(state.has_replica(planned.shard, planned.to) && !state.has_replica(planned.shard, planned.from))
}

/// Whether another operation made a move impossible or undid it: it gave the target a replica of
/// the shard, took the target away, or moved the replica elsewhere.
pub(super) fn is_overtaken(state: &ClusterState, planned: &PlannedMove) -> bool {
    state.has_replica(planned.shard, planned.from) || !state.has_replica(planned.shard, planned.to)
}
