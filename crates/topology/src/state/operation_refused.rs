//! The refusals of commands about operations.

use quorate_types::operation::{Intent, OperationId};
use quorate_types::topology::Outcome;
use quorate_types::{GroupId, NodeId, ShardId};

use super::cluster::Unknown;
use super::held::Held;
use super::intents::IntentRefused;
use super::plans::PlanRefused;
use crate::limits::OPERATIONS_RUNNING_MAX;
use crate::names::GroupName;
use crate::record::Change;

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

/// The outcome of a command and the changes that it makes, or the refusal.
pub(super) type Decision = Result<(Outcome, Vec<Change>), OperationRefused>;
