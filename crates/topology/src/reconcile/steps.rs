//! The planner's output: steps to take now, and the progress of the running operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use quorate_types::operation::{OperationId, ReplicaMove};
use quorate_types::report::OrderKind;
use quorate_types::topology::Command;
use quorate_types::{GroupId, NodeId};

use crate::names::GroupName;

/// A step that is safe whenever it is taken: also twice, late, or by a deposed reconciler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Proposes a command to the topology group.
    Propose(Command),
    /// Sends an order to the leader of a group.
    Order {
        /// The leader's node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// The order.
        what: OrderKind,
    },
    /// Proposes [`Command::FinishCancelledMove`], once the leader of the group has confirmed that
    /// the new replica is no member. The confirmation must be newer than this plan: a deposed
    /// leader may not know yet that the replica became a member.
    FinishCancelledMove {
        /// The leader's node.
        node: NodeId,
        /// The cancelled move.
        moving: ReplicaMove,
    },
}

/// The progress of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Replicas in motion.
    pub moving: u32,
    /// Replicas whose move has not started yet.
    pub left: u32,
    /// The reasons why parts of the operation are blocked, one line each.
    pub waits: Vec<String>,
}

/// The steps to take now, and the progress of the running operations.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps, independent of each other.
    pub steps: Vec<Step>,
    /// The progress of every running operation, and of [`OperationId::UPKEEP`] if upkeep has moves
    /// or is blocked.
    pub progress: BTreeMap<OperationId, Progress>,
    /// Groups whose move is blocked.
    pub(super) stalled: BTreeSet<GroupId>,
    /// Whether a leader transfer is pending that is expected to succeed.
    pub(super) transfers_leadership: bool,
}

impl Plan {
    pub(super) fn progress(&mut self, operation: OperationId) -> &mut Progress {
        self.progress.entry(operation).or_default()
    }

    /// Notes why an operation's move of a group is blocked.
    pub(super) fn block(&mut self, operation: OperationId, group: GroupId, reason: &dyn Display) {
        self.progress(operation).waits.push(format!("{}: {reason}", GroupName(group)));
    }

    pub(super) fn order(&mut self, node: NodeId, group: GroupId, what: OrderKind) {
        self.steps.push(Step::Order { node, group, what });
    }
}
