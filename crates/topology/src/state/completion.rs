//! Ends operations: their goal is reached, or an operator cancels them.

use quorate_types::operation::{Intent, OperationId, OperationState, PlannedMove};
use quorate_types::topology::{NodeState, Outcome};

use super::cluster::ClusterState;
use super::endings::{cancelled, ended};
use super::held::Held;
use super::nodes::with_state;
use super::operation_refused::{Decision, OperationRefused};
use super::plans;

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
