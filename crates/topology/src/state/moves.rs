//! Moves of replicas. A move starts with a new replica id, and the map changes once the group's own
//! log says that the new replica votes and the old one is no member.
//!
//! ```text
//!   StartMove ─→ replica 52 votes on node 3, replica 7 is no member ─→ FinishMove
//!       └─→ CancelMove ─→ replica 52 has no vote and is no member ─→ FinishCancelledMove
//! ```
//!
//! A node destroys its replicas that left the map. So `FinishMove` and `FinishCancelledMove` are
//! proposed only for a membership that is *committed*.

use quorate_types::operation::{Operation, OperationId, OperationState, ReplicaMove};
use quorate_types::topology::{NodeState, Outcome, Placement, ShardInfo};
use quorate_types::{GroupId, NodeId, ReplicaId};

use super::cluster::{ClusterState, Unknown};
use crate::names::{GroupName, MovePath};
use crate::record::{Change, Record};

/// The reason why a move does not start, or does not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MoveRefused {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error(transparent)]
    Target(#[from] TargetRefused),
    #[error("{} is in motion already: {}", GroupName(.0.group), MovePath(.0))]
    InMotion(ReplicaMove),
    #[error("this is not in motion: {}", MovePath(.0))]
    NotInMotion(ReplicaMove),
    #[error("moves are paused")]
    Paused,
    #[error("operation {0} is not running")]
    OperationEnded(OperationId),
    #[error("{} has no replica {replica}", GroupName(*.group))]
    NoReplica { group: GroupId, replica: ReplicaId },
    #[error("the move neither adds nor removes a replica")]
    Empty,
    #[error("{} has a fixed number of replicas", GroupName(*.0))]
    FixedNumber(GroupId),
    #[error("the last replica cannot be removed")]
    LastReplica,
}

/// The reason why a node cannot get a replica of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetRefused {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("node {0} already has a replica of it")]
    HasReplica(NodeId),
    #[error("node {node} is {state}; only an active node is given replicas")]
    NotActive { node: NodeId, state: NodeState },
}

type Decision = Result<(Outcome, Vec<Change>), MoveRefused>;

/// Starts a move and gives out the id of the new replica.
pub(super) fn start(
    state: &ClusterState,
    group: GroupId,
    from: Option<ReplicaId>,
    to: Option<NodeId>,
    operation: OperationId,
) -> Decision {
    let replicas = state.replicas(group)?;
    if let Some(moving) = state.moves.get(&group) {
        return Err(MoveRefused::InMotion(*moving));
    }
    if state.paused {
        return Err(MoveRefused::Paused);
    }
    if operation != OperationId::UPKEEP {
        check_running(state, operation)?;
    }
    let find = |replica| {
        let found = replicas.iter().find(|at| at.replica == replica).copied();
        found.ok_or(MoveRefused::NoReplica { group, replica })
    };
    let from = from.map(find).transpose()?;
    match (from, to) {
        (None, None) => return Err(MoveRefused::Empty),
        (None, _) | (_, None) if group != GroupId::TOPOLOGY => return Err(MoveRefused::FixedNumber(group)),
        (Some(_), None) if replicas.len() == 1 => return Err(MoveRefused::LastReplica),
        _ => {}
    }
    if let Some(to) = to {
        // A replica that lost its log may be replaced on its own node.
        let others: Vec<Placement> = replicas.iter().filter(|at| Some(**at) != from).copied().collect();
        check_target(state, &others, to)?;
    }
    let id = ReplicaId(state.counters.last_replica.0 + 1);
    assert!(replicas.iter().all(|at| at.replica < id), "replica id {id} is given out twice");
    let to = to.map(|node| Placement { replica: id, node });
    let moving = ReplicaMove { group, from, to, operation, cancelled: false };
    Ok((Outcome::Move(moving), vec![Change::Put(Record::Move(moving))]))
}

/// Puts the new replica into the map in place of the old one.
pub(super) fn finish(state: &ClusterState, moving: &ReplicaMove) -> Decision {
    let moving = in_motion(state, moving)?;
    let mut replicas = state.replicas(moving.group)?.to_vec();
    match (moving.from, moving.to) {
        (Some(from), Some(to)) => replicas.iter_mut().filter(|at| **at == from).for_each(|at| *at = to),
        (Some(from), None) => replicas.retain(|at| *at != from),
        (None, to) => replicas.extend(to),
    }
    let mut changes = vec![Change::ForgetMove(moving.group)];
    changes.push(Change::Put(match moving.group.shard() {
        Some(shard) => Record::Shard(ShardInfo { replicas, ..state.shard(shard)?.clone() }),
        None => Record::TopologyReplicas(replicas),
    }));
    if let Ok(operation) = state.operation(moving.operation) {
        let operation = Operation { moved: operation.moved + 1, ..operation.clone() };
        changes.push(Change::Put(Record::Operation(operation)));
    }
    Ok((Outcome::Done, changes))
}

/// Cancels a move: it is undone unless the new replica votes already.
pub(super) fn cancel(state: &ClusterState, moving: &ReplicaMove) -> Decision {
    let moving = in_motion(state, moving)?;
    Ok((Outcome::Done, vec![cancelled(&moving)]))
}

/// Forgets a cancelled move whose new replica is no member. The map stays as it is.
pub(super) fn finish_cancelled(state: &ClusterState, moving: &ReplicaMove) -> Decision {
    let moving = in_motion(state, moving)?;
    Ok((Outcome::Done, vec![Change::ForgetMove(moving.group)]))
}

/// Pauses or resumes the start of moves. Moves in motion continue.
pub(super) fn pause(state: &ClusterState, paused: bool) -> Decision {
    let changes = if state.paused == paused { Vec::new() } else { vec![Change::Put(Record::Paused(paused))] };
    Ok((Outcome::Done, changes))
}

/// Marks a move as cancelled.
pub(super) fn cancelled(moving: &ReplicaMove) -> Change {
    Change::Put(Record::Move(ReplicaMove { cancelled: true, ..*moving }))
}

/// Checks that a node may get a replica of a group with these replicas.
pub(super) fn check_target(state: &ClusterState, replicas: &[Placement], node: NodeId) -> Result<(), TargetRefused> {
    match state.node(node)?.state {
        NodeState::Active if replicas.iter().any(|at| at.node == node) => Err(TargetRefused::HasReplica(node)),
        NodeState::Active => Ok(()),
        state => Err(TargetRefused::NotActive { node, state }),
    }
}

/// The recorded move with these ends. It may have been cancelled since.
fn in_motion(state: &ClusterState, moving: &ReplicaMove) -> Result<ReplicaMove, MoveRefused> {
    match state.moves.get(&moving.group) {
        Some(known) if (known.from, known.to) == (moving.from, moving.to) => Ok(*known),
        _ => Err(MoveRefused::NotInMotion(*moving)),
    }
}

fn check_running(state: &ClusterState, id: OperationId) -> Result<(), MoveRefused> {
    match state.operation(id) {
        Ok(operation) if operation.state == OperationState::Running => Ok(()),
        _ => Err(MoveRefused::OperationEnded(id)),
    }
}
