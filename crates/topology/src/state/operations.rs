//! Operations: goals that operators set, checked before they start and on record until they end.
//!
//! An operation says which state the cluster should reach. The reconciler decides which replicas
//! move for it, and when.

use quorate_types::operation::{Intent, Operation, OperationId, OperationState, PlannedMove};
use quorate_types::topology::{NodeState, Outcome};
use quorate_types::{GroupId, NodeId, ShardId};

use super::cluster::{ClusterState, Unknown};
use super::endings::{cancelled, ended};
use super::held::Held;
use super::intents::{Effect, IntentRefused};
use super::nodes::with_state;
use super::plans::PlanRefused;
use super::{intents, plans};
use crate::limits::{OPERATIONS_KEPT_MAX, OPERATIONS_RUNNING_MAX};
use crate::names::GroupName;
use crate::record::{Change, Record};

/// The reason why an operation does not start, or does not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperationRefused {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error(transparent)]
    Intent(#[from] IntentRefused),
    #[error(transparent)]
    Plan(#[from] PlanRefused),
    #[error(
        "the cluster changed since this was planned (revision {planned_on} then, {revision} now); plan it again: \
         quorate rebalance plan -o json > FILE"
    )]
    StalePlan { planned_on: u64, revision: u64 },
    #[error("{OPERATIONS_RUNNING_MAX} operations are running, which is the maximum; wait for one, or cancel one")]
    TooMany,
    #[error("operation {id} ({intent}) is done; it cannot be cancelled")]
    Done { id: OperationId, intent: Intent },
    #[error("operation {id} is not done: {} is in motion", GroupName(*.group))]
    InMotion { id: OperationId, group: GroupId },
    #[error("node {node} still holds {held}")]
    StillHolds { node: NodeId, held: Held },
    #[error("shard {shard} is still on node {node}")]
    StillOn { shard: ShardId, node: NodeId },
}

type Decision = Result<(Outcome, Vec<Change>), OperationRefused>;

/// Starts an operation. A running operation with the same intent is returned instead.
pub(super) fn start(state: &ClusterState, intent: &Intent, planned_on: u64, now_ms: u64) -> Decision {
    if let Some(running) = state.running_operations().find(|running| running.intent == *intent) {
        return Ok((Outcome::Operation { id: running.id, already: true }, Vec::new()));
    }
    let revision = state.counters.revision;
    if planned_on != 0 && planned_on != revision {
        return Err(OperationRefused::StalePlan { planned_on, revision });
    }
    let effect = match intent {
        Intent::Add { node } => intents::add(state, *node)?,
        Intent::Drain { node } => intents::drain(state, *node, now_ms)?,
        Intent::Undrain { node } => intents::undrain(state, *node, now_ms)?,
        Intent::Remove { node, dead } => intents::remove(state, *node, *dead, now_ms)?,
        Intent::Replace { old, new } => intents::replace(state, *old, *new, now_ms)?,
        Intent::Move { planned } if plans::is_moved(state, planned)? => Effect::AlreadyDone,
        Intent::Move { .. } | Intent::Rebalance { .. } => {
            plans::check(state, intent.planned_moves())?;
            Effect::Run(Vec::new())
        }
    };
    let id = OperationId(state.counters.last_operation.0 + 1);
    assert!(!state.operations.contains_key(&id), "operation id {id} is given out twice");
    let operation = Operation {
        id,
        intent: intent.clone(),
        state: OperationState::Running,
        started_ms: now_ms,
        ended_ms: 0,
        moved: 0,
        node_was: intent.node().and_then(|node| state.nodes.get(&node)).map(|node| node.state),
    };
    let (mut changes, record) = match effect {
        Effect::AlreadyDone => return Ok((Outcome::Done, Vec::new())),
        Effect::Complete(changes) => (changes, ended(&operation, OperationState::Done, now_ms)),
        Effect::Run(changes) => (changes, Change::Put(Record::Operation(operation))),
    };
    if state.running_operations().count() >= OPERATIONS_RUNNING_MAX {
        return Err(OperationRefused::TooMany);
    }
    changes.push(record);
    changes.extend(surplus(state).map(Change::ForgetOperation));
    Ok((Outcome::Operation { id, already: false }, changes))
}

/// Ends an operation whose goal is reached. An operation whose goal another operation made
/// impossible is cancelled instead of done.
pub(crate) fn finish(state: &ClusterState, id: OperationId, now_ms: u64) -> Decision {
    let operation = state.operation(id)?;
    if operation.state != OperationState::Running {
        return Ok((Outcome::Done, Vec::new()));
    }
    if let Some(moving) = state.moves.values().find(|moving| moving.operation == id) {
        return Err(OperationRefused::InMotion { id, group: moving.group });
    }
    let mut changes = Vec::new();
    if let Some(node) = operation.intent.leaving_node() {
        let held = Held::by(state, node);
        if held.total() > 0 {
            return Err(OperationRefused::StillHolds { node, held });
        }
        if !matches!(operation.intent, Intent::Drain { .. }) {
            changes.push(with_state(state.node(node)?, NodeState::Removed));
        }
    }
    let moves = operation.intent.planned_moves();
    if let Some(PlannedMove { shard, from: node, .. }) = plans::pending(state, moves).next() {
        return Err(OperationRefused::StillOn { shard, node });
    }
    let overtaken = moves.iter().any(|planned| plans::is_overtaken(state, planned));
    let ending = if overtaken { OperationState::Cancelled } else { OperationState::Done };
    changes.push(ended(operation, ending, now_ms));
    Ok((Outcome::Done, changes))
}

/// Cancels a running operation and its moves, and returns its node to the state before.
pub(super) fn cancel(state: &ClusterState, id: OperationId, now_ms: u64) -> Decision {
    let operation = state.operation(id)?;
    match operation.state {
        OperationState::Cancelled => return Ok((Outcome::Done, Vec::new())),
        OperationState::Done => {
            return Err(OperationRefused::Done { id, intent: operation.intent.clone() });
        }
        OperationState::Running => {}
    }
    let mut changes = cancelled(state, operation, now_ms);
    // A node that was draining or joining before its removal gets no replicas because the removal
    // is cancelled.
    let before = match operation.intent {
        Intent::Drain { .. } => NodeState::Active,
        _ => operation.node_was.unwrap_or(NodeState::Active),
    };
    if let Some(node) = operation.intent.leaving_node() {
        changes.push(with_state(state.node(node)?, before));
    }
    Ok((Outcome::Done, changes))
}

/// The ended operations to forget so that one more fits on record: the oldest ones.
fn surplus(state: &ClusterState) -> impl Iterator<Item = OperationId> {
    let ended = state.operations.values().filter(|operation| operation.state != OperationState::Running);
    let surplus = (state.operations.len() + 1).saturating_sub(OPERATIONS_KEPT_MAX);
    ended.map(|operation| operation.id).take(surplus)
}
