//! The changes that end an operation.

use quorate_types::operation::{Operation, OperationState};

use super::cluster::ClusterState;
use super::moves;
use crate::record::{Change, Record};

/// The changes that cancel a running operation: of its moves and of its record.
pub(super) fn cancelled(state: &ClusterState, operation: &Operation, now_ms: u64) -> Vec<Change> {
    let of_operation = state.moves.values().filter(|moving| moving.operation == operation.id);
    let mut changes: Vec<Change> = of_operation.map(moves::cancelled).collect();
    changes.push(ended(operation, OperationState::Cancelled, now_ms));
    changes
}

/// Ends the record of an operation.
pub(super) fn ended(operation: &Operation, state: OperationState, now_ms: u64) -> Change {
    assert!(operation.state == OperationState::Running, "operation {} ends twice", operation.id);
    assert!(state != OperationState::Running, "operation {} ends as running", operation.id);
    Change::Put(Record::Operation(Operation { state, ended_ms: now_ms, ..operation.clone() }))
}
