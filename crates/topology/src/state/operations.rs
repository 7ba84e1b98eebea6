//! Operations: goals that operators set, checked before they start and on record until they end
//! (`completion`).
//!
//! An operation says which state the cluster should reach. The reconciler decides which replicas
//! move for it, and when.

use quorate_types::operation::{Intent, Operation, OperationId, OperationState};
use quorate_types::topology::Outcome;

use super::cluster::ClusterState;
use super::endings::ended;
use super::intents::Effect;
use super::operation_refused::{Decision, OperationRefused};
use super::{intents, plans};
use crate::limits::{OPERATIONS_KEPT_MAX, OPERATIONS_RUNNING_MAX};
use crate::record::{Change, Record};

/// Starts an operation. A running operation with the same intent is returned instead. `confirm` is
/// the address of the dead node as an operator typed it, or empty.
pub(super) fn start(state: &ClusterState, intent: &Intent, planned_on: u64, confirm: &str, now_ms: u64) -> Decision {
    intents::check_confirmed(state, intent, confirm)?;
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
        Intent::Replace { old, new, .. } => intents::replace(state, *old, *new, now_ms)?,
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

/// The ended operations to forget so that one more fits on record: the oldest ones.
fn surplus(state: &ClusterState) -> impl Iterator<Item = OperationId> {
    let ended = state.operations.values().filter(|operation| operation.state != OperationState::Running);
    let surplus = (state.operations.len() + 1).saturating_sub(OPERATIONS_KEPT_MAX);
    ended.map(|operation| operation.id).take(surplus)
}
