//! Which operations have a position in the order of their shard.

use crate::history::{Action, Operation, Outcome};

/// Whether the reply contains the operation's position.
pub(super) fn is_placed(operation: &Operation) -> bool {
    operation.shard.is_some()
        && match (operation.outcome, operation.action) {
            (Outcome::Unknown, _) => false,
            (Outcome::Refused, _) | (_, Action::Read) => operation.revision.is_some(),
            _ => is_mutation(operation.action) && operation.version.is_some(),
        }
}

/// Whether the action changes a record when it is done.
pub(super) fn is_mutation(action: Action) -> bool {
    matches!(action, Action::Write | Action::Cas | Action::CasVersion | Action::Delete | Action::Append | Action::Add)
}
